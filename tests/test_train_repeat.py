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
    years = {d: f"{2021 + (i * 10) // (3 * len(learn) + 1)}-05-01" for i, d in enumerate(learn)}
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
    (years,) = repeat.latest_years(grouped, config)
    assert years.name == "latest-years" and years.held_out == "2024"
    assert {s.doc.date[:4] for s in years.held} == {"2024"}
    assert max(s.doc.date[:4] for s in years.train) == "2023"
    first = grouped.splits["near_duplicates"][0][0]  # an old text whose near-duplicate is held out
    assert first in learn and first not in docs(years.train)
    for part in [*folds, *issuers, years]:
        assert not docs(part.train) & docs(part.held)
        assert not (docs(part.train) | docs(part.held)) & test
        assert not part.choose
    assert all(p.choose for p in repeat.seeds(grouped, config, 2))


def test_summary_by_hand():
    from communique.train.repeat import summarise

    scores = [("random", 0.7), ("random", 0.8), ("random", 0.9), ("latest-years", 0.6)]
    found = summarise([{"name": n, "macro_f1": f} for n, f in scores])
    assert found["random"]["mean"] == pytest.approx(0.8) and found["random"]["sd"] == pytest.approx(0.1)
    assert found["latest-years"] == {"runs": 1, "mean": 0.6, "sd": None, "low": 0.6, "high": 0.6}


@pytest.mark.slow
def test_folds_are_scored_and_resumed(quick, grouped, tmp_path):
    from communique.train import repeat

    parts = repeat.folds(grouped, quick)
    summary = repeat.repeat(quick, grouped, parts, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [set(entry) for entry in results] == [FORMAT] * 2
    assert [e["n"] for e in results] == [len(p.held) for p in parts]
    assert all(e["low"] <= e["macro_f1"] <= e["high"] for e in results)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["random"]["mean"] == pytest.approx(np.mean([e["macro_f1"] for e in results]))
    shown = repeat.table(results, summary)
    assert "fold 1" in shown and f"mean {summary['random']['mean']:.3f}, sd" in shown
    (tmp_path / "02" / "result.json").unlink()
    began = (tmp_path / "01" / "model.safetensors").stat().st_mtime_ns
    assert repeat.repeat(quick, grouped, parts, tmp_path, resume=True) == summary
    assert (tmp_path / "01" / "model.safetensors").stat().st_mtime_ns == began


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
        (["--hold-out", "kinds"], "--hold-out takes issuers or years, not 'kinds'"),
        (["--folds", "--hold-out", "years"], "--folds and --hold-out: give one of the two"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    from typer.testing import CliRunner

    from communique.cli import app

    done = CliRunner().invoke(app, ["train", *flags])
    assert isinstance(done.exception, InputError) and str(done.exception) == message
