"""The mean of several trainings: greedy on dev, by hand for one weight, one line for what cannot be mixed."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")

from safetensors.torch import load_file, save_file  # noqa: E402

from communique.model.artifact import sha256_file  # noqa: E402
from communique.model.errors import InputError  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402
from communique.train.recipe import labelled_rows, ship, training_rows  # noqa: E402
from communique.train.soup import settings_of, soup  # noqa: E402


@pytest.fixture(scope="module")
def runs(tiny_encoder, own, tmp_path_factory):
    """Two short trainings of one encoder, and the sentences of dev."""
    from communique.train.fit import fit

    folder = tmp_path_factory.mktemp("runs")
    config = TrainConfig(
        encoder=str(tiny_encoder), epochs=2, learning_rate=2e-3, before_tokens=0, max_tokens=48, threads=1
    )
    rows, dev = training_rows(own, config)[:400], labelled_rows(own.split("dev"))[:200]
    for seed in (1, 2):
        one = TrainConfig(**{**vars(config), "seed": seed})
        fit(one, rows, dev, folder / str(seed))
    return [folder / "1", folder / "2"], config, dev


@pytest.mark.slow
def test_the_mean_is_never_worse_on_dev_than_the_best_and_ships(runs, own, tmp_path):
    folders, config, dev = runs
    told = []
    tried = soup(folders, config, dev, tmp_path / "soup", told.append)
    assert tried == told and [t.parts for t in tried[:2]] == [(str(f),) for f in folders]
    found = json.loads((tmp_path / "soup" / "metrics.json").read_text())
    assert found["eval_macro_f1"] == max(t.macro_f1 for t in tried)
    kept = found["soup"]
    parts = [load_file(f"{folder}/model.safetensors") for folder in kept]
    mixed = load_file(tmp_path / "soup" / "model.safetensors")
    for name, tensor in mixed.items():
        by_hand = np.mean([part[name].numpy() for part in parts], axis=0)
        assert np.allclose(tensor.numpy(), by_hand, atol=1e-6)
    shipped = ship(config, own, tmp_path / "soup", name="soup", rows=training_rows(own, config))
    assert shipped.version.startswith("soup-") and len(shipped.config.trained_on) > 10


@pytest.mark.slow
def test_a_mean_that_is_worse_is_left_out(runs, tmp_path):
    """One training, its checkpoint, and one whose last layer says the opposite."""
    (one, _), config, dev = runs
    checkpoint = sorted((one / "checkpoints").glob("checkpoint-*"))[-1]
    assert settings_of([checkpoint, one]) == settings_of([one])
    weights = load_file(one / "model.safetensors")
    turned = copied(one, tmp_path / "turned")
    head = {name: -3 * tensor for name, tensor in weights.items() if name.startswith("classifier")}
    assert head
    save_file({**weights, **head}, turned / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("{}")  # of an earlier run
    tried = soup([one, one, turned], config, dev, out)
    assert [t.kept for t in tried] == [False, False, False, True, False]
    assert tried[0].macro_f1 == tried[1].macro_f1 == tried[3].macro_f1 > tried[4].macro_f1
    mixed = load_file(out / "model.safetensors")
    assert all(np.allclose(weights[name].numpy(), mixed[name].numpy()) for name in weights)
    found = json.loads((out / "metrics.json").read_text())
    assert found == {"eval_macro_f1": tried[0].macro_f1, "soup": [str(one)] * 2}
    assert not (out / "manifest.json").exists()


def copied(run, folder):
    """A folder with what a training's has, its weights aside."""
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "train.json"):
        (folder / file).write_bytes((run / file).read_bytes())
    return folder


def test_trainings_that_read_otherwise_are_not_mixed(tmp_path):
    base = TrainConfig(encoder="here/small", max_tokens=48, before_tokens=8)
    for name, config in (
        ("one", base),
        ("same", dataclasses.replace(base, encoder="there/small", seed=4, epochs=9.0)),
        ("long", dataclasses.replace(base, max_tokens=64, after_tokens=4)),
        ("large", dataclasses.replace(base, encoder="here/large")),
    ):
        (tmp_path / name).mkdir()
        config.save(tmp_path / name / "train.json")
    one = tmp_path / "one"
    assert settings_of([one, tmp_path / "same"]) == base
    with pytest.raises(InputError, match=r"max_tokens 48 and 64, after_tokens 0 and 4"):
        settings_of([one, tmp_path / "long"])
    with pytest.raises(InputError, match="encoder here/small and here/large"):
        settings_of([one, tmp_path / "large"])
    first = tmp_path / "begun" / "first"
    first.mkdir(parents=True)
    base.save(first / "train.json")
    assert settings_of([tmp_path / "begun" / "checkpoints" / "checkpoint-8"]) == base
    with pytest.raises(InputError, match=r"no train\.json"):
        settings_of([tmp_path / "nowhere" / "checkpoints" / "checkpoint-8"])


@pytest.mark.slow
def test_the_command_ships_with_the_runs_settings(runs, own, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from communique.cli import app

    folders, *_ = runs
    monkeypatch.setattr("communique.train.corpus.load_annotations", lambda *_: own)
    command = ["train", "--out", str(tmp_path / "soup"), "--shared", str(tmp_path)]
    more = ["soup", *map(str, folders)]
    done = CliRunner().invoke(app, [*command, "--max-tokens", "99", *more])
    assert isinstance(done.exception, InputError) and "--max-tokens before soup" in str(done.exception)
    done = CliRunner().invoke(app, [*command, *more])
    assert done.exit_code == 0, done.output
    shipped = json.loads((tmp_path / "soup" / "artifact" / "config.json").read_text())
    assert (shipped["max_tokens"], shipped["before_tokens"]) == (48, 0)
    manifest = json.loads((tmp_path / "soup" / "manifest.json").read_text())
    assert manifest["rows"]["all"] > 100
    assert manifest["weights_sha256"] == sha256_file(tmp_path / "soup" / "model.safetensors")


@pytest.mark.slow
def test_what_cannot_be_mixed(runs, tmp_path):
    (one, two), config, dev = runs
    with pytest.raises(InputError, match="two trainings"):
        soup([one], config, dev, tmp_path / "out")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        soup([one, tmp_path], config, dev, tmp_path / "out")
    weights = load_file(two / "model.safetensors")
    name = next(iter(weights))
    other = copied(two, tmp_path / "other")
    save_file({**weights, name: weights[name][:1].clone()}, other / "model.safetensors")
    with pytest.raises(InputError, match="one encoder"):
        soup([one, other], config, dev, tmp_path / "out")
