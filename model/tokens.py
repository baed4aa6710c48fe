"""Sentence and neighbours -> token ids, the same way in training and in use.

    [CLS] sentence [SEP]                                  a model without context
    [CLS] sentence [SEP] end of before [SEP] start of after [SEP]    a model with context

The sentence comes first so that the model knows which one to label; context has token type 1 where
the encoder has token types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from communique.model.artifact import ArtifactError, ModelConfig


@dataclass(frozen=True)
class SentenceInput:
    """A sentence to label, with its neighbours where they are known ("" where there are none)."""

    text: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class TokenIds:
    """One encoded sentence."""

    ids: tuple[int, ...]
    """Token ids with special tokens, length <= the config's limits."""
    first_context: int
    """Index of the first context token; equals len(ids) where there is none."""
    truncated: bool
    """Whether the sentence itself was cut."""


class SentenceTokenizer:
    """Encodes sentences for one model; thread-safe, no state between calls."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._config = config
        self.cls_id, self.sep_id, self.pad_id = _special(tokenizer)

    @classmethod
    def from_file(cls, path: Path, config: ModelConfig) -> SentenceTokenizer:
        """Read a `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)), config)

    def encode(self, sentences: Sequence[SentenceInput]) -> list[TokenIds]:
        """Encode sentences, in order; one result each."""
        texts = [s.text for s in sentences]
        if not self._config.reads_context:
            return [self._assemble(e.ids, [], []) for e in self._batch(texts)]
        # Neighbours are mostly sentences of the batch themselves: encode each string once.
        unique = list(dict.fromkeys(t for s in sentences for t in (s.text, s.before, s.after)))
        ids = {text: e.ids for text, e in zip(unique, self._batch(unique), strict=True)}
        return [self._assemble(ids[s.text], ids[s.before], ids[s.after]) for s in sentences]

    def _batch(self, texts: list[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def _assemble(self, sentence: list[int], before: list[int], after: list[int]) -> TokenIds:
        config = self._config
        ids = [self.cls_id, *sentence[: config.max_tokens], self.sep_id]
        first_context = len(ids)
        if config.before_tokens > 0:
            ids += [*before[-config.before_tokens :], self.sep_id]
        if config.after_tokens > 0:
            ids += [*after[: config.after_tokens], self.sep_id]
        return TokenIds(tuple(ids), first_context, truncated=len(sentence) > config.max_tokens)


_SPECIAL = (("<s>", "</s>", "<pad>"), ("[CLS]", "[SEP]", "[PAD]"))
"""Start, end and filler. mpnet's vocabulary holds BERT's as leftovers too, so its own come first."""


def _special(tokenizer: Tokenizer) -> list[int]:
    for names in _SPECIAL:
        ids = [i for i in map(tokenizer.token_to_id, names) if i is not None]
        if len(ids) == len(names):
            return ids
    wanted = " nor ".join(", ".join(names) for names in _SPECIAL)
    raise ArtifactError(f"tokenizer.json has neither {wanted} as special tokens")
