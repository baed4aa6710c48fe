"""A run that was stopped and gone on with is the run that was not stopped; other runs are refused."""

import dataclasses
import json
import signal
import socket

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers warn of one another's plans

from transformers import TrainerCallback  # noqa: E402

from communique.model.errors import InputError  # noqa: E402
from communique.train.batches import Collator, TokenBatches, TrainRow  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402


@pytest.fixture(scope="module")
def short(tiny_encoder):
    """Three epochs of ten-odd steps, with dropout, so that random states matter."""
    return TrainConfig(
        encoder=str(tiny_encoder),
        epochs=3,
        learning_rate=1e-3,
        dropout=0.1,
        batch_tokens=1024,
        max_tokens=32,
        before_tokens=0,
        precision="fp32",
        threads=1,
        eval_steps=8,
    )


@pytest.fixture(scope="module")
def rows(own):
    from communique.train.recipe import labelled_rows

    return labelled_rows(own.split("train"))[:400], labelled_rows(own.split("dev"))[:40]


class InterruptAt(TrainerCallback):
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step + 1 == self.step:
            signal.raise_signal(signal.SIGINT)


class Losses(TrainerCallback):
    """Keeps the epoch's number at each step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, **_):
        self.seen.append(round(state.epoch, 6))


@pytest.fixture(scope="module")
def straight(short, rows, tmp_path_factory):
    from communique.train.fit import fit

    out, steps = tmp_path_factory.mktemp("straight"), Losses()
    metrics = fit(short, *rows, out, callbacks=[steps])
    return out, metrics, len(steps.seen)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["middle of an epoch", "end of an epoch", "at a look at dev"])
def test_interrupted_and_resumed_equals_straight_bit_for_bit(where, short, rows, straight, tmp_path):
    from communique.train.fit import fit
    from communique.train.resume import Interrupted

    out, metrics, steps = straight
    epoch = steps // 3
    assert epoch > 6
    at = {"middle of an epoch": epoch + 3, "end of an epoch": epoch, "at a look at dev": 16}[where]
    with pytest.raises(Interrupted, match=rf"after step {at} of {steps}, .*--resume"):
        fit(short, *rows, tmp_path, callbacks=[InterruptAt(at)])
    assert not (tmp_path / "metrics.json").exists()
    rest = Losses()
    resumed = fit(short, *rows, tmp_path, resume=True, callbacks=[rest])
    assert len(rest.seen) == steps - at
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert resumed["eval_macro_f1"] == metrics["eval_macro_f1"]
    assert resumed["eval_loss"] == metrics["eval_loss"]
    assert fit(short, *rows, tmp_path, resume=True) == resumed  # ended: left as it is


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 9])
def test_half_frozen_and_rounded_from_the_middle_on_it_resumes_bit_for_bit(
    at, short, rows, wide_encoder, tmp_path
):
    import torch
    from safetensors.torch import load_file

    from communique.train.fit import fit
    from communique.train.grid import Grid, OnGrid
    from communique.train.resume import Interrupted

    config = dataclasses.replace(
        short, encoder=str(wide_encoder), epochs=1, frozen_layers=1, weight_bits=4, grid_from=0.5, keep="last"
    )
    one, two, steps = tmp_path / "straight", tmp_path / "resumed", Losses()
    fit(config, *rows, one, callbacks=[steps])
    assert len(steps.seen) > 10
    with pytest.raises(Interrupted):
        fit(config, *rows, two, callbacks=[InterruptAt(at)])
    fit(config, *rows, two, resume=True)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    before, after = load_file(wide_encoder / "model.safetensors"), load_file(one / "model.safetensors")
    for layer, frozen in ((0, True), (1, False)):
        name = f"encoder.layer.{layer}.attention.self.query"
        weight = after[f"bert.{name}.weight"]
        assert torch.equal(OnGrid(Grid())(weight), weight)
        assert torch.equal(before[f"{name}.bias"], after[f"bert.{name}.bias"]) is frozen


@pytest.mark.slow
def test_resuming_another_run_says_what_differs(short, rows, straight):
    from communique.train.fit import fit

    out, *_ = straight
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="begun otherwise .seed 1 -> 2; the training rows"):
        fit(dataclasses.replace(short, seed=2), rows[0][1:], rows[1], out, resume=True)
    with pytest.raises(InputError, match=r"begun otherwise .the dev rows\)"):
        fit(short, rows[0], rows[1][1:], out, resume=True)
    with pytest.raises(InputError, match=r"begun otherwise .the rows of the first stage\)"):
        fit(short, *rows, out, resume=True, first=rows[1])
    assert (out / "model.safetensors").read_bytes() == before


def test_begun_anew_nothing_of_an_earlier_run_is_left_to_resume(tmp_path, monkeypatch):
    """Stopped in its first stage, a new run would go on with the second stage of the old one."""
    from communique.train import fit as module
    from communique.train.resume import BEGUN, CHECKPOINTS, is_begun

    asked = []

    def stopped(config, rows, dev, out, **given):
        asked.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit", stopped)
    rows = [TrainRow("a", label="none")]

    def old():
        for folder in (tmp_path, tmp_path / "first"):
            (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            (folder / CHECKPOINTS / BEGUN).write_text("{}")
            (folder / "metrics.json").write_text("{}")

    old()
    with pytest.raises(KeyboardInterrupt):
        module.two_stages(TrainConfig(), rows, rows, rows, tmp_path, resume=True)
    assert is_begun(tmp_path) and is_begun(tmp_path / "first") and (tmp_path / "metrics.json").is_file()
    with pytest.raises(KeyboardInterrupt):
        module.two_stages(TrainConfig(), rows, rows, rows, tmp_path)
    assert not is_begun(tmp_path) and not is_begun(tmp_path / "first")
    assert not (tmp_path / "metrics.json").exists()
    assert [given["resume"] for given in asked] == [True, False]


def test_the_second_stage_knows_the_rows_of_the_first(tmp_path, monkeypatch):
    from communique.train import fit as module

    seen = {}
    monkeypatch.setattr(module, "fit", lambda c, rows, dev, out, **given: seen.update({out: given}))
    rows, public = [TrainRow("a", label="none")], [TrainRow("b", label="none")]
    module.two_stages(TrainConfig(), rows, public, rows, tmp_path)
    assert seen[tmp_path]["first"] == public and "first" not in seen[tmp_path / "first"]


@pytest.mark.parametrize("loss", ["plain", "weighted"])
def test_a_rows_weight_counts_whatever_the_others_weigh(loss):
    """Rows that all weigh half make half the loss; rows that fill a batch up are not counted."""
    from types import SimpleNamespace

    import torch

    from communique.train.trainer import StanceTrainer

    logits = torch.tensor([[2.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 0, 0, 3.0]])
    targets = torch.eye(5)[[0, 2, 4]]
    by_class = torch.tensor([1.5, 1, 0.5, 1, 1]) if loss == "weighted" else None
    trainer = SimpleNamespace(_config=TrainConfig(loss=loss), _class_weights=by_class)

    def loss_of(weights):
        n = len(weights)
        inputs = {"labels": targets[:n], "weight": torch.tensor(weights)}
        model = lambda: SimpleNamespace(logits=logits[:n])  # noqa: E731
        return StanceTrainer.compute_loss(trainer, model, inputs).item()

    terms = -torch.log_softmax(logits, dim=1)[range(3), [0, 2, 4]]
    if by_class is not None:
        terms = terms * by_class[[0, 2, 4]]
    assert loss_of([1.0, 1.0, 1.0]) == pytest.approx(terms.mean().item())
    assert loss_of([0.5, 0.5, 0.5]) == pytest.approx(terms.mean().item() / 2)
    assert loss_of([1.0, 0.5, 1.0]) == pytest.approx((terms * torch.tensor([1, 0.5, 1])).mean().item())
    assert loss_of([1.0, 1.0, 0.0]) == pytest.approx(terms[:2].mean().item())


@pytest.mark.slow
def test_training_stops_when_dev_no_longer_gains(short, rows, tmp_path):
    """Rates of nothing teach nothing: after the first look and two without gain it is over."""
    from communique.train.fit import fit

    still = dataclasses.replace(
        short, learning_rate=1e-8, head_learning_rate=1e-8, eval_steps=2, patience=2, epochs=5
    )
    steps = Losses()
    fit(still, *rows, tmp_path, callbacks=[steps])
    assert len(steps.seen) == 6


def test_every_process_gets_its_share_of_each_epoch():
    lengths = np.random.default_rng(0).integers(4, 40, size=203).tolist()
    alone = [TokenBatches(lengths, 256, 1)]
    shared = [TokenBatches(lengths, 256, 1, process=i, processes=2) for i in range(2)]
    for epoch in range(2):
        for batches in (alone, shared):
            for b in batches:
                b.set_epoch(epoch)
            parts = [list(b) for b in batches]
            assert len({len(part) for part in parts}) == 1  # as many steps each, or they wait for ever
            drawn = [i for part in parts for batch in part for i in batch]
            assert set(drawn) == set(range(203))
            repeats = len(drawn) - 203
            assert repeats <= max(len(batch) for part in parts for batch in part)
    first = list(alone[0])
    alone[0].set_epoch(0)
    again = list(alone[0])
    assert again != first and sorted(again) == sorted(first)
    pairs = zip(*(list(b) for b in shared), strict=True)
    apart = [abs(max(lengths[i] for i in a) - max(lengths[i] for i in b)) for a, b in pairs]
    assert np.median(apart) <= 6  # of like length, so that no process waits for another


def test_more_processes_than_batches():
    parts = [list(TokenBatches([8, 8], 8, 1, process=i, processes=5)) for i in range(5)]
    assert [len(part) for part in parts] == [1] * 5
    assert {part[0][0] for part in parts} == {0, 1}


def test_a_compiled_model_meets_one_shape_a_bucket():
    lengths = np.random.default_rng(0).integers(4, 100, size=500).tolist()
    target, weight = np.eye(5, dtype=np.float32)[0], np.float32(0.5)
    collator = Collator(0, token_types=False, bucket=32, budget=1024)
    plan = TokenBatches(lengths, 1024, 1, bucket=32)
    shapes, total = set(), 0.0
    for batch in plan:
        rows = [
            {"ids": [7] * lengths[i], "first_context": 0, "target": target, "weight": weight} for i in batch
        ]
        tensors = collator(rows)
        shapes.add(tuple(tensors["input_ids"].shape))
        total += float(tensors["weight"].sum())
        assert tensors["attention_mask"].sum(dim=1).min() > 0  # no empty row, whose attention is NaN
    assert shapes == {(32, 32), (16, 64), (10, 96), (8, 128)}
    assert total == 250  # rows that fill a batch up weigh nothing


@pytest.mark.parametrize("tracker", ["trackio", "mlflow"])
def test_a_tracker_that_is_absent_is_named_with_its_remedy(tracker, monkeypatch, tmp_path):
    from communique.train import fit as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"tracker {tracker} is not installed: pip install {tracker}"):
        module.fit(TrainConfig(tracker=tracker), [TrainRow("a", label="none")], [], tmp_path)


def test_no_dev_is_one_line(tmp_path):
    from communique.train.fit import fit

    with pytest.raises(InputError, match="no sentence of dev that has its text: set COMMUNIQUE_SHARED"):
        fit(TrainConfig(), [TrainRow("a", label="none")], [], tmp_path)


@pytest.mark.slow
def test_tensorboard_by_name(short, rows, tmp_path):
    pytest.importorskip("tensorboard")
    from communique.train.fit import fit

    fit(dataclasses.replace(short, epochs=0.3, tracker="tensorboard"), *rows, tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_energy_is_measured_without_the_network(monkeypatch):
    pytest.importorskip("codecarbon")
    from communique.train.manifest import Meter

    def refuse(*_):
        raise AssertionError("a network call")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    took = Meter.start().stop()
    assert took["energy_kwh"] >= 0 and took["seconds"] >= 0


def test_the_manifest_says_what_a_run_was_made_of(tmp_path, root):
    from communique.model.artifact import sha256_file
    from communique.train.manifest import Meter, write_run_manifest

    (tmp_path / "model.safetensors").write_bytes(b"w")
    public = tmp_path / "public"
    (public / "set").mkdir(parents=True)
    (public / "set" / "rows.csv").write_text("a")
    rows = [TrainRow("a", label="none", source="own"), TrainRow("b", label="none", source="real")]
    folder = root / "data" / "annotations"
    write_run_manifest(tmp_path, TrainConfig(), rows, Meter(0.0), annotations=folder, public=public)
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["rows"] == {"all": 2, "own": 1, "real": 1}
    assert found["data_sha256"]["annotations/own.jsonl"] == sha256_file(folder / "own.jsonl")
    assert found["data_sha256"]["public/set/rows.csv"] == sha256_file(public / "set" / "rows.csv")
    assert found["versions"]["torch"] and found["hardware"]["cores"] >= 1 and found["seconds"] > 0
    assert found["energy_kwh"] is None
    if (root / ".git").exists():
        assert len(found["commit"]["sha"]) == 40
