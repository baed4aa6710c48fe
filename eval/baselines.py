"""What a model must beat: chance, the most frequent label, keyword rules, TF-IDF with logistic regression.

    communique eval report test.jsonl --train train.jsonl --out report/

Each baseline answers the same sentences as the model. Chance draws labels at random with the shares they
have (in the training table, or failing that in the test table itself); its scores are those of the expected
confusion table, so they do not hang on one draw. The keyword rules were written from the label definitions
and from ordinary knowledge of diplomatic prose, without looking at any table's rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from communique.eval.metrics import Floats, Ints
from communique.eval.table import Row
from communique.model.labels import LABELS, Stance, label_index

# The first label with a phrase in the sentence is given, so what is more particular stands first.
_PHRASES: dict[Stance, tuple[str, ...]] = {
    Stance.NONE: (r"\?$", r"^(thank you|good (morning|afternoon|evening))\b", r"^press release\b"),
    Stance.CONCESSION: (
        r"\bapologi[sz]e[sd]?\b",
        r"\b(will|has|have|agree[sd]? to) (lift|ease|suspend|withdr[ae]w|waive|release|drop|postpone)",
        r"\baccept(s|ed)? the (request|proposal)\b",
        r"\b(in response to|at) the request of\b",
        r"\bas a gesture of\b",
        r"\bno longer (insist|require)",
    ),
    Stance.AGREEMENT: (
        r"\b(both|the two|all) (sides|parties|leaders|ministers|countries|governments) "
        r"(agree|reaffirm|share|commit|express|welcome|decide|underlin|stress)",
        r"\b(ministers|leaders|parties|participants) (agreed|reaffirmed|decided|reiterated)\b",
        r"\bagreed (to|that|on)\b",
        r"\bjointly\b",
        r"\bsigned (an?|the)\b",
        r"\bwe (both|all) agree\b",
    ),
    Stance.DEMAND: (
        r"\b(urg|demand|encourag|insist)(e|es|ed|ing|s)?\b",
        r"\bcall(s|ed|ing)? (up)?(on|for)\b",
        r"\b(request|appeal)(s|ed)?\b",
        r"\b(must|should|needs? to|immediately)\b",
    ),
    Stance.POSITION: (
        r"\b(condemn|support|reject|regret|reaffirm)(s|ed)?\b",
        r"\b(oppose|welcome|believe|deplore|reiterate|recogni[sz]e)[sd]?\b",
        r"\b(concern(s|ed)?|commit(ted|ment)|policy|principle|unacceptable)\b",
        r"\bwill (not|never|continue)\b",
        r"\bstands? (with|ready|by)\b",
    ),
}
RULES: tuple[tuple[Stance, re.Pattern[str]], ...] = tuple(
    (label, re.compile("|".join(phrases), re.IGNORECASE)) for label, phrases in _PHRASES.items()
)


def keyword_label(text: str) -> Stance:
    """The label of the first rule that matches; `none` if none does."""
    return next((label for label, pattern in RULES if pattern.search(text.strip())), Stance.NONE)


def keyword_labels(rows: Sequence[Row]) -> Ints:
    """Indices of the rules' labels, (rows,)."""
    return np.array([LABELS.index(keyword_label(row.text)) for row in rows], dtype=np.int64)


def label_shares(labels: Ints) -> Floats:
    """Share of each of the five labels, (5,), summing to 1."""
    shares: Floats = np.bincount(labels, minlength=len(LABELS)) / len(labels)
    return shares


def chance_tables(tables: Floats, shares: Floats) -> Floats:
    """Expected confusion tables (documents, 5, 5) of labels drawn at random with the given shares.

    A row of truth with n sentences is spread over the columns as n times the shares.
    """
    spread: Floats = tables.sum(axis=2, keepdims=True) * shares
    return spread


def majority_labels(n: int, shares: Floats) -> Ints:
    """The most frequent label, n times."""
    return np.full(n, int(shares.argmax()), dtype=np.int64)


def tfidf_labels(train: Sequence[Row], rows: Sequence[Row], seed: int = 0) -> Ints:
    """TF-IDF of words and word pairs with a balanced logistic regression, fitted on `train`, (rows,).

    Settings are scikit-learn's but for sublinear counts and balanced classes, and were not tuned.

    Raises:
        ValueError: the training rows hold fewer than two labels, or no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    gold = [label_index(row.gold) for row in train]
    if len(set(gold)) < 2:
        raise ValueError(f"the training rows hold {len(set(gold))} label: TF-IDF needs two or more")
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=2000, random_state=seed),
    )
    model.fit([row.text for row in train], gold)
    return np.asarray(model.predict([row.text for row in rows]), dtype=np.int64)
