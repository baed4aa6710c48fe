"""Several runs of one training: seeds, folds, hold-outs, search, two processes, and the command line."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers warn of one another's plans

from communique.model.errors import InputError  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402

FORMAT = {"name", "held_out", "train_rows", "macro_f1", "low", "high", "n", "seconds"}


@pytest.fixture(scope="module")
def quick(tiny_encoder):
    return TrainConfig(
        encoder=str(tiny_encoder),
        epochs=1,
        learning_rate=2e-3,
        batch_tokens=2048,
        max_tokens=32,
        before_tokens=0,
        precision="fp32",
        threads=1,
    )


@pytest.fixture(scope="module")
def grouped(own):
    """The project's own statements in two folds, of two issuers and three years."""
    learn = sorted(d for d, part in own.splits["split"].items() if part != "test")
    issuer = {d: ("Belmar", "Torvia", "Oster")[i % 3] for i, d in enumerate(learn)}
    years = {d: f"{2021 + (i * 4) // len(learn)}-05-01" for i, d in enumerate(learn)}
    sentences = tuple(
        dataclasses.replace(
            s,
            doc=dataclasses.replace(
                s.doc, issuer=issuer.get(s.row.doc_id, "x"), date=years.get(s.row.doc_id, "2030-01-01")
            ),
        )
        for s in own.sentences
    )
    splits = {
        **own.splits,
        "fold": {d: i % 2 for i, d in enumerate(learn)},
        "leave_issuer_out": ["Belmar", "Torvia"],
        "near_duplicates": [[learn[0], learn[-1]]],
    }
    return dataclasses.replace(own, sentences=sentences, splits=splits)


def docs(sentences):
    return {s.row.doc_id for s in sentences}


def test_nothing_that_is_held_out_is_learnt_from(grouped):
    from communique.train import repeat

    config = TrainConfig(seed=3)
    test = docs(grouped.split("test"))
    learn = docs(grouped.split("train")) | docs(grouped.split("dev"))
    folds = repeat.folds(grouped, config, 2)
    assert [p.held_out for p in folds] == [f"fold {n}, seed {s}" for n in (0, 1) for s in (3, 4)]
    assert docs(folds[0].held) | docs(folds[2].held) == learn
    issuers = repeat.issuers(grouped, config)
    assert [(p.name, p.held_out) for p in issuers] == [
        ("leave-issuer-out", "Belmar"),
        ("leave-issuer-out", "Torvia"),
    ]
    (at_once,) = repeat.issuers_at_once(grouped, config)
    assert (at_once.name, at_once.held_out) == ("leave-issuer-out", "2 issuers at once")
    assert docs(at_once.held) == docs(issuers[0].held) | docs(issuers[1].held)
    assert docs(at_once.train) == docs(issuers[0].train) & docs(issuers[1].train)
    (years,) = repeat.latest_years(grouped, config)
    assert years.name == "latest-years" and years.held_out == "2024"
    assert {s.doc.date[:4] for s in years.held} == {"2024"}
    assert max(s.doc.date[:4] for s in years.train) == "2023"
    first = grouped.splits["near_duplicates"][0][0]  # an old text whose near-duplicate is held out
    assert first in learn and first not in docs(years.train)
    for part in [*folds, *issuers, at_once, years]:
        assert not docs(part.train) & docs(part.held)
        assert not (docs(part.train) | docs(part.held)) & test
        assert not part.choose
    assert all(p.choose for p in repeat.seeds(grouped, config, 2))


def test_summary_by_hand():
    from communique.train.repeat_scores import TOGETHER, summarise, table

    scores = [("random", 0.7), ("random", 0.8), ("random", 0.9), ("random", None), ("latest-years", 0.6)]
    results = [
        {"name": n, "held_out": f"run {i}", "macro_f1": f, "low": f, "high": f, "n": 9, "train_rows": 7}
        for i, (n, f) in enumerate(scores)
    ]
    results.append({**results[0], "held_out": TOGETHER, "macro_f1": 0.75, "low": 0.5, "high": 0.9, "n": 36})
    found = summarise(results)
    assert found["random"]["mean"] == pytest.approx(0.8) and found["random"]["sd"] == pytest.approx(0.1)
    assert (found["random"]["runs"], found["random"]["estimable"]) == (4, 3)
    assert found["random"]["pooled"] == {"macro_f1": 0.75, "low": 0.5, "high": 0.9, "n": 36}
    assert found["latest-years"] == {
        "runs": 1, "estimable": 1, "mean": 0.6, "sd": None, "low": 0.6, "high": 0.6, "pooled": None
    }  # fmt: skip
    lines = table(results, found).split("\n")
    assert lines[4].startswith("run 3") and "not estimable" in lines[4]
    assert "mean 0.800, sd 0.100 over 3 of 4 runs" in lines[-2] and "all together 0.750" in lines[-2]
    nothing = summarise([results[3]])["random"]
    assert nothing["mean"] is nothing["sd"] is nothing["low"] is None and nothing["estimable"] == 0
    assert "mean not estimable over 0 of 1 runs" in table([results[3]], {"random": nothing})


def perfect(own, name, labels, seed=0, right=True):
    """A run that held out a document with these labels, and took all of them rightly or wrongly."""
    from communique.model.labels import LABELS, label_index
    from communique.train.repeat_scores import Held

    base = own.sentences[0]
    sentences = [
        dataclasses.replace(
            base, row=dataclasses.replace(base.row, doc_id=name, sent_id=i, start=i, end=i + 1, label=label)
        )
        for i, label in enumerate(labels)
    ]
    truth = np.array([label_index(label) for label in labels])
    p = np.full((len(labels), len(LABELS)), 0.05)
    p[np.arange(len(labels)), truth if right else (truth + 1) % len(LABELS)] = 0.8
    return Held("leave-issuer-out", f"{name}, seed {seed}", name, sentences, p)


def test_a_perfect_model_has_no_score_of_less_than_one(own):
    """A stance that an issuer never takes counts for nothing, alone and all together."""
    from communique.train.repeat_scores import entry_of, prediction_rows, summarise, together

    four = ["position", "demand", "concession", "agreement"]
    every = [perfect(own, "A", [*four, "none"]), perfect(own, "B", ["position", "demand", "agreement"])]
    results = [entry_of(held, 10, 1.0) for held in every]
    assert [e["macro_f1"] for e in results] == [1.0, None]
    assert results[1]["low"] is results[1]["high"] is None
    (pooled,) = together(every, results)
    assert set(pooled) == FORMAT and pooled["held_out"] == "all together" and pooled["macro_f1"] == 1.0
    assert pooled["n"] == 8 and pooled["train_rows"] == 10 and pooled["seconds"] == 2.0
    summary = summarise([*results, pooled])["leave-issuer-out"]
    assert summary["mean"] == 1.0 and summary["estimable"] == 1 and summary["pooled"]["macro_f1"] == 1.0
    wrong = [every[0], perfect(own, "B", ["demand"] * 3, right=False)]
    (pooled,) = together(wrong, [entry_of(held, 10, 1.0) for held in wrong])
    # Three demands are taken for concessions: F1 of demand 2·1/(4+1), of concession 2·1/(1+4).
    assert pooled["macro_f1"] == pytest.approx((1 + 0.4 + 0.4 + 1) / 4)
    again = [every[0], perfect(own, "A", [*four, "none"], seed=1, right=False)]
    assert together(again, [entry_of(held, 10, 1.0) for held in again]) == []  # the same was held out
    rows = list(prediction_rows(again))
    assert len(rows) == 5 and {row["fold"] for row in rows} == {"A"}
    assert rows[0]["p_position"] == rows[0]["p_demand"] == pytest.approx((0.8 + 0.05) / 2)


def test_a_teacher_who_knows_what_is_held_out_is_refused(grouped, tmp_path):
    from communique.train import repeat

    taught = TrainConfig(soft_labels=str(tmp_path / "soft.jsonl"))
    with pytest.raises(InputError, match="the teacher learnt the labels that are held out"):
        repeat.repeat(taught, grouped, repeat.folds(grouped, taught), tmp_path / "out")


@pytest.mark.slow
def test_folds_are_scored_and_resumed(quick, grouped, tmp_path):
    from communique.eval.label_issues import require_folds
    from communique.eval.metrics import evaluate
    from communique.eval.table import read_table
    from communique.train import repeat
    from communique.train.repeat_scores import table

    parts = repeat.folds(grouped, quick)
    summary = repeat.repeat(quick, grouped, parts, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [set(entry) for entry in results] == [FORMAT] * 3
    assert [e["n"] for e in results] == [
        len(parts[0].held),
        len(parts[1].held),
        sum(len(p.held) for p in parts),
    ]
    assert all(e["low"] <= e["macro_f1"] <= e["high"] for e in results)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["random"]["mean"] == pytest.approx(np.mean([e["macro_f1"] for e in results[:2]]))
    assert summary["random"]["pooled"]["macro_f1"] == results[2]["macro_f1"]
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [r["fold"] for r in rows] == ["fold 0"] * results[0]["n"] + ["fold 1"] * results[1]["n"]
    assert [r["text"] for r in rows] == [s.text for p in parts for s in p.held]
    require_folds(tmp_path / "predictions.jsonl")
    read = read_table(tmp_path / "predictions.jsonl")
    f1 = evaluate([r.gold for r in read.rows], read.probabilities, read.documents, threshold=0.0).macro_f1
    # Six digits are written: a sentence between two labels by less than that may fall to the other.
    assert f1.value == pytest.approx(results[2]["macro_f1"], abs=2e-3)
    shown = table(results, summary)
    assert "fold 1" in shown and f"mean {summary['random']['mean']:.3f}, sd" in shown
    (tmp_path / "02" / "result.json").unlink()
    began = (tmp_path / "01" / "model.safetensors").stat().st_mtime_ns
    assert repeat.repeat(quick, grouped, parts, tmp_path, resume=True) == summary
    assert (tmp_path / "01" / "model.safetensors").stat().st_mtime_ns == began
    # In the repository the texts are left out, and the earlier file of an earlier run goes.
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    (tmp_path / "predictions.jsonl").unlink()
    said = []
    assert repeat.repeat(quick, grouped, parts, tmp_path, resume=True, say=said.append) == summary
    assert not (tmp_path / "predictions.jsonl").exists() and "lies in the repository" in said[0]


def test_an_earlier_runs_results_are_not_resumed(quick, grouped, tmp_path, monkeypatch):
    from communique.train import repeat

    def stopped(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "02").mkdir()
    (tmp_path / "02" / "result.json").write_text('{"train_rows": 1, "seconds": 1.0}')
    monkeypatch.setattr(repeat, "two_stages", stopped)
    with pytest.raises(KeyboardInterrupt):
        repeat.repeat(quick, grouped, repeat.folds(grouped, quick), tmp_path)
    assert not (tmp_path / "02" / "result.json").exists()


@pytest.mark.slow
def test_search_keeps_every_trial_and_the_best_config(quick, own, tmp_path):
    optuna = pytest.importorskip("optuna")
    from communique.train.search import search

    fixed = frozenset({"loss", "batch_tokens"})
    quick = dataclasses.replace(quick, epochs=0.3)
    best = search(quick, own, tmp_path, trials=2, fixed=fixed)
    search(quick, own, tmp_path, trials=1, fixed=fixed)  # goes on
    trials = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().strip().split("\n")]
    assert [t["trial"] for t in trials] == [0, 1, 2]
    assert all(t["state"] == "complete" and 0 <= t["macro_f1"] <= 1 for t in trials)
    assert all("learning_rate" in t["settings"] and not fixed & set(t["settings"]) for t in trials)
    assert len({t["settings"]["learning_rate"] for t in trials}) == 3
    top = max(trials, key=lambda t: t["macro_f1"])
    saved = TrainConfig.load(tmp_path / "best.json")
    assert saved.learning_rate == top["settings"]["learning_rate"] and saved.encoder == best.encoder
    study = optuna.load_study(study_name="communique", storage=f"sqlite:///{tmp_path / 'trials.sqlite'}")
    assert len(study.trials) == 3


TWO = """
import hashlib, json, pickle, sys
from pathlib import Path

folder = Path(sys.argv[1])
out = folder / "run"
opened = set()

def watch(event, args):
    if event == "open" and str(args[0]).startswith(str(out)) and (args[2] or 0) & 3:
        opened.add(Path(str(args[0])).name)

sys.addaudithook(watch)

from communique.train import trainer
from communique.train.config import TrainConfig
from communique.train.fit import processes
from communique.train.recipe import run

weights = []

class Watched(trainer.StanceTrainer):
    def train(self, **given):
        done = super().train(**given)
        digest = hashlib.sha256()
        for value in self.model.state_dict().values():
            digest.update(value.numpy().tobytes())
        weights.append([digest.hexdigest(), self.state.global_step])
        return done

import communique.train.fit as fitting
fitting.StanceTrainer = Watched
annotations = pickle.loads((folder / "annotations.pickle").read_bytes())
artifact = run(TrainConfig.load(folder / "config.json"), annotations, out, name="two")
rank = processes().process_index
found = {"version": artifact.version, "weights": weights, "wrote": sorted(opened)}
(folder / f"{rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_train_one_model_and_one_of_them_writes(quick, own, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    (tmp_path / "annotations.pickle").write_bytes(pickle.dumps(own))
    config = dataclasses.replace(quick, batch_tokens=1024)
    config.save(tmp_path / "config.json")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, str(tmp_path / "two.py"), str(tmp_path)],
        capture_output=True, text=True, env=env, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert zero["weights"] == one["weights"] and zero["version"] == one["version"]
    assert {"train.json", "metrics.json"} <= set(zero["wrote"])
    assert set(one["wrote"]) <= {"rng_state_1.pth"}  # each process keeps its own random state
    begun = json.loads((tmp_path / "run" / "checkpoints" / "begun.json").read_text())
    assert begun["processes"] == 2


COMMAND = """
import pickle
from pathlib import Path

import communique.train.corpus as corpus
from communique.cli import main

annotations = pickle.loads(Path(__file__).with_name("annotations.pickle").read_bytes())
corpus.load_annotations = lambda *_: annotations
main()
"""


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(quick, own, tmp_path):
    """The command itself, on annotations that are handed to it."""
    (tmp_path / "annotations.pickle").write_bytes(pickle.dumps(own))
    quick.save(tmp_path / "config.json")
    (tmp_path / "command.py").write_text(COMMAND)
    command = [sys.executable, str(tmp_path / "command.py"), "train", "--epochs", "200", "--eval-steps", "2"]
    command += ["--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "run")]
    command += ["--shared", str(tmp_path)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    last = err.strip().split("\n")[-1]
    assert last.startswith("communique: interrupted after step ")
    assert last.endswith("which is saved: the same command with --resume goes on from there")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--hold-out", "kinds"], "--hold-out takes issuers or issuers-at-once or years, not 'kinds'"),
        (["--folds", "--hold-out", "years"], "--folds and --hold-out: give one of the two"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    from typer.testing import CliRunner

    from communique.cli import app

    done = CliRunner().invoke(app, ["train", *flags])
    assert isinstance(done.exception, InputError) and str(done.exception) == message


@pytest.mark.parametrize("command", [["search"], ["soup", "a", "b"], ["soft-labels", "a"]])
@pytest.mark.parametrize(
    "flags", [["--seeds", "2"], ["--folds"], ["--hold-out", "years"], ["--resume"], ["--name", "x"]]
)
def test_flags_that_a_command_does_not_read_are_refused(command, flags):
    from typer.testing import CliRunner

    from communique.cli import app

    done = CliRunner().invoke(app, ["train", *flags, *command])
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"{flags[0]} before {command[0]} would do nothing: leave it out"
