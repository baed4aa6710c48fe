"""Shares of labels from a classifier's answers and its known errors: adjusted counting and EM.

    acc(confusion, observed)                       # Forman 2008, for several classes
    em(posteriors, prior, counts)                  # Saerens, Latinne and Decaestecker 2002

Both hold under prior shift: what a label looks like is the same in the archive as in the gold sample, only
its frequency differs. Packages for this (quapy, mlquantify) take no weights of gold rows, and bring
Matplotlib or load torch where it is there; the tests hold both functions to mlquantify's.
"""

from __future__ import annotations

import numpy as np

from communique.eval.metrics import Floats, Ints

_STEPS = 2000
_TOLERANCE = 1e-7
_FLOOR = 1e-4
"""Probabilities below it are taken for it: archives write four decimals."""
_GRID = 4.0
"""Steps of a log-probability, in each unit, that `cells` tells apart."""
_RIDGE = 1e-3


def acc(confusion: Floats, observed: Floats) -> Floats | None:
    """Adjusted classify and count: the shares that, passed through the confusion, give what was observed.

    Least squares over shares that are not negative and sum to 1 (Forman 2008; for several classes Firat
    2016).

    Args:
        confusion: (k, k) weights of gold rows, rows the truth, columns the label given.
        observed: (k,) shares of the labels given.

    Returns:
        (k,) shares, or None where a label has no gold row, so that its errors are unknown.
    """
    from scipy.optimize import nnls

    totals = confusion.sum(axis=1)
    if (totals <= 0).any():
        return None
    rates = (confusion / totals[:, None]).T  # (given, true)
    heavy = 1e3  # holds the sum to 1
    shares, _ = nnls(np.vstack([rates, np.full(len(rates), heavy)]), np.append(observed, heavy))
    found: Floats = shares / shares.sum()
    return found


def em(
    posteriors: Floats, prior: Floats, counts: Floats | None = None, start: Floats | None = None
) -> Floats:
    """Expectation maximisation of the shares (EMQ, also SLD).

    Args:
        posteriors: (n, k) probabilities, calibrated where the labels have the shares `prior`.
        prior: (k,) those shares; a label with none keeps none.
        counts: (n,) how often each row stands; once if not given.
        start: (k,) where to begin; the prior if not given.

    Returns:
        (k,) shares.
    """
    weights = np.ones(len(posteriors)) if counts is None else counts
    known = prior > 0
    scaled = np.divide(posteriors, prior, out=np.zeros_like(posteriors), where=known)
    keep = scaled.sum(axis=1) > 0
    scaled, weights = scaled[keep], weights[keep]
    shares = (prior if start is None else np.where(known, np.maximum(start, 1e-6), 0)).astype(float)
    shares = shares / shares.sum()
    for _ in range(_STEPS):
        # The new share of a label is its mean posterior under the shares so far.
        fresh = shares * ((weights / (scaled @ shares)) @ scaled) / weights.sum()
        if np.abs(fresh - shares).max() < _TOLERANCE:
            return np.asarray(fresh)
        shares = fresh
    return np.asarray(shares)


def recalibrated(probabilities: Floats, fit: tuple[float, Floats]) -> Floats:
    """Probabilities (n, k) after scale and offsets of their logarithms."""
    scale, offsets = fit
    z = scale * np.log(np.maximum(probabilities, _FLOOR)) + offsets
    z = np.exp(z - z.max(axis=1, keepdims=True))
    found: Floats = z / z.sum(axis=1, keepdims=True)
    return found


def recalibration(probabilities: Floats, truth: Ints, weights: Floats) -> tuple[float, Floats]:
    """Scale and offsets that calibrate probabilities on gold rows: bias-corrected temperature scaling.

    EM trusts its posteriors; this step is what makes it hard to beat (Alexandari, Kundaje and Shrikumar
    2020). A slight ridge keeps the offset of a label without gold rows finite.
    """
    from scipy.optimize import minimize

    logs = np.log(np.maximum(probabilities, _FLOOR))
    target = np.eye(probabilities.shape[1])[truth]
    shares = (weights / weights.sum())[:, None]

    def loss(x: Floats) -> tuple[float, Floats]:
        z = x[0] * logs + x[1:]
        z = z - z.max(axis=1, keepdims=True)
        log_q = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        gap = shares * (np.exp(log_q) - target)
        value = -float((shares * target * log_q).sum()) + _RIDGE * float((x[1:] ** 2).sum())
        slope = np.concatenate([[(gap * logs).sum()], gap.sum(axis=0) + 2 * _RIDGE * x[1:]])
        return value, slope

    start = np.concatenate([[1.0], np.zeros(probabilities.shape[1])])
    bounds = [(0.05, 20.0), *[(None, None)] * probabilities.shape[1]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), found[1:]


def cells(probabilities: Floats) -> tuple[Floats, Ints]:
    """Representatives of probability vectors that are alike, (c, k), and the cell of each row, (n,).

    A million sentences fall into some thousands of cells (log-probabilities to a quarter), which EM then
    works on; gold rows go through the same cells, so that rounding favours no label.
    """
    grid = np.round(np.log(np.maximum(probabilities, _FLOOR)) * _GRID).astype(np.int16)
    rows, place = np.unique(grid, axis=0, return_inverse=True)
    return np.exp(rows / _GRID), place.reshape(-1).astype(np.int64)
