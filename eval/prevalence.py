"""Shares that can be believed: how often each label occurs in a group of an archive, with 95 % intervals.

    communique eval shares labelled/records --gold gold.jsonl --by issuer,year --out shares/

Counting a classifier's labels is biased even where nine of ten are right. Three estimates stand side by side:

- **naive**: the labels counted, with the interval of somebody who takes them for the truth;
- **adjusted**: ACC and EMQ (`communique.eval.quantify`), the errors known from all gold rows; they hold if
  the model errs in a group as it does in the gold sample;
- **design-based**: the mean probability less its mean error in the group's own random gold rows, weighted
  by 1 / inclusion probability. It holds whatever the model does, because the sample was random: the
  difference estimator of survey sampling (Särndal, Swensson and Wretman 1992), which is what
  prediction-powered inference (Angelopoulos et al. 2023) and design-based supervised learning (Egami et
  al. 2023) come to for a share.

The target is the archive itself: the share among its sentences, had annotators read all of them. Sentences
of a document are not independent: variances are those of documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from communique.eval.metrics import Floats, Ints
from communique.eval.predictions import ALL, Gold, Predictions
from communique.eval.quantify import acc, cells, em, recalibrated, recalibration
from communique.eval.resample import UNKNOWN, Number
from communique.eval.views import NAMES
from communique.model.labels import LABELS

METHODS = ("naive", "acc", "emq", "design")
MIN_ROWS = 30
"""Random gold rows of a group below which its design-based shares are not estimable."""
MIN_DOCUMENTS = 10
"""Documents among them: a variance of documents from fewer is a guess."""
MIN_LABEL = 5
"""Gold rows of a label below which an interval is called thin."""
RESAMPLES = 200
_K = len(LABELS)


@dataclass(frozen=True)
class GroupShares:
    """A group of the archive and the share of each label in it, by each method."""

    group: tuple[str, ...]
    """Values of the columns grouped by; ("all",) for the whole archive."""
    sentences: int
    documents: int
    gold_rows: int
    """Random gold rows of the group."""
    gold_documents: int
    gold_labels: dict[str, int]
    shares: dict[str, dict[str, Number]]
    """method -> label -> share."""
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The group's name as it is printed."""
        return ", ".join(self.group)


def group_shares(
    predictions: Predictions,
    gold: Gold,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    tick: Callable[[int], None] = lambda done: None,
) -> list[GroupShares]:
    """Shares of every group, the whole archive first.

    Args:
        predictions: the archive.
        gold: rows of it; those with a weight are the random sample.
        resamples: of gold documents, for the adjusted shares' intervals.
        seed: of the resamples.
        tick: called with the number of resamples done since the last call.
    """
    members = [np.ones(len(predictions.group), bool)]
    names: list[tuple[str, ...]] = [(ALL,)]
    if predictions.by:
        members += [predictions.group == i for i in range(len(predictions.groups))]
        names += list(predictions.groups)
    adjusted = _adjusted(predictions, gold, members, resamples, seed, tick)
    return [
        _group(predictions, gold, name, inside, {m: adjusted[m][i] for m in adjusted})
        for i, (name, inside) in enumerate(zip(names, members, strict=True))
    ]


def _group(
    predictions: Predictions,
    gold: Gold,
    name: tuple[str, ...],
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]],
    adjusted: dict[str, list[Number]],
) -> GroupShares:
    mine = inside[gold.row] & ~np.isnan(gold.weight)
    rows, truth = gold.row[mine], gold.truth[mine]
    documents = len(np.unique(predictions.document[rows]))
    labels = np.bincount(truth, minlength=_K)
    naive = clustered_mean(np.eye(_K)[predictions.found[inside]], predictions.document[inside])
    design = [UNKNOWN] * _K
    warnings = []
    if len(rows) >= MIN_ROWS and documents >= MIN_DOCUMENTS:
        design = design_shares(
            predictions.probabilities[inside].mean(axis=0),
            predictions.probabilities[rows],
            truth,
            gold.weight[mine],
            predictions.document[rows],
        )
        thin = [f"{n} ({c})" for n, c in zip(NAMES, labels, strict=True) if c < MIN_LABEL]
        if thin:
            warnings.append(f"few gold rows of {', '.join(thin)}: their design-based intervals are rough")
    else:
        warnings.append(
            f"{len(rows)} random gold rows of {documents} documents: design-based shares need "
            f"{MIN_ROWS} of {MIN_DOCUMENTS}"
        )
    by_method = {"naive": naive, **adjusted, "design": design}
    return GroupShares(
        group=name,
        sentences=int(inside.sum()),
        documents=len(np.unique(predictions.document[inside])),
        gold_rows=len(rows),
        gold_documents=documents,
        gold_labels=dict(zip(NAMES, map(int, labels), strict=True)),
        shares={m: dict(zip(NAMES, by_method[m], strict=True)) for m in METHODS},
        warnings=tuple(warnings),
    )


def design_shares(
    mean: Floats, probabilities: Floats, truth: Ints, weights: Floats, documents: Ints
) -> list[Number]:
    """The difference estimator: mean probability in the group plus the weighted mean error in its gold rows.

    Args:
        mean: (k,) mean probabilities of all sentences of the group.
        probabilities: (m, k) of its random gold rows.
        truth: (m,) their gold labels.
        weights: (m,) 1 / inclusion probability.
        documents: (m,) the document of each; at least two.
    """
    errors = np.eye(probabilities.shape[1])[truth] - probabilities
    return [
        Number(*(float(np.clip(mean[k] + part, 0, 1)) for part in (e.value, e.low, e.high)))
        for k, e in enumerate(clustered_mean(errors, documents, weights, clip=False))
        if e.value is not None and e.low is not None and e.high is not None
    ]


def clustered_mean(
    values: Floats, documents: Ints, weights: Floats | None = None, *, clip: bool = True
) -> list[Number]:
    """Weighted means of columns with t intervals whose variance is that of documents (linearised).

    `values` is (m, k). Särndal, Swensson and Wretman 1992, section 5.7; degrees of freedom: documents
    less one. One document carries no interval.
    """
    from scipy.stats import t

    w = np.ones(len(values)) if weights is None else weights
    total = w.sum()
    means = w @ values / total
    place = np.unique(documents, return_inverse=True)[1]
    count = int(place.max()) + 1
    if count < 2:
        return [Number(float(mean)) for mean in means]
    residuals = np.zeros((count, values.shape[1]))
    np.add.at(residuals, place, w[:, None] * (values - means))
    error = np.sqrt(count / (count - 1) * (residuals**2).sum(axis=0)) / total
    reach = t.ppf(0.975, count - 1) * error
    low, high = means - reach, means + reach
    if clip:
        low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return [Number(float(m), float(lo), float(hi)) for m, lo, hi in zip(means, low, high, strict=True)]


def _adjusted(
    predictions: Predictions,
    gold: Gold,
    members: list[np.ndarray[tuple[int], np.dtype[np.bool_]]],
    resamples: int,
    seed: int,
    tick: Callable[[int], None],
) -> dict[str, list[list[Number]]]:
    """ACC and EMQ of each group; intervals resample gold documents, and the group's sentences."""
    random = ~np.isnan(gold.weight)
    use = random if random.any() else np.ones(len(gold.row), bool)  # without a sample, all rows as they are
    rows, truth = gold.row[use], gold.truth[use]
    weights = gold.weight[use] if random.any() else np.ones(len(rows))
    place = np.unique(predictions.document[rows], return_inverse=True)[1]
    levels, cell = cells(predictions.probabilities)
    found = np.stack([np.bincount(predictions.found[m], minlength=_K) for m in members]).astype(float)
    held = [np.bincount(cell[m], minlength=len(levels)) for m in members]
    there = [np.flatnonzero(h) for h in held]
    rng = np.random.default_rng(seed)

    def estimate(w: Floats, start: list[Floats] | None) -> tuple[list[Floats | None], list[Floats]]:
        confusion = np.zeros((_K, _K))
        np.add.at(confusion, (truth, predictions.found[rows]), w)
        fit = recalibration(levels[cell[rows]], truth, w)
        posteriors, prior = recalibrated(levels, fit), np.bincount(truth, w, minlength=_K) / w.sum()
        counted, maximised = [], []
        for i, seen in enumerate(there):
            n = int(held[i].sum())
            labels, counts = found[i] / n, held[i][seen].astype(float)
            if start is not None:  # a resample: other sentences of the same kind might have stood there
                labels = rng.multinomial(n, labels) / n
                counts = rng.multinomial(n, counts / n).astype(float)
            counted.append(acc(confusion, labels))
            maximised.append(em(posteriors[seen], prior, counts, None if start is None else start[i]))
        return counted, maximised

    counted, maximised = estimate(weights, None)
    draws: dict[str, list[list[Floats]]] = {"acc": [[] for _ in members], "emq": [[] for _ in members]}
    for _ in range(resamples if len(np.unique(place)) > 1 else 0):
        times = np.bincount(rng.integers(place.max() + 1, size=place.max() + 1), minlength=place.max() + 1)
        again = estimate(weights * times[place], maximised)
        for i in range(len(members)):
            draws["emq"][i].append(again[1][i])
            if (counts := again[0][i]) is not None:  # a label without gold rows in this draw
                draws["acc"][i].append(counts)
        tick(1)
    points: dict[str, list[Floats | None]] = {"acc": counted, "emq": [*maximised]}
    return {name: [_numbers(p, d) for p, d in zip(points[name], draws[name], strict=True)] for name in points}


def _numbers(point: Floats | None, draws: list[Floats]) -> list[Number]:
    if point is None:
        return [UNKNOWN] * _K
    if not draws:
        return [Number(float(p)) for p in point]
    low, high = np.percentile(np.array(draws), [2.5, 97.5], axis=0)
    return [Number(float(p), float(lo), float(hi)) for p, lo, hi in zip(point, low, high, strict=True)]
