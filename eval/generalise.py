"""How far a score carries: issuers and years that were not trained on, decay, and what more rows would buy.

    results = read_results(Path("results.json"))
    decay(table, resampler)                # change of accuracy a year, from the table itself

A results file is a JSON list of trainings, one object each: `name` (leave-issuer-out, latest-years, random
or curve), `held_out` (what was: an issuer, years, a split), `train_rows`, `macro_f1` with `low` and `high`
(null where not estimable), `n` (sentences scored), `seconds` (of training, or null). It may have `energy_kwh`
(of training, as the `manifest.json` of `communique train` has it; null where it was not measured).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from communique.eval.metrics import Floats
from communique.eval.resample import UNKNOWN, Number, Resampler
from communique.eval.table import Table, is_number
from communique.model.errors import InputError

NAMES = ("leave-issuer-out", "latest-years", "random", "curve")
_FIELDS = ("name", "held_out", "train_rows", "macro_f1", "low", "high", "n", "seconds")
MIN_YEARS = 3
"""Years below which no decay is estimated."""


@dataclass(frozen=True)
class Result:
    """A training with something held out, and its score there."""

    name: str
    held_out: str
    train_rows: int
    score: Number
    """Macro-F1 of the four stances."""
    n: int
    seconds: float | None
    energy_kwh: float | None = None
    """Of training, in kWh; None where it was not measured."""

    @property
    def rows_per_point(self) -> str:
        """For tables: what was held out, or how many rows were trained on."""
        return f"{self.train_rows:,} rows" if self.name == "curve" else self.held_out


def read_results(path: Path) -> list[Result]:
    """Read and check a results file.

    Raises:
        InputError: it cannot be read, or an entry cannot be used; the message has its number.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}): name a JSON list of results") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a JSON list of results, not empty")
    return [_result(entry, f"{path.name}, entry {i}") for i, entry in enumerate(entries, 1)]


def _result(entry: Any, place: str) -> Result:  # noqa: ANN401  whatever the file holds
    if not isinstance(entry, dict) or set(_FIELDS) - set(entry):
        missing = sorted(set(_FIELDS) - set(entry)) if isinstance(entry, dict) else list(_FIELDS)
        raise InputError(f"{place}: no field {', '.join(missing)}")
    if entry["name"] not in NAMES:
        raise InputError(f"{place}: name is {entry['name']!r}: use one of {', '.join(NAMES)}")
    for name in ("train_rows", "n"):
        if not isinstance(entry[name], int) or isinstance(entry[name], bool) or entry[name] < 0:
            raise InputError(f"{place}: {name} is {entry[name]!r}: expected a whole number from 0")
    for name in ("macro_f1", "low", "high", "seconds"):
        if entry[name] is not None and not is_number(entry[name]):
            raise InputError(f"{place}: {name} is {entry[name]!r}: expected a number, or null")
    energy = entry.get("energy_kwh")
    if energy is not None and (not is_number(energy) or energy < 0):
        raise InputError(f"{place}: energy_kwh is {energy!r}: expected a number from 0, or null")
    score = Number(*(None if entry[k] is None else float(entry[k]) for k in ("macro_f1", "low", "high")))
    named = entry["name"], str(entry["held_out"]), entry["train_rows"]
    return Result(*named, score, entry["n"], entry["seconds"], energy)


def of(results: list[Result], name: str) -> list[Result]:
    """The results of one name, by rows trained on for the curve, worst first otherwise."""
    mine = [r for r in results if r.name == name]
    if name == "curve":
        return sorted(mine, key=lambda r: r.train_rows)
    return sorted(mine, key=lambda r: -1.0 if r.score.value is None else r.score.value)


def per_doubling(results: list[Result]) -> float | None:
    """What doubling the rows added: slope of the curve's score on log2 of its rows; None below 3 points."""
    points = [(r.train_rows, r.score.value) for r in results if r.name == "curve" and r.train_rows > 0]
    known = [(np.log2(rows), value) for rows, value in points if value is not None]
    if len({x for x, _ in known}) < MIN_YEARS:
        return None
    x, y = np.array(known).T
    return float(np.polyfit(x, y, 1)[0])


def decay(table: Table, resampler: Resampler) -> Number:
    """Change of accuracy from one year to the next: least squares over sentences, documents resampled.

    Negative where later statements are labelled worse. Rows without a date are passed over.
    """
    right = (table.found == table.truth).astype(float)
    dated = [(r.doc_id, int(r.date[:4]), y) for r, y in zip(table.rows, right, strict=True) if r.date]
    if len({year for _, year, _ in dated}) < MIN_YEARS:
        return UNKNOWN
    first = min(year for _, year, _ in dated)
    names = sorted(set(table.documents))
    place = {name: i for i, name in enumerate(names)}
    sums = np.zeros((len(names), 5))  # n, x, xx, y, xy
    for name, year, y in dated:
        x = year - first
        sums[place[name]] += (1, x, x * x, y, x * y)

    def slope(totals: Floats) -> Floats:
        n, x, xx, y, xy = totals.T.astype(float)
        below = n * xx - x * x
        steep = np.divide(n * xy - x * y, below, out=np.full_like(below, np.nan), where=below > 0)
        return np.asarray(steep[:, None])

    return resampler.estimate(sums, slope)[0]
