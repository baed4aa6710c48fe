"""Sentence encoders that are not fine-tuned as a classifier: frozen with logistic regression, and SetFit.

    probabilities = setfit_probabilities("all-MiniLM-L6-v2", few_rows, rows)     # (rows, 5)

SetFit (Tunstall et al. 2022, "Efficient few-shot learning without prompts") tunes the encoder on pairs of
sentences of one label and of two, and puts a logistic regression on its vectors: the `setfit` package with
its own settings. `pip install 'communique[baselines]'` brings it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from communique.eval.metrics import Floats
from communique.eval.table import Row
from communique.model.errors import InputError
from communique.model.labels import LABELS, label_index
from communique.train.encoders import ENCODERS
from communique.train.models import encoder_folder

PAIRS_A_SENTENCE = 20
"""Positive and negative pairs that SetFit makes of each sentence (its paper's number)."""
MOST_PAIRS = 15_000
"""Where that would be more pairs than this of a kind, fewer a sentence are made, one at the least."""
MAX_TOKENS = 128


def body(encoder: str) -> Any:  # noqa: ANN401  a SentenceTransformer; the package is not always there
    """The encoder with the pooling it was pretrained with, as a SentenceTransformer.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ModuleNotFoundError as error:
        raise InputError(f"this baseline needs {error.name}: pip install 'communique[baselines]'") from None
    words = Transformer(encoder_folder(encoder), max_seq_length=MAX_TOKENS)
    mode = ENCODERS[encoder].pooling if encoder in ENCODERS else "mean"
    pooling = Pooling(words.get_embedding_dimension(), pooling_mode=mode)
    return SentenceTransformer(modules=[words, pooling])


def frozen_probabilities(encoder: str, train: Sequence[Row], rows: Sequence[Row]) -> Floats:
    """Balanced logistic regression on the encoder's vectors of unit length, (rows, 5)."""
    from sklearn.linear_model import LogisticRegression

    model = body(encoder)
    vectors, others = (
        model.encode([r.text for r in part], normalize_embeddings=True, show_progress_bar=None)
        for part in (train, rows)
    )
    head = LogisticRegression(class_weight="balanced", max_iter=2000)
    head.fit(vectors, [label_index(r.gold) for r in train])
    return _five(head.predict_proba(others), head.classes_)


def setfit_probabilities(encoder: str, train: Sequence[Row], rows: Sequence[Row], *, seed: int) -> Floats:
    """One epoch over the pairs, then the head; (rows, 5).

    Raises:
        InputError: the package is not installed, or the rows hold fewer than two labels.
    """
    try:
        from setfit import SetFitModel, Trainer, TrainingArguments
    except ModuleNotFoundError as error:
        raise InputError(f"this baseline needs {error.name}: pip install 'communique[baselines]'") from None
    from datasets import Dataset
    from sklearn.linear_model import LogisticRegression

    gold = [label_index(r.gold) for r in train]
    if len(set(gold)) < 2:
        raise InputError(f"SetFit needs rows of two labels, not {len(set(gold))}")
    model = SetFitModel(model_body=body(encoder), model_head=LogisticRegression(max_iter=2000))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_iterations=max(1, min(PAIRS_A_SENTENCE, MOST_PAIRS // len(train))),
            num_epochs=1,
            batch_size=16,
            max_length=MAX_TOKENS,
            seed=seed,
            report_to="none",
            save_strategy="no",
        )
        data = Dataset.from_dict({"text": [r.text for r in train], "label": gold})
        Trainer(model=model, args=arguments, train_dataset=data).train()
    found = model.predict_proba([r.text for r in rows], as_numpy=True)
    return _five(np.asarray(found, dtype=np.float64), model.model_head.classes_)


def _five(probabilities: Floats, classes: Sequence[int]) -> Floats:
    """Columns of the labels that were learnt -> columns of all five, 0 where a label was not."""
    out = np.zeros((len(probabilities), len(LABELS)))
    out[:, list(classes)] = probabilities
    return out
