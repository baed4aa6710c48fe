"""An encoder, or a trained model, with the tokens and positions that official statements need.

    communique train --out runs/small shrink all-mpnet-base-v2 --vocabulary 12000
    communique train --encoder runs/small --weight-bits 4 --out runs/model

A fifth of a base-sized encoder is the table of its vocabulary, most of which official prose never uses.
Rows of the table go; WordPiece cuts a word that lost its own entry into shorter pieces, and the training
that follows gets the model used to it. Single characters stay, so nothing becomes unknown that was not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, set_seed

from communique.model.errors import InputError
from communique.model.tokens import SentenceTokenizer
from communique.train.config import TrainConfig
from communique.train.encoders import ENCODERS
from communique.train.fit import model_config
from communique.train.models import build_model, encoder_folder, positions

_FIRST = 5
"""Ids below it stay: some encoders number positions from an id that is not what sentences are filled with."""


def shrink(source: Path, target: Path, texts: Sequence[str], vocabulary: int) -> int:
    """Write the model of `source` with fewer tokens and positions; how many tokens were kept.

    Args:
        source: folder of a model that `communique train` wrote, or an encoder: its folder or pinned name.
        target: folder for the smaller one, of the same form.
        texts: which tokens are wanted is counted on them; none of a held-out document.
        vocabulary: tokens to keep; the single characters and special tokens among them.

    Raises:
        InputError: no model in `source`, or its tokenizer is not of the WordPiece kind.
    """
    trained = (source / "train.json").is_file()
    if not trained and str(source) not in ENCODERS and not (source / "tokenizer.json").is_file():
        raise InputError(
            f"{source}: neither train.json nor tokenizer.json; name a folder that `communique train` wrote, "
            f"an encoder's, or one of {', '.join(ENCODERS)}"
        )
    if source.resolve() == target.resolve():
        raise InputError(f"--out {target}: is the folder to read from; name another")
    config = TrainConfig.load(source / "train.json") if trained else TrainConfig(encoder=str(source))
    source = Path(encoder_folder(str(source)))
    record = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    if record["model"]["type"] != "WordPiece":
        raise InputError(
            f"{source}: its tokenizer is {record['model']['type']}, only WordPiece can be shrunk"
        )
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    set_seed(config.seed)  # of the head, which an encoder alone lacks
    model = AutoModelForSequenceClassification.from_pretrained(source) if trained else build_model(config)
    # Without truncation and filling, as sentences are read.
    feed = SentenceTokenizer(tokenizer, model_config(config, "shrink", model.config.model_type))
    special = [str(tokenizer.id_to_token(i)) for i in (feed.cls_id, feed.sep_id, feed.pad_id)]
    special.append(str(record["model"]["unk_token"]))
    counts: Counter[int] = Counter()
    for encoded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        counts.update(encoded.ids)
    kept = _kept(record["model"]["vocab"], special, counts, vocabulary)
    limit = positions(config)
    _cut(model, kept, limit)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    written = json.dumps(_tokenizer(record, kept, special), ensure_ascii=False)
    (target / "tokenizer.json").write_text(written, encoding="utf-8")
    (target / "tokenizer_config.json").write_text(
        json.dumps(_names(special, limit), indent=2) + "\n", encoding="utf-8"
    )
    (replace(config, encoder=str(source)) if trained else config).save(target / "train.json")
    (target / "metrics.json").unlink(missing_ok=True)  # of a training that was here before
    return len(kept)


def _kept(vocab: dict[str, int], special: Sequence[str], counts: Counter[int], size: int) -> list[int]:
    """Ids to keep, ascending: special tokens, single characters, then the most frequent."""
    must = {
        i
        for token, i in vocab.items()
        if i < _FIRST or token in special or len(token.removeprefix("##")) == 1
    }
    for token_id, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(must) >= size:
            break
        must.add(token_id)
    return sorted(must)


def _cut(model: Any, kept: Sequence[int], tokens: int) -> None:  # noqa: ANN401  a PreTrainedModel
    """Keep these rows of the vocabulary and the positions of so many tokens."""
    words = model.get_input_embeddings()
    table = torch.nn.Embedding(len(kept), words.embedding_dim, padding_idx=words.padding_idx)
    table.weight.data = words.weight.data[list(kept)].clone()
    model.set_input_embeddings(table)
    model.config.vocab_size = len(kept)
    embeddings = model.base_model.embeddings
    places = embeddings.position_embeddings
    offset = 0 if places.padding_idx is None else places.padding_idx + 1
    if places.num_embeddings > tokens + offset:
        fewer = torch.nn.Embedding(tokens + offset, places.embedding_dim, padding_idx=places.padding_idx)
        fewer.weight.data = places.weight.data[: tokens + offset].clone()
        embeddings.position_embeddings = fewer
        embeddings.position_ids = embeddings.position_ids[:, : tokens + offset].clone()
        model.config.max_position_embeddings = tokens + offset


def _tokenizer(record: dict[str, Any], kept: Sequence[int], special: Sequence[str]) -> dict[str, Any]:
    """`tokenizer.json` for the ids that were kept, in their order, as 0, 1, 2, …"""
    new = {old: place for place, old in enumerate(kept)}
    vocab = {token: new[i] for token, i in record["model"]["vocab"].items() if i in new}
    vocab = dict(sorted(vocab.items(), key=lambda item: item[1]))
    first, end = special[0], special[1]

    def piece(token: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    one = [piece(first, 0), {"Sequence": {"id": "A", "type_id": 0}}, piece(end, 0)]
    return record | {
        "model": record["model"] | {"vocab": vocab},
        "added_tokens": [
            {"id": vocab[token], "content": token, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for token in sorted(special, key=vocab.__getitem__)
        ],
        "padding": None,
        "truncation": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": one,
            "pair": [*one, {"Sequence": {"id": "B", "type_id": 1}}, piece(end, 1)],
            "special_tokens": {
                token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in (first, end)
            },
        },
    }


def _names(special: Sequence[str], tokens: int) -> dict[str, Any]:
    first, end, filler, unknown = special
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": first,
        "sep_token": end,
        "pad_token": filler,
        "unk_token": unknown,
        "model_max_length": tokens,
    }
