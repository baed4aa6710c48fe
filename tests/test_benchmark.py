"""The benchmark commands: PLOVER, baselines, curve and ablation, swaps, worst errors."""

import dataclasses
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers warn of one another's plans

from communique.eval.metrics import evaluate  # noqa: E402
from communique.eval.table import Row  # noqa: E402
from communique.model.artifact import document_digest, load_artifact, write_manifest  # noqa: E402
from communique.model.classifier import StanceClassifier  # noqa: E402
from communique.model.errors import InputError  # noqa: E402
from communique.model.labels import LABELS, label_index  # noqa: E402
from communique.train import baselines, benchmark_cli, experiments, plover, swaps, worst  # noqa: E402
from communique.train.batches import TrainRow  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402
from communique.train.public import PublicRow  # noqa: E402


@pytest.fixture(scope="module")
def quick(tiny_encoder):
    return TrainConfig(
        encoder=str(tiny_encoder),
        epochs=1,
        first_epochs=1,
        learning_rate=2e-3,
        batch_tokens=2048,
        max_tokens=32,
        before_tokens=0,
        precision="fp32",
        threads=1,
    )


# --- PLOVER --------------------------------------------------------------------------------------


def test_plover_scores_by_hand():
    """A threat taken for an accusation is right as a stance (both position) and wrong as a root."""
    gold = ["REQUEST", "YIELD", "AGREE", "THREATEN", "ACCUSE", "AID"]
    found = ["REQUEST", "YIELD", "AGREE", "ACCUSE", "ACCUSE", "AGREE"]
    scores = plover.score(gold, found)
    assert scores.f1_stances["position"].value == 1
    assert scores.f1_stances["agreement"].value == pytest.approx(2 / 3)
    assert scores.macro_f1_stances.value == pytest.approx((3 + 2 / 3) / 4)  # none is not in the mean
    assert scores.f1_roots["THREATEN"].value == 0
    assert scores.f1_roots["ACCUSE"].value == pytest.approx(2 / 3)
    assert scores.macro_f1_roots.value == pytest.approx((1 + 1 + 2 / 3 + 0 + 2 / 3 + 0) / 15)


def test_plover_scores_equal_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    gold = [plover.ROOTS[i] for i in rng.integers(0, 15, 400)]
    found = [g if rng.random() < 0.7 else plover.ROOTS[rng.integers(0, 15)] for g in gold]
    scores = plover.score(gold, found)
    assert scores.macro_f1_roots.value == pytest.approx(f1_score(gold, found, average="macro"))
    assert scores.macro_f1_roots.low < scores.macro_f1_roots.value < scores.macro_f1_roots.high


def event(n, root, split):
    words = {"REQUEST": "urges talks", "YIELD": "frees the crew", "ASSAULT": "shells the port"}[root]
    text = f"Belmar {words} on day {n}"
    return PublicRow("plover-zeroshot", str(n), text, root, None, "none", "x", split, "mapped")


@pytest.mark.slow
def test_plover_learns_and_a_seed_is_not_trained_twice(quick, tmp_path, monkeypatch):
    roots = ("REQUEST", "YIELD", "ASSAULT")
    rows = tuple([event(n, roots[n % 3], split) for n in range(45)] for split in ("train", "test"))
    config = plover.plover_config(
        encoder=quick.encoder,
        epochs=60,
        learning_rate=2e-3,
        head_learning_rate=1e-2,
        precision="fp32",
        threads=1,
    )
    found = plover.run(config, rows, tmp_path, seeds=2)
    assert list(found) == ["seed 1", "seed 2", "2 seeds together"]
    assert found["2 seeds together"].f1_roots["REQUEST"].value > 0.9
    kept = json.loads((tmp_path / "plover.json").read_text())
    assert kept["train_rows"] == 45 and kept["systems"].keys() == found.keys()
    assert "Belmar" not in (tmp_path / "seed-1.json").read_text()
    monkeypatch.setattr(plover, "train_and_predict", None)  # would fail if it were called
    assert plover.run(config, rows, tmp_path, seeds=2) == found
    with pytest.raises(TypeError):
        plover.run(dataclasses.replace(config, epochs=2), rows, tmp_path)
    plover.table(found, config, rows)


# --- baselines -----------------------------------------------------------------------------------


def row(n, gold, text):
    return Row(f"r:{n}", f"d{n % 7}", n, text, gold)


@pytest.fixture
def rows():
    words = dict(zip(map(str, LABELS), ("condemns", "urges", "lifts", "agreed", "met"), strict=True))
    return [row(n, label, f"Belmar {word} it, {n}") for n in range(8) for label, word in words.items()]


def numbered(rows):
    return [dataclasses.replace(r, sent_id=i) for i, r in enumerate(rows)]


def test_baselines_are_scored_kept_and_not_run_twice(rows, tmp_path):
    train, held = numbered(rows), numbered(rows)[:20]
    systems = baselines.simple_systems(train, held)
    results = baselines.run_systems(systems, train, held, tmp_path)
    by_name = {r.name: r for r in results}
    assert by_name["TF-IDF + logistic regression"].scores.macro_f1.value == 1
    assert by_name["majority"].scores.macro_f1.value < 0.2
    assert by_name["majority"].ece is None
    dead = [dataclasses.replace(s, answer=None) for s in systems]  # would fail if it were called
    assert baselines.run_systems(dead, train, held, tmp_path) == results
    with pytest.raises(TypeError):  # other rows are another question
        baselines.run_systems(dead, train[1:], held, tmp_path)
    table = baselines.markdown(results, "dev")
    assert "| majority |" in table and "20 sentences" in table
    kept = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    assert "Belmar" not in kept


def test_answers_hang_on_what_was_learnt_from_public_data(quick, tmp_path):
    """As many rows of other words, or another first stage of the same settings, are another question."""

    def settings(public, trained=None):
        return [s.settings for s in baselines.public_systems(public, [], quick, tmp_path, trained)]

    rows = [TrainRow("Belmar urges talks", label="demand"), TrainRow("Belmar met", label="none")]
    assert settings(rows) == settings(list(rows))
    for other in (
        [rows[0], TrainRow("Belmar left", label="none")],
        [rows[0], dataclasses.replace(rows[1], label="position")],
        [rows[0], dataclasses.replace(rows[1], weight=0.5)],
    ):
        assert all(a != b for a, b in zip(settings(rows), settings(other), strict=True))
    quick.save(tmp_path / "train.json")
    found = []
    for weights in (b"one", b"two"):
        (tmp_path / "model.safetensors").write_bytes(weights)
        found.append(settings(rows, tmp_path)[1])
    assert found[0] != found[1]


def test_a_sample_holds_so_many_of_each_label_and_is_the_same_again(rows):
    few = baselines.sample(numbered(rows), 3, seed=4)
    assert [sum(r.gold == label for r in few) for label in LABELS] == [3] * 5
    assert few == baselines.sample(numbered(rows), 3, seed=4)
    assert few != baselines.sample(numbered(rows), 3, seed=5)


@pytest.mark.slow
def test_frozen_encoder_and_setfit_tell_words_apart(rows, tiny_encoder):
    pytest.importorskip("setfit", reason="needs the baselines extra")
    from communique.train.sentence_models import frozen_probabilities, setfit_probabilities

    train, held = numbered(rows), numbered(rows)
    four = [r for r in train if r.gold != "none"]
    gold = [label_index(r.gold) for r in held]
    frozen = frozen_probabilities(str(tiny_encoder), train, held)
    tuned = setfit_probabilities(str(tiny_encoder), baselines.sample(four, 2, 0), held, seed=0)
    assert np.allclose(frozen.sum(axis=1), 1) and np.allclose(tuned.sum(axis=1), 1)
    assert (frozen.argmax(axis=1) == gold).mean() > 0.5
    assert (tuned[:, label_index("none")] == 0).all()  # a label that was not learnt is never given


# --- curve and ablation --------------------------------------------------------------------------


def test_samples_of_one_seed_are_nested(own, quick):
    small, large, whole = experiments.curve(own, quick, [3, 6, None])
    assert [len(p.rows) for p in (small, large)] == [15, 30]
    assert {r.text for r in small.rows} <= {r.text for r in large.rows} <= {r.text for r in whole.rows}
    assert small.config.epochs * len(small.rows) >= experiments.LEAST_PASSES
    assert small.config.keep == "last"  # nothing is chosen on dev


@pytest.mark.slow
def test_the_curve_rises_and_goes_on_where_it_was(own, quick, tmp_path, monkeypatch):
    config = dataclasses.replace(quick, epochs=6, dropout=0.0, layer_decay=1.0, batch_tokens=1024)
    parts = experiments.curve(own, config, [2, None])
    results = experiments.run(parts, tmp_path, "curve")
    assert json.loads((tmp_path / "curve.json").read_text()) == results
    few, everything = results
    assert everything["macro_f1"] > few["macro_f1"]
    assert everything["low"] <= everything["macro_f1"] <= everything["high"]
    assert everything["n"] == len(own.split("dev"))
    monkeypatch.setattr(experiments, "_measure", None)
    assert experiments.run(parts, tmp_path, "curve") == results
    from communique.eval.generalise import read_results

    assert len(read_results(tmp_path / "curve.json")) == 2


@pytest.mark.slow
def test_each_variant_differs_in_one_thing(own, quick, tmp_path, tiny_encoder):
    from communique.train.batches import TrainRow

    public = [TrainRow(f"Belmar urges talks {n}", label="demand", source="public") for n in range(20)]
    config = dataclasses.replace(quick, before_tokens=8)
    parts = experiments.ablation(own, config, public=public, teacher=str(tiny_encoder))
    by_name = {p.variant: p for p in parts}
    recipe = by_name["recipe"]
    assert by_name["without-public-data"].public == () and recipe.public == public
    assert by_name["without-context"].config.before_tokens == 0
    changed = {
        name: {k for k, v in vars(p.config).items() if v != vars(recipe.config)[k]}
        for name, p in by_name.items()
    }
    assert changed == {
        "recipe": set(),
        "without-public-data": {"public_weight"},
        "without-own-statements": {"own_weight"},
        "without-single-pass": {"single_weight"},
        "without-context": {"before_tokens"},
        "with-twice-the-context": {"before_tokens"},
        "with-second-acts": {"second_act"},
        "with-swapped-names": {"swap_names"},
        "with-int8-weights": set(),
        "teacher": set(),  # the same tiny encoder here
    }
    wanted = [by_name["recipe"], by_name["with-int8-weights"]]
    fp32, int8 = experiments.run(wanted, tmp_path, "ablation")
    assert int8["macro_f1"] == pytest.approx(fp32["macro_f1"], abs=0.05)
    assert int8["seconds"] < fp32["seconds"]  # the training was not done twice
    assert not (tmp_path / "work").exists()
    assert "| with-int8-weights |" in experiments.markdown([fp32, int8])


def test_swapped_rows_keep_everything_but_the_names():
    from communique.train.augment import swapped
    from communique.train.batches import TrainRow

    plain = TrainRow("We met at noon.", label="none", source="real", doc_id="a")
    named = TrainRow("Iran urged an Iraqi envoy to leave.", "Iran had asked.", label="demand", doc_id="b")
    rows = [plain, *[named] * 40]
    found = swapped(rows, 1.0, 3)
    assert found[0] == plain and found == swapped(rows, 1.0, 3) != swapped(rows, 1.0, 4)
    made_up = 0
    for row in found[1:]:
        assert "Iran" not in row.text + row.before and "Iraq" not in row.text
        first = row.text.split(" urged ")[0]
        assert row.before == f"{first} had asked." and (row.label, row.doc_id) == ("demand", "b")
        assert first not in swaps.INVENTED
        made_up += first not in swaps.REAL
    assert 5 < made_up < 35
    half = swapped(rows, 0.5, 3)
    assert 8 < sum(row == named for row in half) < 32


# --- swaps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, swapped",
    [
        ("An Iranian ship left Iran’s port.", "A Kestrian ship left Kestria’s port."),
        ("The United States' view", "Kestria's view"),
        ("the United States of America and American troops", "Kestria and Kestrian troops"),
        ("the South China Sea", "the South China Sea"),
        ("Northern Ireland and Latin American states", "Northern Ireland and Latin American states"),
        ("South Sudan", "Kestria"),
    ],
)
def test_names_are_swapped_in_their_forms(text, swapped):
    names = dict.fromkeys(swaps.parties(text), "Kestria")
    assert swaps.swap(text, names, swaps.INVENTED) == swapped


def test_a_party_keeps_its_new_name_and_no_two_share_one():
    found = swaps.parties("China urged Japan; Chinese and Japanese ships met off China.")
    assert found == ["China", "Japan"]
    for kind in swaps.KINDS:
        names = swaps.replacements(found, kind, "seed")
        assert len(set(names.values())) == 2 and not set(names.values()) & set(found)
        assert names == swaps.replacements(found, kind, "seed")


def test_parties_beyond_the_names_there_are_stay():
    found = list(swaps.REAL)[:40]
    names = swaps.replacements(found, "invented", "seed")
    assert list(names) == found[:26] and sorted(names.values()) == sorted(swaps.INVENTED)
    swapped = swaps.swap(f"{found[0]} and {found[30]}", names, swaps.INVENTED)
    assert swapped == f"{names[found[0]]} and {found[30]}"


def sentence(own, n, text, label="demand", **changes):
    base = own.sentences[n]
    kept = dataclasses.replace(base.row, doc_id=f"d{n}", sent_id=n, label=label, **changes)
    return dataclasses.replace(base, row=kept, text=text, before="", after="")


def test_a_model_that_reads_no_names_flips_nothing(own, toy_model):
    sentences = [sentence(own, n, f"Russia urges Japan, {n}") for n in range(8)]
    sentences += [sentence(own, 9, "The sides met.")]
    found = swaps.swap_test(StanceClassifier.load(toy_model), sentences)
    assert [(k.kind, k.sentences, k.flips) for k in found.kinds] == [
        ("real", 8, 0),
        ("invented", 8, 0),
        ("both", 16, 0),
    ]
    assert found.split_sentences == 9 and "0 of 16 flip, 0.00%" in found.text()
    json.dumps(found.to_json())


def test_a_model_that_reads_names_is_found_out(own):
    class Partial:
        """Takes what Russia says for a demand, what others say for a position."""

        version = "partial"

        def label_sentences(self, inputs):
            return [SimpleNamespace(label="demand" if "Russia" in i.text else "position") for i in inputs]

    sentences = [sentence(own, n, f"{name} acts") for n, name in enumerate(["Russia"] * 5 + ["Kenya"] * 5)]
    found = swaps.swap_test(Partial(), sentences)
    invented = found.kinds[1]
    assert (invented.flips, invented.rate.value) == (5, 0.5)
    assert found.moves["demand -> position"] >= 5


# --- worst errors --------------------------------------------------------------------------------


def test_worst_errors_are_written_outside_repositories_only(own, toy_model, tmp_path, root):
    classifier = StanceClassifier.load(toy_model)
    sentences = [
        sentence(own, 0, "Belmar urges calm", "demand"),
        sentence(own, 1, "Belmar urges trade and lifts", "position", also="demand"),
    ]
    said = worst.write_errors(classifier, sentences, tmp_path / "errors.md")
    page = (tmp_path / "errors.md").read_text()
    assert said.startswith("1 of 2 labels are wrong")
    assert "position, taken for" in page and "> Belmar urges trade and lifts" in page
    with pytest.raises(InputError, match="would hold texts"):
        worst.write_errors(classifier, sentences, root / "errors.md")
    assert not (root / "errors.md").exists()


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def held(own, monkeypatch):
    """The commands' annotations: ten sentences of ten documents, in every split."""
    says = {"position": "condemns", "demand": "urges", "concession": "lifts", "agreement": "agreed"}
    rows = [
        sentence(own, n, f"Russia {says.get(label, 'met')} Japan, {n}", label)
        for n, label in enumerate([*map(str, LABELS)] * 2)
    ]
    monkeypatch.setattr(benchmark_cli, "_annotations", lambda *_: SimpleNamespace(split=lambda _: rows))
    return rows


@pytest.mark.parametrize("command", ["baselines", "swap", "errors"])
def test_documents_that_a_model_learnt_from_are_named(command, held, toy_model, tmp_path, monkeypatch):
    folder = shutil.copytree(toy_model, tmp_path / "model")
    config = load_artifact(folder).config
    words = [command, "--model", str(folder), "--out", str(tmp_path / "out.md")]
    if command == "swap":
        words = words[:3]
    if command == "baselines":  # what is scored is no matter here

        def stop(*_, **__):
            raise InputError("enough")

        monkeypatch.setattr(baselines, "run_systems", stop)
    version = load_artifact(folder).version
    for known, expected in (
        ((), f"note: {version} does not say which documents it learnt from"),
        (("d1", "d2", "x"), f"warning: {version} learnt from 2 of the 10 documents (2 of 10 sentences)"),
        (("x",), ""),
    ):
        write_manifest(folder, dataclasses.replace(config, trained_on=tuple(map(document_digest, known))))
        done = CliRunner().invoke(benchmark_cli.app, words)
        said = [line for line in done.stderr.splitlines() if f" {version} " in line]
        assert len(said) == bool(expected) and "".join(said).startswith(expected)


def test_bad_flags_get_one_line(tmp_path):
    command = [sys.executable, "-m", "communique.cli", "benchmark", "curve", "--sizes", "10,few"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "--sizes has 'few'" in done.stderr.strip().split("\n")[-1]
    done = CliRunner().invoke(benchmark_cli.app, ["plover", "--epochs", "0", "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError) and "epochs must lie in" in str(done.exception)


@pytest.mark.corpus
def test_the_cheap_baselines_on_dev(shared, tmp_path):
    from communique.train.corpus import load_annotations

    annotations = load_annotations(shared=shared)
    train, held = (baselines.rows_of(annotations.split(name)) for name in ("train", "dev"))
    results = baselines.run_systems(baselines.simple_systems(train, held), train, held, tmp_path)
    majority, rules, learnt = (r.scores.macro_f1.value for r in results)
    assert majority < rules < learnt < 0.8
    gold = [r.gold for r in held]
    assert evaluate(gold, np.eye(5)[[label_index(g) for g in gold]], gold, threshold=0).macro_f1.value == 1
