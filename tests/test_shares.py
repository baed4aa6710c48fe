"""Shares of an archive: the estimators by hand and against mlquantify, coverage by simulation, bad input."""

import csv
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from communique.eval.eval_cli import app
from communique.eval.predictions import Gold, Predictions, read_gold, read_predictions
from communique.eval.prevalence import clustered_mean, design_shares, group_shares
from communique.eval.quantify import acc, cells, em, recalibrated, recalibration
from communique.model.errors import InputError
from communique.model.labels import LABELS

pytest.importorskip("scipy", reason="needs the eval extra")

NAMES = list(map(str, LABELS))
TRUE = np.array([0.3, 0.12, 0.06, 0.1, 0.42])


# --- an invented archive whose truth is known ---------------------------------------------------------


def archive(documents=1500, seed=1, groups=3, drift=True):
    """Documents of 10 to 40 sentences; label shares differ by document and group, errors by group."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 41, documents)
    document = np.repeat(np.arange(documents), lengths)
    group = (document % groups).astype(np.int64)
    tilt = np.array([[1, 1, 1, 1, 1], [0.5, 2.0, 1.5, 0.7, 1.0], [1.4, 0.6, 0.8, 1.6, 0.8]])[:groups]
    shares = np.stack([rng.dirichlet(20 * TRUE * tilt[d % groups]) for d in range(documents)])
    truth = (rng.random(len(document))[:, None] > shares[document].cumsum(axis=1)).sum(axis=1).clip(0, 4)
    z = rng.normal(size=(len(document), 5))
    z[np.arange(len(z)), truth] += 2.0
    z[:, 0] += 0.7  # the model leans to position everywhere,
    if drift:
        z[:, 1] += 0.9 * (group == 1)  # and to demand in one group
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return (
        Predictions(
            by=("issuer",),
            groups=tuple((f"I{i}",) for i in range(groups)),
            group=group,
            document=document,
            found=p.argmax(axis=1),
            probabilities=p,
            places={(f"d{d}", str(i)): i for i, d in enumerate(document)},
            model="m",
        ),
        truth,
        lengths,
    )


def drawn(predictions, truth, lengths, rng, documents=120, window=20):
    """A window of up to 20 sentences from a random place (round the end) of documents drawn at random."""
    starts = np.concatenate([[0], lengths.cumsum()])
    rows, weights = [], []
    for d in rng.choice(len(lengths), documents, replace=False):
        n = min(window, lengths[d])
        at = (rng.integers(lengths[d]) + np.arange(n)) % lengths[d]
        rows.append(starts[d] + at)
        weights.append(np.full(n, len(lengths) / documents * lengths[d] / n))
    rows = np.concatenate(rows)
    return Gold(rows, truth[rows], np.concatenate(weights), 0)


@pytest.mark.slow
def test_design_based_intervals_cover_and_naive_ones_do_not(capsys):
    """600 samples of one archive: per group and label, how often the interval holds the true share."""
    predictions, truth, lengths = archive()
    rng = np.random.default_rng(7)
    members = [np.ones(len(truth), bool), *(predictions.group == i for i in range(3))]
    true = np.stack([np.bincount(truth[m], minlength=5) / m.sum() for m in members])
    means = [predictions.probabilities[m].mean(axis=0) for m in members]
    hits = np.zeros((4, 5))
    runs = 600
    for _ in range(runs):
        gold = drawn(predictions, truth, lengths, rng, documents=180)
        for i, m in enumerate(members):
            mine = m[gold.row]
            rows = gold.row[mine]
            found = design_shares(
                means[i],
                predictions.probabilities[rows],
                gold.truth[mine],
                gold.weight[mine],
                predictions.document[rows],
            )
            hits[i] += [n.low <= t <= n.high for n, t in zip(found, true[i], strict=True)]
    coverage = hits / runs
    naive = np.array(
        [
            [n.low <= t <= n.high for n, t in zip(found, true[i], strict=True)]
            for i, m in enumerate(members)
            for found in [clustered_mean(np.eye(5)[predictions.found[m]], predictions.document[m])]
        ]
    )
    with capsys.disabled():
        print(
            f"\ncoverage, design-based: mean {coverage.mean():.3f}, by group {coverage.mean(axis=1).round(3)}"
        )
        print(f"by label {coverage.mean(axis=0).round(3)}; naive intervals that hold: {naive.sum()} of 20")
    assert 0.93 <= coverage.mean() <= 0.97
    assert (coverage.mean(axis=1) >= 0.93).all() and (coverage.mean(axis=1) <= 0.97).all()
    assert naive.mean() < 0.5


@pytest.mark.slow
def test_adjusted_intervals_cover_where_the_model_errs_alike_everywhere(capsys):
    predictions, truth, lengths = archive(documents=600, drift=False)
    rng = np.random.default_rng(3)
    members = [np.ones(len(truth), bool), *(predictions.group == i for i in range(3))]
    true = np.stack([np.bincount(truth[m], minlength=5) / m.sum() for m in members])
    hits = {"naive": 0, "acc": 0, "emq": 0, "design": 0}
    runs = 12
    for run in range(runs):
        gold = drawn(predictions, truth, lengths, rng, documents=150)
        for g, shares in zip(group_shares(predictions, gold, resamples=40, seed=run), true, strict=True):
            for method in hits:
                found = [g.shares[method][name] for name in NAMES]
                hits[method] += sum(n.low <= t <= n.high for n, t in zip(found, shares, strict=True))
    coverage = {method: n / (runs * 20) for method, n in hits.items()}
    with capsys.disabled():
        print(f"\ncoverage where errors are alike: {coverage}")
    assert min(coverage["acc"], coverage["emq"], coverage["design"]) > 0.9
    assert coverage["naive"] < 0.7


# --- the estimators -----------------------------------------------------------------------------------


def test_acc_undoes_known_errors():
    confusion = np.array(
        [[80, 10, 0, 0, 10], [5, 45, 0, 0, 0], [2, 0, 18, 0, 0], [0, 0, 3, 27, 0], [9, 0, 0, 0, 91]]
    )
    true = np.array([0.1, 0.5, 0.1, 0.1, 0.2])
    observed = true @ (confusion / confusion.sum(axis=1, keepdims=True))
    assert acc(confusion, observed) == pytest.approx(true, abs=1e-6)
    # Observed shares that no true shares explain: the nearest that are shares.
    found = acc(confusion, np.array([0, 0, 0, 0, 1.0]))
    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    confusion[2] = 0
    assert acc(confusion, observed) is None


def test_em_and_acc_agree_with_mlquantify():
    likelihood = pytest.importorskip("mlquantify.likelihood", reason="needs the dev extra")
    counting = pytest.importorskip("mlquantify.counting", reason="needs the dev extra")
    rng = np.random.default_rng(0)
    prior = np.full(5, 0.2)
    truth = rng.choice(5, 3000, p=TRUE)
    z = rng.normal(size=(3000, 5)) + 1.5 * np.eye(5)[truth]
    p = np.exp(1.5 * z) / np.exp(1.5 * z).sum(axis=1, keepdims=True)
    theirs, _ = likelihood.EMQ.EM(p, prior, tolerance=1e-9, max_iter=3000)
    assert em(p, prior) == pytest.approx(theirs, abs=1e-5)
    twice = em(p[:1000], prior, np.full(1000, 2.0))
    assert twice == pytest.approx(em(np.concatenate([p[:1000], p[:1000]]), prior), abs=1e-6)
    # Two classes: adjusted count is (cc - fpr) / (tpr - fpr), as theirs.
    given, true = (p[:, 1] > 0.4).astype(int), (truth == 1).astype(int)
    theirs = counting.ACC()._adjust(given[:1500], given[1500:], true[1500:])
    confusion = np.zeros((2, 2))
    np.add.at(confusion, (true[1500:], given[1500:]), 1)
    assert acc(confusion, np.bincount(given[:1500], minlength=2) / 1500) == pytest.approx(theirs, abs=1e-5)


def test_recalibration_makes_means_right():
    predictions, truth, _ = archive(documents=300, drift=False)
    fit = recalibration(predictions.probabilities, truth, np.ones(len(truth)))
    fixed = recalibrated(predictions.probabilities, fit)
    shares = np.bincount(truth, minlength=5) / len(truth)
    assert np.abs(predictions.probabilities.mean(axis=0) - shares).max() > 0.05
    assert fixed.mean(axis=0) == pytest.approx(shares, abs=0.004)


def test_cells_keep_the_mean():
    p = archive(documents=200)[0].probabilities
    levels, place = cells(p)
    assert len(levels) < len(p) and levels[place].mean(axis=0) == pytest.approx(p.mean(axis=0), abs=0.01)


def test_the_clustered_mean_by_hand():
    """a (1, 0), b (1), weights 1, 1, 2: mean 3/4; residuals a -1/2, b 1/2; error sqrt(2 * 1/2) / 4."""
    (n,) = clustered_mean(np.array([[1.0], [0], [1]]), np.array([0, 0, 1]), np.array([1.0, 1, 2]), clip=False)
    reach = 12.7062 * 0.25  # t with one degree of freedom
    assert (n.value, n.low, n.high) == pytest.approx((0.75, 0.75 - reach, 0.75 + reach), abs=1e-3)
    (alone,) = clustered_mean(np.array([[1.0], [0]]), np.array([4, 4]))
    assert alone.value == 0.5 and alone.low is None


def test_design_shares_are_prediction_powered_inference():
    """Independent rows of equal weight: mean p + mean error, with the interval of the mean error."""
    from scipy.stats import t

    rng = np.random.default_rng(4)
    p, truth, mean = rng.dirichlet(np.ones(5), 80), rng.integers(0, 5, 80), np.full(5, 0.2)
    found = design_shares(mean, p, truth, np.ones(80), np.arange(80))
    error = (truth == 2) - p[:, 2]
    reach = t.ppf(0.975, 79) * error.std(ddof=1) / np.sqrt(80)
    value = 0.2 + error.mean()
    assert (found[2].value, found[2].low, found[2].high) == pytest.approx(
        (value, value - reach, value + reach)
    )


def test_the_clustered_mean_is_that_of_statsmodels():
    """Without weights: least squares on a constant with standard errors by group."""
    api = pytest.importorskip("statsmodels.api", reason="needs the eval extra")
    rng = np.random.default_rng(0)
    documents = rng.integers(0, 30, 400)
    y = rng.normal(size=400) + rng.normal(size=30)[documents]
    fit = api.OLS(y, np.ones(400)).fit(
        cov_type="cluster", cov_kwds={"groups": documents, "use_correction": False}
    )
    (n,) = clustered_mean(y[:, None], documents, clip=False)
    from scipy.stats import t

    count = len(np.unique(documents))
    error = (n.high - n.low) / 2 / t.ppf(0.975, count - 1)
    assert error == pytest.approx(float(fit.bse[0]) * np.sqrt(count / (count - 1)))


# --- the command --------------------------------------------------------------------------------------


def records(n_documents=40, n=6):
    rng = np.random.default_rng(0)
    rows = []
    for d in range(n_documents):
        for i in range(n):
            p = np.round(rng.dirichlet(np.ones(5)), 4)
            p[4] = round(1 - p[:4].sum(), 4)
            rows.append(
                {"doc_id": f"d{d}", "sent_id": i, "text": "x", "label": NAMES[int(p.argmax())]}
                | {f"p_{name}": float(v) for name, v in zip(NAMES, p, strict=True)}
                | {"issuer": f"I{d % 2}", "date": f"{2019 + d % 2}-03-01", "model_version": "m-1"}
            )
    return rows


def written(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa = pytest.importorskip("pyarrow", reason="needs the archive extra")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def gold_rows(rows, **changes):
    return [
        {"doc_id": r["doc_id"], "sent_id": r["sent_id"], "gold": NAMES[i % 5], "weight": 2.0} | changes
        for i, r in enumerate(rows)
        if r["sent_id"] < 3
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_records_read_alike_in_every_form(tmp_path, ending):
    rows = records()
    read = read_predictions(written(tmp_path / f"r{ending}", rows), ["issuer", "year"])
    assert read.groups == (("I0", "2019"), ("I1", "2020")) and read.model == "m-1"
    assert read.probabilities[7] == pytest.approx([rows[7][f"p_{name}"] for name in NAMES])
    assert [NAMES[i] for i in read.found] == [row["label"] for row in rows]
    gold = read_gold(written(tmp_path / "g.jsonl", gold_rows(rows)), read)
    assert gold.row[3] == 6 and gold.outside == 0


def test_the_command(tmp_path):
    rows = records()
    folder = tmp_path / "records"
    folder.mkdir()
    for i in (0, 1):
        written(folder / f"part-{i}.parquet", rows[i::2])
    gold = written(tmp_path / "g.jsonl", [*gold_rows(rows), {"doc_id": "z", "sent_id": 0, "gold": "none"}])
    out = tmp_path / "out"
    options = ["--gold", str(gold), "--by", "issuer,year", "--out", str(out), "--resamples", "20"]
    done = CliRunner().invoke(app, ["shares", str(folder), *options])
    assert done.exit_code == 0, done.output
    assert "1 gold rows are no sentences of the records" in done.output
    found = json.loads((out / "shares.json").read_text())
    assert [g["group"] for g in found["groups"]] == [
        {},
        {"issuer": "I0", "year": "2019"},
        {"issuer": "I1", "year": "2020"},
    ]
    # Every sentence with sent_id < 3 is gold with equal weight: the design-based share by hand.
    p = np.array([[row[f"p_{name}"] for name in NAMES] for row in rows])
    mine = np.array([row["sent_id"] < 3 for row in rows])
    truth = np.eye(5)[[NAMES.index(g["gold"]) for g in gold_rows(rows)]]
    share = p.mean(axis=0) + (truth - p[mine]).mean(axis=0)
    shares = found["groups"][0]["shares"]
    assert [shares["design"][name]["value"] for name in NAMES] == pytest.approx(share, abs=1e-5)
    lines = list(csv.DictReader((out / "shares.csv").read_text().splitlines()))
    assert len(lines) == 3 * 4 * 5 and lines[0]["issuer"] == "all"
    svg = (out / "shares.svg").read_text()
    assert svg.count("font-weight") == 4 and "nan" not in svg.lower().replace("finance", "")


def test_gold_that_cannot_carry_the_question_says_so(tmp_path):
    rows = records()
    path = written(tmp_path / "r.jsonl", rows)
    few = written(tmp_path / "g.jsonl", gold_rows(rows)[:9])
    out = tmp_path / "out"
    command = ["shares", str(path), "--out", str(out), "--resamples", "5", "--by", "issuer"]
    done = CliRunner().invoke(app, [*command, "--gold", str(few)])
    assert done.exit_code == 0 and "design-based shares need 30 of 10" in done.output
    found = json.loads((out / "shares.json").read_text())["groups"][0]["shares"]
    assert found["design"]["demand"]["value"] is None and found["naive"]["demand"]["value"] is not None
    chosen = written(tmp_path / "h.jsonl", gold_rows(rows, weight=None, gold="demand"))
    done = CliRunner().invoke(app, [*command, "--gold", str(chosen)])
    assert done.exit_code == 0 and "no gold row has a weight" in done.output
    found = json.loads((out / "shares.json").read_text())["groups"][0]["shares"]
    assert found["acc"]["demand"]["value"] is None  # four labels have no gold row
    assert "NaN" not in (out / "shares.json").read_text()
    done = CliRunner().invoke(app, [*command, "--gold", str(chosen), "--simple-random"])
    assert done.exit_code == 0 and "few gold rows of position (0)" in done.output


def without(row, name):
    return {k: v for k, v in row.items() if k != name}


@pytest.mark.parametrize(
    "change, by, message",
    [
        (lambda r: [without(r[0], "p_none"), *r[1:]], "", "r.jsonl:1: no column 'p_none'"),
        (lambda r: [r[0], r[1] | {"label": "threat"}], "", "r.jsonl:2: label is 'threat': use one of"),
        (lambda r: [r[0] | {"p_none": 0.9}], "", "r.jsonl:1: the probabilities sum to"),
        (lambda r: [r[0] | {"p_none": float("nan")}], "", "r.jsonl:1: p_none is nan"),
        (lambda r: [r[0], r[0]], "", "r.jsonl:2: d0#0 stands in the records already"),
        (lambda r: [r[0] | {"date": "May"}], "year", "r.jsonl:1: date is 'May'"),
        (lambda r: r, "country", "no column 'country': group by one of"),
        (lambda r: [], "", "holds no records"),
    ],
)
def test_bad_records_get_one_line(tmp_path, change, by, message):
    path = written(tmp_path / "r.jsonl", change(records()))
    gold = written(tmp_path / "g.jsonl", gold_rows(records()))
    command = ["shares", str(path), "--gold", str(gold), "--out", str(tmp_path / "o"), "--by", by]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and message in done.output and done.output.strip().count("\n") == 0


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"doc_id": "d0", "sent_id": 0, "gold": "x"}], "g.jsonl:1: gold is 'x'"),
        ([{"doc_id": "d0", "sent_id": 0}], "g.jsonl:1: no column 'gold'"),
        ([{"doc_id": "d0", "sent_id": 0, "gold": "none", "weight": -1}], "weight is -1"),
        ([{"doc_id": "d0", "sent_id": 0, "gold": "none"}] * 2, "is in g.jsonl:1 already"),
        ([{"doc_id": "z", "sent_id": 0, "gold": "none"}], "none of its 1 rows is a sentence of the records"),
    ],
)
def test_bad_gold_gets_one_line(tmp_path, rows, message):
    read = read_predictions(written(tmp_path / "r.jsonl", records()))
    with pytest.raises(InputError, match=re.escape(message)):
        read_gold(written(tmp_path / "g.jsonl", rows), read)
