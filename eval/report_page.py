"""The report as files: the page, which opens offline, and its numbers as JSON, CSV and LaTeX.

    write(build([table], head), Path("report/"))

The page never shows NaN, and all words in it are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from communique.eval import figures, generalise, slices, views
from communique.eval.exports import numbers, to_csv, to_json, to_latex
from communique.eval.report import Report
from communique.eval.resample import Number
from communique.eval.verdict import verdict
from communique.eval.views import NAMES
from communique.model.jsonl import write_text

TEMPLATES = Path(__file__).resolve().parent / "templates"
DOUBTS_SHOWN = 20
"""Labels worth a second look that are listed; `communique data queue` writes them all."""
FILES = ("report.html", "report.json", "report.csv", "report.tex")


def write(report: Report, folder: Path) -> list[Path]:
    """Write the page and its numbers into a folder; each file whole or not at all."""
    plain = numbers(report)
    contents = (page(report), to_json(plain), to_csv(report), to_latex(report))
    paths = [folder / name for name in FILES]
    for path, content in zip(paths, contents, strict=True):
        write_text(path, content)
    return paths


def page(report: Report) -> str:
    """The HTML page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"share": _share, "p": _p_value, "number": _number}
    drawn = {name: Markup(svg) for name, svg in _figures(report).items()}
    return env.get_template("report.html").render(
        r=report,
        names=NAMES,
        figures=drawn,
        verdict=verdict(report),
        samples=views.sampled(report.table.rows),
        large=[s for s in report.slices if s.scored],
        small=[s for s in report.slices if not s.scored],
        weak=[s for s in report.slices if s.weak],
        weakest=slices.weakest(report.slices),
        tested=sum(s.p_value is not None for s in report.slices),
        doubts_shown=DOUBTS_SHOWN,
        min_documents=slices.MIN_DOCUMENTS,
        min_weighted=views.MIN_WEIGHTED,
        min_label=(views.MIN_LABEL_ROWS, views.MIN_LABEL_DOCUMENTS),
        held_out=[r for n in generalise.NAMES[:3] for r in generalise.of(report.results, n)],
        curve=generalise.of(report.results, "curve"),
        doubling=generalise.per_doubling(report.results),
    )


def _share(value: float | None) -> str:
    return "not estimable" if value is None else f"{value:.1%}"


def _number(plain: Mapping[str, float | None]) -> Number:
    return Number(**plain)


def _p_value(value: float | None) -> str:
    if value is None:
        return "not estimable"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _figures(report: Report) -> dict[str, str]:
    model = report.systems[0]
    dots = [figures.Dot(name, model.f1[name]) for name in NAMES]
    if report.ceiling:
        for at, name in reversed(list(enumerate(NAMES, 1))):
            dots.insert(at, figures.Dot("A against B", report.ceiling[name], filled=False))
    named = {s.name: s for s in report.systems}
    rivals = [figures.Dot(n, s.macro4, filled=n not in report.baselines) for n, s in named.items()]
    drawn = {
        "labels": figures.dot_plot("F1 of each label", dots),
        "systems": figures.dot_plot("Macro-F1 of the four stances", rivals),
        "confusion": figures.confusion_map(report.counts),
        "reliability": figures.reliability_diagram(report.bins),
        "risk": figures.risk_coverage_curve(report.curve, report.threshold),
        "slices": figures.dot_plot(
            "Accuracy of the weakest slices",
            [figures.Dot(f"{s.by}: {s.name}", s.accuracy, s.weak) for s in slices.weakest(report.slices)],
        ),
    }
    curve = [r for r in generalise.of(report.results, "curve") if r.score.value is not None]
    if curve:
        drawn["curve"] = figures.curve_plot([(r.train_rows, r.score) for r in curve])
    if report.behaviour:
        families = report.behaviour["families"]
        drawn["behaviour"] = figures.dot_plot(
            "Pass rate of each family of pairs",
            [figures.Dot(f"{f['name']} ({f['relation']})", Number(**f["pass_rate"])) for f in families],
        )
    return drawn
