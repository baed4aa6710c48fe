"""Train, dev and test of the real statements, by document, with what is nearly the same kept together.

    communique data splits            # writes data/annotations/splits.json

Two documents are linked when they share half of their five-word shingles (Jaccard, computed exactly, not
estimated), or one annotated sentence of eight words or more, word for word; linked documents land in one
split and one fold. Documents with a sentence that was annotated in one pass only train. The cut is
scikit-learn's StratifiedGroupKFold over labels; of many seeded cuts that meet the floors, the one whose
kinds are nearest to the whole is taken. The same input and seed give the same file.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from communique.train.files import DataError
from communique.train.rows import Document, Row

SHINGLE_WORDS = 5
THRESHOLD = 0.5
"""Share of common shingles from which two documents are the same statement for our purposes."""
LONG_SENTENCE_WORDS = 8
"""From this many words on, the same sentence in two documents is copying and not courtesy."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class SplitPlan:
    """What a split must satisfy; the defaults are the floors that this project set itself."""

    threshold: float = THRESHOLD
    test_sentences: int = 1200  # the floor is 800; concessions are rare, so 60 of them take more
    test_concessions: int = 60
    test_documents: int = 50
    most_concessions: int = 8
    """Documents (with their near-duplicates) that hold more only train: a score on a rare label that hangs
    on two documents has no interval worth the name."""
    dev_share: float = 0.75  # of the test split's size
    rich_share: float = 0.4
    """Share of a held-out part that comes from documents with a concession."""
    folds: int = 5
    issuers: int = 12  # to leave out one by one
    issuer_sentences: int = 25  # fewer say nothing about an issuer
    issuer_documents: int = 2
    cuts: int = 40  # seeded cuts to choose from

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise DataError(f"threshold is {self.threshold}, expected a share above 0 and up to 1")
        if not 0 < self.dev_share <= 1:
            raise DataError(f"dev_share is {self.dev_share}, expected above 0 and up to 1")
        if self.most_concessions < 1:
            raise DataError(f"most_concessions is {self.most_concessions}, expected at least 1")
        if self.folds < 2 or self.cuts < 1:
            raise DataError(f"folds is {self.folds} and cuts {self.cuts}, expected at least 2 and 1")


def shingles(text: str, words: int = SHINGLE_WORDS) -> frozenset[str]:
    """Runs of `words` lower-case words; a shorter text is one shingle."""
    found = _WORD.findall(text.lower())
    return frozenset(" ".join(found[i : i + words]) for i in range(max(1, len(found) - words + 1)))


def near_duplicates(texts: Mapping[str, str], threshold: float = THRESHOLD) -> list[tuple[str, str, float]]:
    """Pairs of documents whose shingles' Jaccard similarity reaches `threshold`, with that similarity.

    Only pairs with a shingle in common are counted, so that no estimate (MinHash) is needed at this size.
    """
    sizes: dict[str, int] = {}
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for doc_id in sorted(texts):
        own = shingles(texts[doc_id])
        sizes[doc_id] = len(own)
        for shingle in own:
            holders[shingle].append(doc_id)
    common: Counter[tuple[str, str]] = Counter()
    for docs in holders.values():
        common.update(combinations(docs, 2))
    pairs = ((a, b, n / (sizes[a] + sizes[b] - n)) for (a, b), n in common.items())
    return sorted(pair for pair in pairs if pair[2] >= threshold)


def shared_sentences(rows: Iterable[Row], texts: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Pairs of documents with an annotated sentence of eight words or more in common, and its first words."""
    holders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        words = _WORD.findall(texts[row.doc_id][row.start : row.end].lower()) if row.doc_id in texts else []
        if len(words) >= LONG_SENTENCE_WORDS:
            holders[" ".join(words)].setdefault(row.doc_id, row.head)
    pairs = {(a, b): docs[a] for docs in holders.values() for a, b in combinations(sorted(docs), 2)}
    return sorted((a, b, head) for (a, b), head in pairs.items())


def linked_groups(doc_ids: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Each document's group, named by its first document: union-find over the pairs."""
    parent = {doc_id: doc_id for doc_id in doc_ids}

    def root(doc_id: str) -> str:
        while parent[doc_id] != doc_id:
            parent[doc_id] = parent[parent[doc_id]]
            doc_id = parent[doc_id]
        return doc_id

    for a, b in pairs:
        if a in parent and b in parent:
            first, second = sorted((root(a), root(b)))
            parent[second] = first
    return {doc_id: root(doc_id) for doc_id in parent}


def make_splits(
    rows: Sequence[Row],
    documents: Mapping[str, Document],
    texts: Mapping[str, str],
    seed: int,
    plan: SplitPlan | None = None,
) -> dict[str, Any]:
    """Splits, folds and the issuers to leave out, as they stand in `splits.json`.

    Args:
        rows: annotated sentences; synthetic ones are passed over, they are never in these splits.
        documents: by id, for kind and issuer.
        texts: by id; every document with a real row needs its text.
        seed: of the cuts that are compared.
        plan: floors and sizes.

    Raises:
        DataError: a text is missing, or no cut meets the floors.
    """
    plan = plan or SplitPlan()
    real = sorted((row for row in rows if not row.synthetic), key=lambda row: row.key)
    doc_ids = sorted({row.doc_id for row in real})
    _need_texts(doc_ids, texts)
    pairs = [(a, b) for a, b, _ in near_duplicates({d: texts[d] for d in doc_ids}, plan.threshold)]
    pairs += [(a, b) for a, b, _ in shared_sentences(real, texts)]
    group = linked_groups(doc_ids, pairs)
    concessions = Counter(group[row.doc_id] for row in real if row.label == "concession")
    only_train = {group[row.doc_id] for row in real if row.passes == 1}
    only_train |= {name for name, count in concessions.items() if count > plan.most_concessions}
    pool = [row for row in real if group[row.doc_id] not in only_train]
    test = _cut(pool, documents, group, plan.test_sentences, seed, plan, floors=True)
    size = sum(row.doc_id in test for row in pool)
    rest = [row for row in pool if row.doc_id not in test]
    dev = _cut(rest, documents, group, round(size * plan.dev_share), seed + 1, plan, floors=False)
    learn = [row for row in real if row.doc_id not in test]
    members = defaultdict(list)
    for doc_id, name in group.items():
        members[name].append(doc_id)
    return {
        "threshold": plan.threshold,
        "shingle_words": SHINGLE_WORDS,
        "long_sentence_words": LONG_SENTENCE_WORDS,
        "seed": seed,
        "split": {d: "test" if d in test else "dev" if d in dev else "train" for d in doc_ids},
        "fold": _folds(learn, group, plan.folds, seed),
        "leave_issuer_out": _issuers(learn, documents, plan),
        "near_duplicates": [docs for docs in members.values() if len(docs) > 1],
    }


def extend_splits(splits: Mapping[str, Any], rows: Sequence[Row], texts: Mapping[str, str]) -> dict[str, Any]:
    """The same splits with the documents that were annotated since.

    Nothing that is placed moves, so a model trained before stays untested on its own training data. A new
    document goes where its near-duplicates are, else into train and the fold with the fewest documents.

    Raises:
        DataError: there are no splits yet, or a text is missing.
    """
    if not {"threshold", "split", "fold"} <= splits.keys():
        raise DataError("there is no splits.json to extend: write one without --extend")
    real = sorted((row for row in rows if not row.synthetic), key=lambda row: row.key)
    doc_ids = sorted({row.doc_id for row in real})
    _need_texts(doc_ids, texts)
    pairs = [(a, b) for a, b, _ in near_duplicates({d: texts[d] for d in doc_ids}, splits["threshold"])]
    pairs += [(a, b) for a, b, _ in shared_sentences(real, texts)]
    group = linked_groups(doc_ids, pairs)
    placed, folds = dict(splits["split"]), dict(splits["fold"])
    by_group = {group[d]: part for d, part in placed.items() if d in group}
    fold_of = {group[d]: fold for d, fold in folds.items() if d in group}
    sizes = Counter(folds.values())
    for doc_id in doc_ids:
        if doc_id in placed:
            continue
        name = group[doc_id]
        placed[doc_id] = by_group.setdefault(name, "train")
        if placed[doc_id] != "test":
            folds[doc_id] = fold_of.setdefault(name, min(sizes, key=lambda n: (sizes[n], n)))
            sizes[folds[doc_id]] += 1
    members = defaultdict(list)
    for doc_id, name in group.items():
        members[name].append(doc_id)
    linked = [docs for docs in members.values() if len(docs) > 1]
    return {
        **splits,
        "split": dict(sorted(placed.items())),
        "fold": dict(sorted(folds.items())),
        "near_duplicates": linked,
    }


def _need_texts(doc_ids: Sequence[str], texts: Mapping[str, str]) -> None:
    missing = [doc_id for doc_id in doc_ids if doc_id not in texts]
    if missing:
        raise DataError(
            f"{len(missing)} documents have no text, first {missing[0]}: name the folder of the texts"
        )


def _cut(
    pool: Sequence[Row],
    documents: Mapping[str, Document],
    group: Mapping[str, str],
    wanted: int,
    seed: int,
    plan: SplitPlan,
    floors: bool,
) -> frozenset[str]:
    """Documents of a part of about `wanted` sentences whose labels and kinds are nearest to the pool's."""
    if len(pool) < 2 * wanted:
        raise DataError(
            f"only {len(pool)} sentences are free to be held out and {wanted} are wanted: "
            "annotate more documents in two passes, or plan a smaller test split"
        )
    doc = np.array([row.doc_id for row in pool])
    traits = _traits(pool, documents)
    label = np.array([row.label for row in pool])
    best: tuple[float, frozenset[str]] | None = None
    for at in _paired_cuts(pool, group, wanted, seed, plan):
        chosen = frozenset(doc[at].tolist())
        enough = len(at) >= wanted * (1 if floors else 0.9)
        if floors:
            concessions = int((label[at] == "concession").sum())
            enough = enough and len(chosen) >= plan.test_documents and concessions >= plan.test_concessions
        distance = float(np.abs(traits[at].mean(axis=0) - traits.mean(axis=0)).sum())
        distance += abs(len(at) - wanted) / wanted + 0.1 * int((traits[at].sum(axis=0) == 0).sum())
        if enough and (best is None or distance < best[0]):
            best = distance, chosen
    if best is None:
        raise DataError(
            f"no cut of {len(pool)} sentences has {wanted} sentences"
            + (f", {plan.test_concessions} concessions and {plan.test_documents} documents" if floors else "")
            + ": annotate more documents in two passes, or plan a smaller test split"
        )
    return best[1]


def _paired_cuts(
    pool: Sequence[Row], group: Mapping[str, str], wanted: int, seed: int, plan: SplitPlan
) -> Iterable[NDArray[np.int64]]:
    """Parts that take a larger share of the documents with concessions than of the others.

    Concessions are too rare for one share to give a held-out part enough of them and still be small.
    """
    with_concession = {group[row.doc_id] for row in pool if row.label == "concession"}
    rich = np.array([group[row.doc_id] in with_concession for row in pool])
    streams: list[list[NDArray[np.int64]]] = []
    for some, share in ((rich, plan.rich_share), (~rich, 1 - plan.rich_share)):
        at = np.flatnonzero(some)
        part = [pool[int(i)] for i in at]
        # Parts are not all of one size: aim a little over.
        parts = max(2, int(len(part) / (wanted * share * 1.04)))
        if len({group[row.doc_id] for row in part}) < parts:  # too few documents to tell them apart
            yield from _cuts(pool, group, max(2, int(len(pool) / (wanted * 1.04))), seed, plan.cuts)
            return
        streams.append([at[held] for held in _cuts(part, group, parts, seed, plan.cuts)])
    yield from (np.concatenate(pair) for pair in zip(*streams, strict=False))


def _cuts(
    pool: Sequence[Row], group: Mapping[str, str], parts: int, seed: int, cuts: int
) -> Iterable[NDArray[np.int64]]:
    """Row numbers of each part of each seeded cut of the pool into `parts`."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels = [row.label for row in pool]
    groups = [group[row.doc_id] for row in pool]
    for attempt in range(cuts):
        folder = StratifiedGroupKFold(n_splits=parts, shuffle=True, random_state=1000 * seed + attempt)
        for _, held in folder.split(labels, labels, groups):
            yield held


def _traits(pool: Sequence[Row], documents: Mapping[str, Document]) -> NDArray[np.float64]:
    """One column a label, a kind, and trade: (sentences, traits), 0 or 1."""
    marks = [
        {row.label, f"kind {documents[row.doc_id].kind}", f"trade {documents[row.doc_id].trade}"}
        for row in pool
    ]
    names = sorted(set().union(*marks))
    return np.array([[name in mark for name in names] for mark in marks], dtype=float)


def _folds(learn: Sequence[Row], group: Mapping[str, str], folds: int, seed: int) -> dict[str, int]:
    fold: dict[str, int] = {}
    for number, held in enumerate(_cuts(learn, group, folds, seed, 1)):
        fold |= {learn[i].doc_id: number for i in held}
    return dict(sorted(fold.items()))


def _issuers(learn: Sequence[Row], documents: Mapping[str, Document], plan: SplitPlan) -> list[str]:
    """Issuers with enough sentences in two passes, in turn from each kind of statement, so that they vary."""
    rows: Counter[str] = Counter()
    docs: defaultdict[str, set[str]] = defaultdict(set)
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in learn:
        doc = documents[row.doc_id]
        rows[doc.issuer] += row.passes == 2
        docs[doc.issuer].add(row.doc_id)
        kinds[doc.issuer][doc.kind] += 1
    queues: defaultdict[str, list[str]] = defaultdict(list)
    for issuer, count in sorted(rows.items(), key=lambda item: (-item[1], item[0])):
        if count >= plan.issuer_sentences and len(docs[issuer]) >= plan.issuer_documents:
            queues[min(kinds[issuer], key=lambda kind: (-kinds[issuer][kind], kind))].append(issuer)
    chosen: list[str] = []
    while any(queues.values()) and len(chosen) < plan.issuers:
        chosen += [queues[kind].pop(0) for kind in sorted(queues) if queues[kind]]
    return sorted(chosen[: plan.issuers])
