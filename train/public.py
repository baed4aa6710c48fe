"""Public data sets as stance rows: read from a folder, verified by hash, labelled by reading.

    >>> from pathlib import Path
    >>> from communique.train.public import read_public, to_dataset
    >>> rows = read_public(Path("../shared/public"), licence="permissive")  # doctest: +SKIP
    >>> to_dataset(rows).num_rows  # doctest: +SKIP

Each data set was published for another task. Where its labels map onto stances only loosely ("agreed to
lift the ban" is published as AGREE and is a concession), rows were read against the codebook by one
reader (a language model, one pass) and the decision is kept in `public_labels/` as row id and hash of
the text -> label. A row nobody has read carries the mapped label where the mapping holds, else none at
all: `label` is None and the row is left out of training. `communique data public` prints the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from communique.model.artifact import sha256_file
from communique.model.labels import LABELS
from communique.train.files import DataError, read_object
from communique.train.public_council import text_key
from communique.train.public_duplicates import NEAR_DUPLICATE, near_duplicates
from communique.train.public_sources import PLOVER_ROOTS, SOURCES, PublicFile, RawRow, Source

if TYPE_CHECKING:
    from datasets import Dataset

LABELS_FOLDER = Path(__file__).resolve().parent / "public_labels"
READ, MAPPED, LEFT_OUT = "read", "mapped", "left out"


@dataclass(frozen=True, slots=True)
class PublicRow:
    """One row of a public data set."""

    dataset: str
    row_id: str
    text: str
    source_label: str
    label: str | None  # one of the five, or None: left out
    licence: str
    origin: str  # owner/repo:path
    split: str  # "train" or "test" as published, else ""
    how: str  # "read", "mapped" or "left out": how it came by its label


def read_public(
    folder: Path, datasets: Collection[str] | None = None, licence: str | None = None
) -> list[PublicRow]:
    """Every row of the data sets asked for, those that are left out included (label None).

    Args:
        folder: holds `owner+repo/path` files as published.
        datasets: names; all if not given.
        licence: "permissive" keeps MIT and United Nations texts only; all if not given.

    Raises:
        DataError: an unknown name or licence, or a file that is missing or not the one that was pinned.
    """
    return [row for source in _chosen(datasets, licence) for row, _ in _labelled(folder, source)]


def to_dataset(rows: Iterable[PublicRow]) -> Dataset:
    """The rows as a `datasets.Dataset`, one string column a field; `label` is null where left out."""
    from datasets import Dataset, Features, Value

    features = Features({name: Value("string") for name in PublicRow.__dataclass_fields__})
    return Dataset.from_list([asdict(row) for row in rows], features=features)


def plv_benchmark(folder: Path) -> tuple[list[PublicRow], list[PublicRow]]:
    """Zero-Shot PLOVER as its own benchmark: (train rows, test rows), each published row once.

    `source_label` is the gold root (15), `label` the plain mapping of it: REQUEST demand, YIELD
    concession, AGREE agreement, ACCUSE/REJECT/SUPPORT/THREATEN position, the rest none. No decision of
    a reader enters, so that scores compare with others' on the same file; actors are not marked.

    Raises:
        DataError: a file is missing or not the one that was pinned.
    """
    source = _named("plover-zeroshot")
    rows: dict[str, list[PublicRow]] = {"train": [], "test": []}
    for file, raw in _raw_rows(folder, source, ()):
        label = PLOVER_ROOTS[raw.source_label].value
        rows[file.split].append(_row(source, file, raw, label, MAPPED))
    return rows["train"], rows["test"]


def drop_near_duplicates(
    rows: Sequence[PublicRow], against_texts: Iterable[str] = (), threshold: float = NEAR_DUPLICATE
) -> tuple[list[PublicRow], dict[str, int]]:
    """Rows without those that nearly repeat another row or one of the given texts, such as a test split's.

    Of two near-duplicates the labelled one stays, then the read one, then the earlier. Measure and
    threshold are those of `communique.train.public_duplicates.near_duplicates`.

    Returns:
        The rows kept, in their order, and the number dropped of each data set (0 included).
    """
    order = sorted(range(len(rows)), key=lambda n: (rows[n].label is None, rows[n].how != READ, n))
    repeated = near_duplicates([rows[n].text for n in order], against_texts, threshold)
    gone = {order[place] for place in repeated}
    counts = Counter({row.dataset: 0 for row in rows})
    counts.update(rows[n].dataset for n in gone)
    return [row for n, row in enumerate(rows) if n not in gone], dict(counts)


def near_texts(rows: Sequence[PublicRow], texts: Sequence[str]) -> set[int]:
    """Places of the rows that nearly repeat one of the texts, by the same measure."""
    return near_duplicates([row.text for row in rows], texts, among=False)


def public_table(folder: Path, licence: str | None = None) -> list[dict[str, Any]]:
    """What `communique data public` prints: a dict for each data set.

    Keys: dataset, licence, permissive, where, rows, the five labels, left_out; `decided`: rows that were
    read; of these the ones that the plain mapping labels (`read`) and how many `fit` it, with the 95 %
    interval of that share (`low`, `high`);
    and, of rows drawn at random from those that the mapping labels (`mapped`: how many it does) and read
    only after it was fixed, the same: `check_read`, `check_fit`, `check_low`, `check_high`. `read` and
    `fit` count rows that were picked to be read because they looked hard; trust a mapping by `check`.
    The bounds are None where nothing was read.

    Raises:
        DataError: as `read_public`.
    """
    return [_entry(folder, source) for source in _chosen(None, licence)]


def _entry(folder: Path, source: Source) -> dict[str, Any]:
    pairs = list(_labelled(folder, source))
    counts = Counter(row.label for row, _ in pairs)
    read = [(row, raw) for row, raw in pairs if row.how == READ and raw.plain is not None]
    checked = _decisions(source.name, ("check",))
    check = [(row, raw) for row, raw in read if text_key(row.text) in checked]
    return {
        "dataset": source.name,
        "licence": source.licence,
        "permissive": source.permissive,
        "where": source.where,
        "rows": len(pairs),
        **{label.value: counts[label.value] for label in LABELS},
        "left_out": counts[None],
        "decided": sum(row.how == READ for row, _ in pairs),
        "mapped": sum(row.how == MAPPED for row, _ in pairs),
        **_purity("", read),
        **_purity("check_", check),
    }


def _purity(prefix: str, pairs: Sequence[tuple[PublicRow, RawRow]]) -> dict[str, Any]:
    """Rows read, rows that fit, and Wilson's interval of the share (Wilson 1927, JASA 22:209)."""
    from scipy.stats import binomtest

    fit = sum(row.label == raw.plain for row, raw in pairs)
    low = high = None
    if pairs:
        interval = binomtest(fit, len(pairs)).proportion_ci(method="wilson")
        low, high = float(interval.low), float(interval.high)
    names = ("read", "fit", "low", "high")
    return {prefix + name: value for name, value in zip(names, (len(pairs), fit, low, high), strict=True)}


# --- from files to rows ------------------------------------------------------------------------------


def _chosen(datasets: Collection[str] | None, licence: str | None) -> list[Source]:
    if licence not in (None, "permissive"):
        raise DataError(f"licence {licence!r} is not known: use 'permissive', or none for all")
    wanted = None if datasets is None else {_named(name).name for name in datasets}
    return [
        source
        for source in SOURCES
        if (wanted is None or source.name in wanted) and (licence is None or source.permissive)
    ]


def _named(name: str) -> Source:
    for source in SOURCES:
        if source.name == name:
            return source
    raise DataError(f"unknown public data set {name!r}: use one of {', '.join(s.name for s in SOURCES)}")


def _labelled(folder: Path, source: Source) -> Iterator[tuple[PublicRow, RawRow]]:
    """Rows with their label; a decision is found by the text's hash, so it holds for a repeated text."""
    decisions = _decisions(source.name)
    for file, raw in _raw_rows(folder, source, decisions.keys()):
        key = text_key(raw.text)
        if key in decisions:
            yield _row(source, file, raw, decisions[key], READ), raw
        elif raw.holds and raw.plain is not None:
            yield _row(source, file, raw, raw.plain.value, MAPPED), raw
        else:
            yield _row(source, file, raw, None, LEFT_OUT), raw


def _row(source: Source, file: PublicFile, raw: RawRow, label: str | None, how: str) -> PublicRow:
    return PublicRow(
        source.name,
        raw.row_id,
        raw.text,
        raw.source_label,
        label,
        source.licence,
        file.origin,
        file.split,
        how,
    )


def _raw_rows(folder: Path, source: Source, read: Collection[str]) -> Iterator[tuple[PublicFile, RawRow]]:
    paths = [_verified(folder, source, file) for file in source.files]
    for file, path in zip(source.files, paths, strict=True):
        for raw in source.read(path, file.split, read):
            yield file, raw


def _verified(folder: Path, source: Source, file: PublicFile) -> Path:
    path = folder / file.place
    if not path.is_file():
        raise DataError(f"{path} is missing: {source.name} is to be had from {source.where} ({file.path})")
    found = sha256_file(path)
    if found != file.sha256:
        raise DataError(
            f"{path} has SHA-256 {found}, expected {file.sha256}: "
            f"fetch the version that was read anew from {source.where}"
        )
    return path


def _decisions(name: str, parts: Sequence[str] = ("rows", "check")) -> dict[str, str | None]:
    """`text_key` -> label (None: read and left out) of the rows of a data set that were read.

    Raises:
        DataError: a decision names no label of the five.
    """
    path = LABELS_FOLDER / f"{name}.json"
    content = read_object(path)
    decisions: dict[str, str | None] = {}
    for row, label in (item for part in parts for item in content[part].items()):
        if label is not None and label not in LABELS:
            raise DataError(f"{path.name}: row {row}: {label!r} is not one of {', '.join(LABELS)}")
        decisions[row.rpartition("#")[2]] = label
    return decisions
