"""What is chosen once a model is trained: a temperature, and the rule by which probabilities become a label.

    temperature = fit_temperature(logits, gold)
    weights = fit_weights(softmax(logits, temperature), gold)
    rule = Rule(fit_threshold(softmax(logits, temperature), gold, weights), weights)

Logits and probabilities are (sentences, 5), gold labels indices in `LABELS`; all of the dev split.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from communique.eval.metrics import f1_of
from communique.model.classifier import decide, softmax
from communique.model.labels import EVEN, LABELS, STANCES, label_index

Logits = npt.NDArray[np.float32]

WEIGHTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""What the rarest stance may count for."""
RARE = 0.1
"""Share of the sentences below which a stance is rare."""


class Rule(NamedTuple):
    """How a label is chosen from probabilities, see `decide`."""

    threshold: float = 0.0
    label_weights: tuple[float, ...] = EVEN


def fit_temperature(logits: Logits, gold: npt.NDArray[np.int64]) -> float:
    """The temperature with the least negative log-likelihood (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        p = softmax(logits, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(p[np.arange(len(gold)), gold], 1e-12)).mean())

    return round(float(np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x)), 4)


def fit_weights(probabilities: npt.NDArray[np.float64], gold: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Label weights with the best macro-F1 of the four: one of `WEIGHTS` for the rarest stance, if `RARE`.

    The F1 of a label is best where it is taken from a probability of half that F1 on (Lipton et al. 2014):
    for a rare label that is hard to tell, well before it is the most probable. Weights of all labels, fitted
    at once, score higher on the sentences they are fitted on and lower on others.
    """
    counts = np.bincount(gold, minlength=len(LABELS))
    rarest = int(counts[: len(STANCES)].argmin())
    if not 0 < counts[rarest] < RARE * len(gold):
        return EVEN
    rules = [(*EVEN[:rarest], w, *EVEN[rarest + 1 :]) for w in WEIGHTS]
    return max(rules, key=lambda weights: macro_f1(gold, probabilities, Rule(0.0, weights)))


def fit_threshold(
    probabilities: npt.NDArray[np.float64], gold: npt.NDArray[np.int64], weights: tuple[float, ...] = EVEN
) -> float:
    """The abstention threshold with the best macro-F1 of the four; the lowest within 0.001 of it."""
    grid = np.round(np.arange(0.0, 0.71, 0.01), 2)
    scores = np.array([macro_f1(gold, probabilities, Rule(float(t), weights)) for t in grid])
    return float(grid[np.flatnonzero(scores >= scores.max() - 0.001)[0]])


def macro_f1(gold: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], rule: Rule) -> float:
    """Macro-F1 of the four stances, of gold labels (n,) and probabilities (n, 5) under a rule."""
    found = np.array([label_index(label) for label in decide(probabilities, **rule._asdict())])
    table = np.zeros((1, len(LABELS), len(LABELS)))
    np.add.at(table[0], (gold, found), 1)
    return float(f1_of(table)[0, : len(STANCES)].mean())
