"""The mean of several trainings: greedy on dev, by hand for one weight, one line for what cannot be mixed."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")

from safetensors.torch import load_file, save_file  # noqa: E402

from communique.model.errors import InputError  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402
from communique.train.recipe import labelled_rows, ship, training_rows  # noqa: E402
from communique.train.soup import soup  # noqa: E402


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
def test_a_training_mixed_with_itself_is_itself(runs, tmp_path):
    (one, _), config, dev = runs
    checkpoint = sorted((one / "checkpoints").glob("checkpoint-*"))[-1]
    tried = soup([one, one, checkpoint], config, dev, tmp_path / "same")
    assert tried[0].macro_f1 == tried[1].macro_f1
    same, mixed = load_file(one / "model.safetensors"), load_file(tmp_path / "same" / "model.safetensors")
    if tried[2].macro_f1 < tried[0].macro_f1:
        assert all(np.allclose(same[name].numpy(), mixed[name].numpy()) for name in same)


@pytest.mark.slow
def test_what_cannot_be_mixed(runs, tmp_path):
    (one, two), config, dev = runs
    with pytest.raises(InputError, match="two trainings"):
        soup([one], config, dev, tmp_path / "out")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        soup([one, tmp_path], config, dev, tmp_path / "out")
    weights = load_file(two / "model.safetensors")
    name = next(iter(weights))
    other = tmp_path / "other"
    other.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (other / file).write_bytes((two / file).read_bytes())
    save_file({**weights, name: weights[name][:1].clone()}, other / "model.safetensors")
    with pytest.raises(InputError, match="one encoder"):
        soup([one, other], config, dev, tmp_path / "out")
