"""A report's numbers as JSON, CSV and LaTeX; they hold no sentence of the table.

    communique eval report test.jsonl --out report/      # report.json, report.csv, report.tex

The CSV is long: one number a row with its interval, an empty cell where it is not estimable.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from communique.eval.resample import Number
from communique.eval.verdict import verdict
from communique.eval.views import NAMES, SystemScores, counts_of

if TYPE_CHECKING:
    from communique.eval.label_issues import Doubts
    from communique.eval.report import Report

SCHEMA = "communique-report-2"
_MEANS = ("macro4", "macro5", "accuracy", "weighted4", "weighted5", "weighted_accuracy")
_COLUMNS = ("view", "name", "label", "metric", "value", "low", "high", "n")
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def numbers(report: Report) -> dict[str, Any]:
    """Every number of the report as plain JSON values; null where not estimable."""
    table = report.table
    return {
        "schema": SCHEMA,
        "head": {
            **asdict(report.head),
            "model": table.name,
            "rows": len(table.rows),
            "documents": len(set(table.documents)),
            "gold_sha256": table.gold_sha256,
            "random_rows": report.random.rows,
            "threshold": table.threshold,
            "label_weights": list(table.label_weights),
            "settings": asdict(report.settings),
        },
        "verdict": verdict(report),
        "label_order": list(NAMES),
        "support": report.support.tolist(),
        "random_by_label": {
            name: {"sentences": n, "documents": m, "enough": name in report.random.labels}
            for name, (n, m) in report.random.by_label.items()
        },
        "systems": [_system(system) for system in report.systems],
        "less_baseline_macro4": {name: gap.to_json() for name, gap in report.gaps.items()},
        "ceiling_f1": {n: e.to_json() for n, e in report.ceiling.items()} if report.ceiling else None,
        "confusion": report.counts.tolist(),
        "calibration": {
            "ece": report.ece,
            "brier": report.brier,
            "bins": [asdict(b) for b in report.bins],
            "risk_coverage": [asdict(k) for k in report.curve],
            "at_threshold": asdict(report.threshold) if report.threshold else None,
        },
        "slices": [asdict(s) for s in report.slices],
        "comparisons": [
            {**{k: v for k, v in asdict(c).items() if k != "changed"}, "changed": len(c.changed)}
            for c in report.comparisons
        ],
        "wrong": [
            {"doc_id": e.row.doc_id, "sent_id": e.row.sent_id, "gold": e.row.gold, "found": e.found}
            for e in report.wrong
        ],
        "label_issues": None if report.doubts is None else _doubts(report.doubts),
        "tables": _tables(report),
        "conformal": None
        if report.conformal is None
        else {"calibration_rows": report.calibration_rows, "levels": [asdict(c) for c in report.conformal]},
        "decay_accuracy_a_year": report.decay.to_json(),
        "results": [asdict(r) for r in report.results],
        "sentences_per_second": report.speed,
        "behaviour": {k: report.behaviour[k] for k in ("model", "all", "families")}
        if report.behaviour
        else None,
    }


def _doubts(doubts: Doubts) -> dict[str, Any]:
    candidates = [
        {"doc_id": c.row.doc_id, "sent_id": c.row.sent_id, "gold": c.row.gold, "likely": c.likely}
        for c in doubts.candidates
    ]
    return {"rows": doubts.rows, "candidates": candidates}


def _tables(report: Report) -> dict[str, list[int]]:
    """Document -> its confusion table, 25 counts, rows the truth: what a paired comparison needs."""
    names = sorted(set(report.table.documents))
    counts = counts_of(report.table, report.table.found).astype(int)
    return {name: table.reshape(-1).tolist() for name, table in zip(names, counts, strict=True)}


def _system(system: SystemScores) -> dict[str, Any]:
    means = {name: getattr(system, name).to_json() for name in _MEANS}
    each = {
        metric: {label: n.to_json() for label, n in getattr(system, metric).items()}
        for metric in ("precision", "recall", "f1", "weighted_f1")
    }
    return {"name": system.name, **means, **each}


def to_json(plain: dict[str, Any]) -> str:
    """As text; a NaN would be an error here rather than a lie in the file."""
    return json.dumps(plain, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def to_csv(report: Report) -> str:
    """One number a row: view, name, label, metric, value, low, high, n."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_lines(report))
    return file.getvalue()


def _lines(report: Report) -> Iterator[list[Any]]:
    rows, support = len(report.table.rows), dict(zip(NAMES, report.support.tolist(), strict=True))
    for system in report.systems:
        for metric in _MEANS:
            n = report.random.rows if metric.startswith("weighted") else rows
            yield ["scores", system.name, "", metric, *_three(getattr(system, metric)), n]
        for metric in ("precision", "recall", "f1"):
            for label, number in getattr(system, metric).items():
                yield ["scores", system.name, label, metric, *_three(number), support[label]]
        for label, number in system.weighted_f1.items():
            n = report.random.by_label[label][0]
            yield ["scores", system.name, label, "weighted_f1", *_three(number), n]
    for name, gap in report.gaps.items():
        yield ["less baseline", name, "", "macro4", *_three(gap), rows]
    for label, number in (report.ceiling or {}).items():
        yield ["ceiling", "annotator A against B", label, "f1", *_three(number), ""]
    for i, gold in enumerate(NAMES):
        for j, found in enumerate(NAMES):
            yield ["confusion", gold, found, "count", int(report.counts[i, j]), "", "", support[gold]]
    yield ["calibration", report.table.name, "", "ece", _cell(report.ece), "", "", rows]
    yield ["calibration", report.table.name, "", "brier", _cell(report.brier), "", "", rows]
    for level in report.conformal or ():
        for name, held in {**level.coverage, "all": level.overall}.items():
            yield ["conformal", f"{level.nominal:.0%}", name, "coverage", *_three(held), rows]
        for metric in ("size", "single", "empty"):
            value = _cell(getattr(level, metric))
            yield ["conformal", f"{level.nominal:.0%}", "", metric, value, "", "", rows]
    yield ["generalisation", "decay", "", "accuracy_a_year", *_three(report.decay), rows]
    for r in report.results:
        yield ["generalisation", f"{r.name}: {r.rows_per_point}", "", "macro4", *_three(r.score), r.n]
        for metric in ("seconds", "energy_kwh"):
            value = _cell(getattr(r, metric))
            yield ["generalisation", f"{r.name}: {r.rows_per_point}", "", metric, value, "", "", r.n]
    for s in report.slices:
        for metric in ("accuracy", "macro", "gap"):
            yield [f"slice {s.by}", s.name, "", metric, *_three(getattr(s, metric)), s.n]
    for c in report.comparisons:
        for metric in ("macro4", "macro5", "accuracy"):
            yield ["comparison", f"{c.first} less {c.other}", "", metric, *_three(getattr(c, metric)), rows]
        yield ["comparison", f"{c.first} less {c.other}", "", "mcnemar_p", _cell(c.p_value), "", "", rows]
    for f in report.behaviour["families"] if report.behaviour else ():
        for metric in ("pass_rate", "consistency"):
            yield ["behaviour", f["name"], f["relation"], metric, *_three(Number(**f[metric])), f["pairs"]]


def _three(number: Number) -> list[str]:
    return [_cell(number.value), _cell(number.low), _cell(number.high)]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def to_latex(report: Report) -> str:
    """The main table: every system's F1 by label and both means, for `booktabs`."""
    columns = "l" + "r" * (len(NAMES) + 2)
    lines = [
        "% needs \\usepackage{booktabs}; 95 % intervals from resampled documents",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(["system", *NAMES, "macro (4)", "macro (5)"]) + r" \\",
        "\\midrule",
    ]
    lines += [
        " & ".join([tex(s.name), *(_tex_number(n) for n in (*s.f1.values(), s.macro4, s.macro5))]) + r" \\"
        for s in report.systems
    ]
    lines += ["\\midrule", " & ".join(["sentences", *(f"{n}" for n in report.support), "", ""]) + r" \\"]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _tex_number(number: Number) -> str:
    if number.value is None:
        return "--"
    if number.low is None or number.high is None:
        return f"{number.value:.3f}"
    return f"{number.value:.3f} {{\\footnotesize [{number.low:.3f}, {number.high:.3f}]}}"


def tex(words: str) -> str:
    """Words with LaTeX's special characters escaped."""
    return re.sub(r"[\\~^#$%&_{}]", lambda m: _TEX.get(m[0], "\\" + m[0]), words)
