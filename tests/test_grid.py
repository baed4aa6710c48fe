"""Weights in 4 bits: the grid, the file, the model with a smaller vocabulary."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from communique.archive.torch_engine import TorchEngine  # noqa: E402
from communique.model.engine import Engine  # noqa: E402
from communique.model.errors import InputError  # noqa: E402
from communique.model.tokens import SentenceInput, SentenceTokenizer  # noqa: E402
from communique.train import grid  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402
from communique.train.export import quantise_weights, to_onnx  # noqa: E402
from communique.train.fit import model_config, predict_logits  # noqa: E402
from communique.train.models import build_model, first_encoder, freeze, trained_before  # noqa: E402
from communique.train.shrink import shrink  # noqa: E402

TEXT = "the minister of agreed to lift ban on fish urges release all held sailors and calls for talks"
WORDS = TEXT.split()


def build(folder, family, hidden=128):
    """A one-layer model of this family, random weights, as `communique train` would leave it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = list("abcdefghijklmnopqrstuvwxyz")
    special = ["<s>", "<pad>", "</s>", "<unk>", "[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    names = [*special, *letters, *(f"##{c}" for c in letters), *WORDS]
    vocab = {token: place for place, token in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(vocab),
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=300,
        num_labels=5,
        layer_norm_eps=1e-3,  # far from the default, so that an engine that forgets it shows
        **({"pad_token_id": 1} if family == "MPNet" else {}),
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    for parameter in model.parameters():  # as large as trained ones, so that differences would show
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    TrainConfig(encoder="an-encoder", max_tokens=40, before_tokens=8).save(folder / "train.json")
    return model


def logits_of(folder, sentences):
    from communique.train.batches import TrainRow

    config = TrainConfig.load(folder / "train.json")
    rows = [TrainRow(s.text, s.before) for s in sentences]
    return predict_logits(
        folder, TrainConfig(max_tokens=40, before_tokens=8, precision="fp32", threads=1), rows
    ), config


SENTENCES = [
    SentenceInput("the minister agreed to lift the ban on fish"),
    SentenceInput("urges release of all held sailors", "the minister calls for talks"),
    SentenceInput("talks"),
]


def test_rounding_twice_is_rounding_once_and_stays_near():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(40, 256)).astype(np.float32)
    weight[3] = 0
    rounded = grid.OnGrid(grid.Grid())(torch.from_numpy(weight))
    again = grid.OnGrid(grid.Grid())(rounded)
    assert torch.equal(rounded, again)
    values, scale = grid.four_bits(weight, 1)
    assert values.min() == -8 and values.max() <= 7 and scale.shape == (40, 2)
    back = values * np.repeat(scale.astype(np.float32), grid.GROUP, axis=1)
    assert np.array_equal(back, rounded.numpy())  # the file's arithmetic is the training's
    across, steps = grid.four_bits(np.ascontiguousarray(weight.T), 0)
    assert np.array_equal(across, values.T) and np.array_equal(steps, scale.T)
    # A step is an eighth of a group's largest value; half of one is the most that rounding moves,
    # a whole one where the largest is matched from the other side.
    peak = np.abs(weight.reshape(40, 2, -1)).max(axis=2).repeat(grid.GROUP, axis=1)
    assert (np.abs(back - weight) <= peak / 8 * 1.01).all() and np.abs(
        back - weight
    ).mean() < peak.mean() / 25


def test_gradients_pass_and_settled_weights_are_rounded(tmp_path):
    model = build(tmp_path, "MPNet")
    assert grid.put_on_grid(model).tensors > 6
    layer = model.base_model.encoder.layer[0].attention.attn.q
    loss = layer(torch.ones(1, 128)).sum()
    loss.backward()
    full = layer.parametrizations.weight.original
    assert torch.allclose(full.grad, torch.ones_like(full))
    full = full.detach().clone()
    grid.settle(model)
    assert torch.equal(layer.weight, grid.OnGrid(grid.Grid())(full)) and not torch.equal(layer.weight, full)
    assert not any("parametrizations" in name for name in model.state_dict())


def test_frozen_weights_are_rounded_at_once_nearer_than_by_their_peak(tmp_path):
    model = build(tmp_path, "MPNet")
    layer = model.base_model.encoder.layer[0].attention.attn.q
    above = model.base_model.encoder.layer[0].attention.attn.k
    layer.requires_grad_(False)
    full, kept = layer.weight.detach().clone(), above.weight.detach().clone()
    state = grid.put_on_grid(model)
    state.active = False
    by_peak = grid.OnGrid(grid.Grid())(full)
    assert (layer.weight - full).square().sum() < 0.97 * (by_peak - full).square().sum()
    assert torch.equal(grid.OnGrid(grid.Grid())(layer.weight), layer.weight)  # as the file will have it
    assert torch.equal(above.weight, kept)  # trained ones wait
    grid.settle(model)
    assert torch.equal(above.weight, kept)


@pytest.mark.parametrize(
    ("step", "share", "active"),
    [(0, 0.6, False), (5, 0.6, False), (6, 0.6, True), (10, 0.6, True), (0, 0, True), (10, 1, False)],
)
def test_rounding_begins_after_a_share_of_the_steps(step, share, active):
    at = transformers.TrainerState(global_step=step, max_steps=10)
    begun, going = grid.Grid(), grid.Grid(active=False)
    grid.RoundFrom(begun, share).on_train_begin(None, at, None)
    grid.RoundFrom(going, share).on_step_end(None, at, None)
    assert begun.active is going.active is active


def test_what_was_learnt_from_the_points_of_a_grid_on_outlives_rounding():
    torch.manual_seed(1)
    layer = torch.nn.Linear(768, 64)
    layer.weight.data = grid.OnGrid(grid.Grid())(0.04 * torch.randn(64, 768))
    start = layer.weight.detach().clone()
    state = grid.put_on_grid(torch.nn.Sequential(layer))
    state.active = False
    learnt = 0.0015 * torch.randn(64, 768)  # a tenth of a step
    (weight,) = state.rounded
    weight.data += learnt
    nearest = grid.OnGrid(grid.Grid())(weight.detach()) - start
    state.begin()
    shaken = layer.weight.detach() - start

    def kept(moved):
        return float((moved * learnt).sum() / learnt.square().sum())

    assert kept(nearest) < 0.1 and 0.8 < kept(shaken) < 1.2
    fresh = torch.nn.Sequential(torch.nn.Linear(768, 64))
    assert not grid.put_on_grid(fresh).rounded  # weights from elsewhere need no shaking


@pytest.mark.parametrize("family", ["MPNet", "Bert"])
def test_frozen_layers_and_what_lies_below_get_no_gradient(family, tmp_path):
    model = build(tmp_path, family)
    head = {name for name, _ in model.named_parameters() if name.startswith("classifier")}
    freeze(model, 1)
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert head <= free and all("layer.0" not in name and "embeddings" not in name for name in free)
    model.train()
    ids = torch.arange(8, 24).reshape(2, 8)
    model(input_ids=ids).logits.sum().backward()
    assert model.base_model.embeddings.word_embeddings.weight.grad is None
    assert all(p.grad is not None for name, p in model.named_parameters() if name in head)
    with pytest.raises(InputError, match="encoder has 1 layers"):
        freeze(model, 2)


@pytest.mark.parametrize("family", ["MPNet", "Bert"])
def test_the_file_in_four_bits_says_what_torch_says(family, tmp_path):
    model = build(tmp_path, family)
    grid.put_on_grid(model)
    grid.settle(model)
    model.save_pretrained(tmp_path)
    want, _ = logits_of(tmp_path, SENTENCES)
    to_onnx(tmp_path, tmp_path / "fp32.onnx")
    quantise_weights(tmp_path / "fp32.onnx", tmp_path / "model.onnx", bits=4)
    assert (tmp_path / "model.onnx").stat().st_size < (tmp_path / "fp32.onnx").stat().st_size / 4
    feed = model_config(TrainConfig(max_tokens=40, before_tokens=8), "x", model.config.model_type)
    tokenizer = SentenceTokenizer.from_file(tmp_path / "tokenizer.json", feed)
    engines = [Engine, TorchEngine]
    try:
        from communique.model.openvino_engine import OpenVinoEngine, OpenVinoInt8Engine, openvino

        openvino()
        engines += [OpenVinoEngine, OpenVinoInt8Engine]
    except ModuleNotFoundError:
        pass
    for kind in engines:
        engine = kind(
            tmp_path / "model.onnx", pad_id=tokenizer.pad_id, token_types=feed.token_types, threads=1
        )
        near = 0.3 if kind.name == "openvino-int8" else 2e-4
        assert np.allclose(engine.logits(tokenizer.encode(SENTENCES)), want, atol=near), kind.name


@pytest.mark.parametrize("family", ["MPNet", "Bert"])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_laid_out_for_integers_are_the_same_weights(family, bits, tmp_path):
    pytest.importorskip("openvino", reason="needs the extra 'fast'")
    from communique.model import openvino_engine
    from communique.model.openvino_engine import OpenVinoEngine, _small, _turn

    class Turned(OpenVinoEngine):
        """The weights laid out for integers, the products in fp32."""

        def _load(self, model, threads, streams):
            ov = openvino_engine.openvino()
            graph = openvino_engine.core().read_model(str(model))
            self.products = sum(_small(node) is not None for node in graph.get_ordered_ops())
            _turn(ov, graph)
            assert not any(_small(node) for node in graph.get_ordered_ops())
            ov.save_model(graph, tmp_path / "turned.xml", compress_to_fp16=False)
            return super()._load(tmp_path / "turned.xml", threads, streams)

    model = build(tmp_path, family, hidden=256)  # two groups of weights
    to_onnx(tmp_path, tmp_path / "fp32.onnx")
    quantise_weights(tmp_path / "fp32.onnx", tmp_path / "model.onnx", bits=bits)
    feed = model_config(TrainConfig(max_tokens=40, before_tokens=8), "x", model.config.model_type)
    tokenizer = SentenceTokenizer.from_file(tmp_path / "tokenizer.json", feed)
    settings = {"pad_id": tokenizer.pad_id, "token_types": feed.token_types, "threads": 1}
    turned = Turned(tmp_path / "model.onnx", **settings)
    assert turned.products == 6  # of the one layer: query, key, value, output, two more
    want = Engine(tmp_path / "model.onnx", **settings).logits(tokenizer.encode(SENTENCES))
    assert np.abs(turned.logits(tokenizer.encode(SENTENCES)) - want).max() < 2e-3


@pytest.mark.parametrize("family", ["MPNet", "Bert"])
def test_fewer_tokens_and_positions_and_the_same_answers(family, tmp_path):
    source, target = tmp_path / "run", tmp_path / "small"
    source.mkdir()
    build(source, family)
    before = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    fewer = len(before) - 3  # "and", which no sentence has, and BERT's start and end beside its own
    kept = shrink(source, target, [f"{s.text} {s.before}" for s in SENTENCES], fewer)
    assert kept == fewer
    after = json.loads((target / "tokenizer.json").read_text())["model"]["vocab"]
    want, _ = logits_of(source, SENTENCES)
    got, config = logits_of(target, SENTENCES)
    assert np.allclose(got, want, atol=1e-5), np.abs(got - want).max()
    assert config.encoder == str(source) and first_encoder(str(target)) == "an-encoder"
    saved = json.loads((target / "config.json").read_text())
    # A start, 40 tokens, an end, 8, an end, and filler; mpnet numbers positions from its filler on.
    assert saved["vocab_size"] == kept and saved["max_position_embeddings"] == (
        66 if family == "MPNet" else 64
    )
    # A word that lost its entry is cut into pieces, not unknown.
    fast = transformers.AutoTokenizer.from_pretrained(target)
    assert fast("and")["input_ids"][1:-1] == [after[piece] for piece in ("a", "##n", "##d")]


def test_an_encoder_is_shrunk_before_any_training(tmp_path):
    source, target = tmp_path / "encoder", tmp_path / "small"
    source.mkdir()
    build(source, "MPNet")
    (source / "train.json").unlink()
    for again in (target, tmp_path / "again"):
        shrink(source, again, [s.text for s in SENTENCES], 70)
    assert first_encoder(str(target)) == str(source) and not trained_before(str(target))
    assert json.loads((target / "config.json").read_text())["id2label"]["2"] == "concession"
    weights = (target / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "again" / "model.safetensors").read_bytes()  # the new head is seeded
    (target / "metrics.json").write_text("{}")
    assert trained_before(str(target))


def test_a_shrunk_teacher_stays_one(tmp_path):
    source, target = tmp_path / "teacher", tmp_path / "small"
    source.mkdir()
    build(source, "MPNet")
    (source / "metrics.json").write_text("{}")
    shrink(source, target, [s.text for s in SENTENCES], 70)
    assert trained_before(str(target)) and first_encoder(str(target)) == "an-encoder"


def test_lengths_beyond_the_encoders_positions_are_refused(tmp_path):
    build(tmp_path, "MPNet")
    (tmp_path / "train.json").unlink()
    build_model(TrainConfig(encoder=str(tmp_path), max_tokens=245, before_tokens=40))
    with pytest.raises(InputError, match="reads 298 tokens, but .* come to 304"):
        build_model(TrainConfig(encoder=str(tmp_path), max_tokens=246, before_tokens=40))


def test_what_cannot_be_shrunk_is_named(tmp_path):
    with pytest.raises(InputError, match=r"train\.json"):
        shrink(tmp_path, tmp_path / "out", [], 1000)
    build(tmp_path, "Bert")
    with pytest.raises(InputError, match="folder to read from"):
        shrink(tmp_path, tmp_path, [], 1000)


def test_a_state_from_before_rounding_cannot_ship():
    with pytest.raises(InputError, match=r"grid_from 0\.5: keep must be last"):
        TrainConfig(weight_bits=4, grid_from=0.5)
    TrainConfig(weight_bits=4, grid_from=0.5, keep="last")
