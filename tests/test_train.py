"""The loop closes: train tiny, export, quantise, calibrate, load, label, with the gate in between."""

import dataclasses
import json
import os

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers warn of one another's plans

from communique.model.classifier import StanceClassifier, decide, softmax  # noqa: E402
from communique.model.errors import InputError  # noqa: E402
from communique.model.labels import LABELS  # noqa: E402
from communique.train.calibrate import fit_temperature, fit_threshold, fit_weights  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402
from communique.train.export import Gate, GateError, quantise_weights  # noqa: E402

WIDE = os.environ | {"COLUMNS": "200"}


@pytest.fixture(scope="session")
def trained(tiny_encoder, own, tmp_path_factory):
    from communique.train.recipe import run

    out = tmp_path_factory.mktemp("run")
    config = TrainConfig(
        encoder=str(tiny_encoder),
        epochs=8,
        learning_rate=2e-3,
        head_learning_rate=2e-3,
        dropout=0.0,
        layer_decay=1.0,
        batch_tokens=1024,
        max_tokens=64,
        before_tokens=0,
        precision="fp32",
        threads=1,
    )
    return run(config, own, out, name="tiny"), out, config


@pytest.mark.slow
def test_the_loop_closes(trained, own):
    artifact, out, _ = trained
    classifier = StanceClassifier(artifact)
    test = own.split("test")
    found = classifier.label_sentences([s.text for s in test])
    right = np.mean([p.label == s.row.label for p, s in zip(found, test, strict=True)])
    majority = np.mean([s.row.label == "none" for s in test])
    assert right > majority + 0.1
    assert artifact.config.metrics["test"]["accuracy"]["value"] == pytest.approx(right)
    card = artifact.path("README.md").read_text(encoding="utf-8")
    assert "None" not in card and "nan" not in card and artifact.config.encoder in card
    made = json.loads((out / "manifest.json").read_text())
    assert made["rows"]["all"] == made["rows"]["real"] > 0 and made["weights_sha256"] and made["seconds"] > 0
    assert {"train.json", "model.safetensors", "metrics.json"} <= {p.name for p in out.iterdir()}


@pytest.mark.slow
def test_the_folder_loads_in_a_pipeline(trained):
    from transformers import pipeline

    _, out, _ = trained
    (found,) = pipeline("text-classification", model=str(out), device="cpu")(["They agreed to meet again."])
    assert found["label"] in list(LABELS)


@pytest.mark.slow
def test_int8_weights_stay_close_to_fp32(trained):
    import onnxruntime

    artifact, out, _ = trained
    ids = np.arange(5, 45, dtype=np.int64).reshape(2, 20)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    fp32, int8 = (
        softmax(onnxruntime.InferenceSession(str(path)).run(None, feed)[0], 1.0)
        for path in (out / "fp32.onnx", artifact.path("model.onnx"))
    )
    assert np.abs(fp32 - int8).max() < 0.05
    assert artifact.path("model.onnx").stat().st_size < 0.4 * (out / "fp32.onnx").stat().st_size


@pytest.mark.slow
def test_the_same_config_gives_the_same_weights(trained, own, tmp_path):
    from communique.train.fit import fit
    from communique.train.recipe import labelled_rows, training_rows

    _, _, config = trained
    short = dataclasses.replace(config, epochs=0.5)
    for name in ("one", "two"):
        fit(short, training_rows(own, short), labelled_rows(own.split("dev")), tmp_path / name)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_gate():
    Gate(f1_loss=0.004, flips=0.009).check()
    for bad in (Gate(f1_loss=0.006, flips=0.0), Gate(f1_loss=0.0, flips=0.011)):
        with pytest.raises(GateError, match="refused") as refused:
            bad.check()
        assert isinstance(refused.value, InputError)  # so that the command says it in one line


def test_quantised_matrix_by_hand(tmp_path):
    """W = [[1, 0], [-2, 4]]: columns scaled by 2/127 and 4/127; nothing moves by more than a step."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = np.zeros((64, 64), dtype=np.float32)
    weight[:2, :2] = [[1, 0], [-2, 4]]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "a.onnx",
    )
    quantise_weights(tmp_path / "a.onnx", tmp_path / "b.onnx")
    x = np.zeros((1, 64), dtype=np.float32)
    x[0, :2] = 1
    (y,) = onnxruntime.InferenceSession(str(tmp_path / "b.onnx")).run(None, {"x": x})
    assert y[0, :2] == pytest.approx([-1, 4], abs=2 / 127)
    stored = {i.name: i.data_type for i in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert stored == {"w_int8": TensorProto.INT8, "w_scale": TensorProto.FLOAT}


def test_temperature_undoes_a_known_sharpening():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 5)).astype(np.float32)
    p = softmax(true, 1.0)
    gold = np.array([rng.choice(5, p=row) for row in p])
    assert fit_temperature(true * 2.5, gold) == pytest.approx(2.5, rel=0.1)


def test_threshold_by_hand():
    """Two unsure positions are really `none`: the lowest threshold that drops them wins."""
    p = np.array([[0.41, 0.1, 0.1, 0.1, 0.29]] * 2 + [np.eye(5)[i] * 0.8 + 0.04 for i in range(5)])
    gold = np.array([4, 4, 0, 1, 2, 3, 4])
    assert fit_threshold(p, gold) == pytest.approx(0.42)


def test_a_rare_stance_is_taken_before_it_is_the_most_probable():
    # One concession among 22, always second to position; of other positions no such doubt.
    sure, doubt = [0.9, 0.025, 0.025, 0.025, 0.025], [0.5, 0.05, 0.3, 0.05, 0.1]
    p = np.array([doubt] + [sure] * 16 + [np.roll(sure, i) for i in (1, 1, 3, 3, 4)])
    gold = np.array([2] + [0] * 16 + [1, 1, 3, 3, 4])
    weights = fit_weights(p, gold)
    assert weights == (1, 1, 2, 1, 1)
    assert decide(p, threshold=0, label_weights=weights) == [LABELS[i] for i in gold]
    assert fit_threshold(p, gold, weights) == 0
    # The same where no stance is rare: nothing is weighed, though it would help.
    assert fit_weights(p[[0, *range(-5, 0)]], gold[[0, *range(-5, 0)]]) == (1,) * 5


@pytest.mark.parametrize(
    "field, value",
    [("epochs", 0), ("learning_rate", -1), ("layer_decay", 2), ("loss", "hinge"), ("precision", "int4")],
)
def test_an_impossible_setting_is_shown(field, value):
    with pytest.raises(InputError, match=f"{field} must .*{value}"):
        TrainConfig(**{field: value})


def test_a_saved_config_comes_back_and_unknown_keys_are_errors(tmp_path):
    config = TrainConfig(seed=9, loss="focal")
    config.save(tmp_path / "train.json")
    assert TrainConfig.load(tmp_path / "train.json") == config
    (tmp_path / "bad.json").write_text('{"seed": 1, "sead": 2}')
    with pytest.raises(InputError, match="unknown settings sead"):
        TrainConfig.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"epochs": "3"}')
    with pytest.raises(InputError, match=r"bad\.json: a setting is of the wrong kind"):
        TrainConfig.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"epochs": 3')
    with pytest.raises(InputError, match=r"bad\.json:1: not JSON"):
        TrainConfig.load(tmp_path / "bad.json")


def test_what_stops_a_training_is_one_line(monkeypatch, tmp_path, capsys):
    from communique import cli
    from communique.train.encoders import fetch_encoder

    monkeypatch.setattr("sys.argv", ["communique", "train", "--config", str(tmp_path / "nope.json")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"communique: {tmp_path / 'nope.json'} does not exist\n"
    with pytest.raises(InputError, match="unknown pinned encoder 'nope'"):
        fetch_encoder("nope")


def test_every_setting_is_a_flag_and_a_bad_one_gets_one_line():
    import subprocess
    import sys

    command = [sys.executable, "-m", "communique.cli", "train"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, env=WIDE, check=True).stdout
    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')}" in shown
    done = subprocess.run([*command, "--epochs", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "communique: epochs must lie in [0.01, 1000], not 0.0\n"


def test_public_rows_repeat_nothing_that_is_held_out(monkeypatch, tmp_path):
    from communique.train import recipe
    from communique.train.public import PublicRow

    def row(n, text, split="train", label="demand"):
        return PublicRow("set", str(n), text, "REQUEST", label, "none", "x", split, "mapped")

    published = [
        row(0, "Belmar urges Torvia to open the old harbour at once"),
        row(1, "Belmar urges Torvia to open the old harbour at once, please"),
        row(2, "the envoys asked for a halt to all fishing in the bay"),
        row(3, "the envoys asked for a halt to all fishing in the bay today", "test"),
        row(4, "both sides must return every prisoner before the winter"),
        row(5, "a call for new talks about the price of salted plums"),
        row(6, "let the inspectors see the mills along the northern canal"),
        row(7, "the miners want the western shaft closed for good now", "test", None),
        row(8, "the miners want the western shaft closed for good", "train"),
    ]
    monkeypatch.setattr(recipe, "read_public", lambda folder, licence=None: published)
    said = []
    ours = ["both sides must return every prisoner before the winter comes"]
    rows = recipe.public_rows(tmp_path, TrainConfig(public_cap=2), ours, said.append)
    kept = {published[n].text for n in (0, 5, 6)}
    assert len(rows) == 2 and {r.text for r in rows} < kept
    assert said == [
        "2 public rows; left out: 1 of published test splits, 2 near-duplicates of these, "
        "1 of held-out sentences, 1 of other rows, 1 over the cap"
    ]
