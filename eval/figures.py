"""Figures as inline SVG: no script, no font, no file beside the page; legible in print and without colour.

    svg = dot_plot("F1 by label", [Dot("demand", Number(0.8, 0.75, 0.85))])

Blue and vermilion are those of Okabe and Ito (2008), told apart by all common kinds of colour blindness;
whatever colour says, shape or dash says too. Each figure is 420 units wide, so that its type stays legible
on a phone, and has a title and a description for screen readers. All words are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from communique.eval.metrics import Ints
from communique.eval.resample import Number
from communique.eval.views import NAMES, Bin, Kept

BLUE, ORANGE, GREY, LIGHT = "#0072B2", "#D55E00", "#555555", "#D9D9D9"
WIDTH = 420
_TICKS = (0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25)
"""Shares between two lines of a share chart."""
_LEFT, _TOP, _SIDE = 52, 12, 330
"""Where a square plot begins, and its side."""


@dataclass(frozen=True)
class Dot:
    """A line of a dot plot; `filled` marks the one that the figure is about."""

    name: str
    number: Number
    filled: bool = True


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'font-family="inherit" font-size="13" fill="#1a1a1a">'
    )
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<desc>{escape(description)}</desc>", *parts, "</svg>"]
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str = GREY, width: float = 1, dash: str = ""
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def _dot(x: float, y: float, filled: bool, colour: str = BLUE) -> str:
    if filled:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    return (
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="#fff" stroke="{colour}" '
        'stroke-width="2"/>'
    )


def dot_plot(title: str, dots: Sequence[Dot], low: float = 0.0, high: float = 1.0) -> str:
    """Values with their intervals on one axis from `low` to `high`, one a line, named at the left."""
    left, right, step = 184, WIDTH - 18, 26
    bottom = 8 + step * len(dots)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    parts = []
    for i in range(5):
        value = low + (high - low) * i / 4
        parts += [_line(x(value), 4, x(value), bottom, LIGHT)]
        parts += [_text(x(value), bottom + 18, f"{value:.2f}", "middle")]
    for i, dot in enumerate(dots):
        y = 8 + step * (i + 0.5)
        name = dot.name if len(dot.name) <= 24 else dot.name[:23] + "…"
        parts.append(_text(left - 10, y + 4.5, name, "end", ' font-size="12"'))
        n = dot.number
        if n.value is None:
            parts.append(_text(left + 6, y + 4.5, "not estimable", more=' font-style="italic"'))
            continue
        colour = BLUE if dot.filled else ORANGE
        if n.low is not None and n.high is not None:
            parts.append(_line(x(n.low), y, x(n.high), y, colour, 2.5))
        parts.append(_dot(x(n.value), y, dot.filled, colour))
    described = "; ".join(f"{dot.name} {shown(dot.number)}" for dot in dots)
    return _svg(title, described, bottom + 26, parts)


def shown(number: Number) -> str:
    """A number as it is printed: value and interval, or "not estimable"."""
    if number.value is None:
        return "not estimable"
    if number.low is None or number.high is None:
        return f"{number.value:.3f}"
    return f"{number.value:.3f} [{number.low:.3f}, {number.high:.3f}]"


def confusion_map(counts: Ints) -> str:
    """Row shares as shades with counts written in; rows are the truth. `counts` is (5, 5)."""
    left, top, cell = 92, 30, 62
    totals = counts.sum(axis=1)
    parts = [_text(left + cell * 2.5, 12, "label given", "middle", ' font-style="italic"')]
    for i, name in enumerate(NAMES):
        parts.append(_text(left + cell * (i + 0.5), top - 4, name, "middle", ' font-size="10"'))
        parts.append(_text(left - 8, top + cell * (i + 0.5) + 4, name, "end"))
        for j in range(len(NAMES)):
            share = counts[i, j] / totals[i] if totals[i] else 0.0
            x, y = left + cell * j, top + cell * i
            ink = "#ffffff" if share > 0.55 else "#1a1a1a"
            border = ' stroke-width="2.5"' if i == j else ' stroke-width="0.8"'
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="{BLUE}" '
                f'fill-opacity="{share:.3f}" stroke="{GREY}"{border}/>'
            )
            middle = x + cell / 2
            parts.append(_text(middle, y + 28, f"{counts[i, j]:,}", "middle", f' fill="{ink}"'))
            if totals[i]:
                small = f' fill="{ink}" font-size="11"'
                parts.append(_text(middle, y + 45, f"{share:.0%}", "middle", small))
    described = "; ".join(
        f"{name}: " + ", ".join(f"{NAMES[j]} {counts[i, j]}" for j in range(len(NAMES)))
        for i, name in enumerate(NAMES)
    )
    return _svg("Confusion: truth down, label given across", described, top + cell * 5 + 8, parts)


def _square(across: str, down: str, highest: float = 1.0) -> list[str]:
    """Axes of a square plot, 0 to 1 across and 0 to `highest` up."""
    parts = []
    for i in range(6):
        at = i / 5
        x, y = _LEFT + at * _SIDE, _TOP + (1 - at) * _SIDE
        parts += [_line(x, _TOP, x, _TOP + _SIDE, LIGHT), _line(_LEFT, y, _LEFT + _SIDE, y, LIGHT)]
        parts += [_text(x, _TOP + _SIDE + 18, f"{at:.1f}", "middle")]
        parts += [_text(_LEFT - 6, y + 4.5, f"{at * highest:.2f}", "end")]
    parts.append(_text(_LEFT + _SIDE / 2, _TOP + _SIDE + 38, across, "middle", ' font-style="italic"'))
    middle = _TOP + _SIDE / 2
    turned = f' font-style="italic" transform="rotate(-90 12 {middle:g})"'
    parts.append(_text(12, middle, down, "middle", turned))
    return parts


def reliability_diagram(bins: Sequence[Bin]) -> str:
    """How often right against how sure; on the dashed diagonal the two agree."""

    def at(confidence: float, accuracy: float) -> tuple[float, float]:
        return _LEFT + confidence * _SIDE, _TOP + (1 - accuracy) * _SIDE

    parts = _square("probability of the most probable label", "share right")
    parts.append(_line(*at(0, 0), *at(1, 1), GREY, 1.5, "6 4"))
    points = [at(b.confidence, b.accuracy) for b in bins]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>')
    parts += [_dot(x, y, filled=True) for x, y in points]
    described = "; ".join(f"confidence {b.confidence:.2f}, right {b.accuracy:.2f} of {b.n}" for b in bins)
    return _svg("Reliability diagram", described, _TOP + _SIDE + 46, parts)


def risk_coverage_curve(curve: Sequence[Kept], mark: Kept | None) -> str:
    """Share wrong against share kept; the square is the abstention threshold."""
    highest = max([0.1, *(k.risk for k in curve)])
    highest = min(1.0, -(-highest // 0.1) * 0.1)

    def at(kept: Kept) -> tuple[float, float]:
        return _LEFT + kept.coverage * _SIDE, _TOP + (1 - min(kept.risk / highest, 1)) * _SIDE

    parts = _square("share of sentences kept, surest first", "share of the kept that is wrong", highest)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, curve))
    parts.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>')
    described = f"all kept: {curve[-1].risk:.3f} wrong"
    if mark:
        x, y = at(mark)
        parts.append(_line(x, y, x, _TOP + _SIDE, ORANGE, 1.5, "3 3"))
        parts.append(_dot(x, y, filled=False, colour=ORANGE))
        words = f"threshold {mark.confidence:.2f}"
        near_edge = mark.coverage > 0.6
        anchor = "end" if near_edge else "start"
        parts.append(_text(x - 10 if near_edge else x + 10, y - 8, words, anchor))
        described += f"; at the threshold {mark.coverage:.3f} kept, {mark.risk:.3f} of them wrong"
    return _svg("Risk-coverage curve", described, _TOP + _SIDE + 46, parts)


@dataclass(frozen=True)
class Series:
    """One method's numbers in a chart of groups, with its colour and its shape."""

    name: str
    colour: str
    shape: str
    """circle, square, diamond or cross."""
    numbers: Sequence[Number]


def _mark(x: float, y: float, shape: str, colour: str) -> str:
    if shape == "circle":
        return _dot(x, y, filled=True, colour=colour)
    if shape == "square":
        return _dot(x, y, filled=False, colour=colour)
    if shape == "diamond":
        points = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
        return f'<polygon points="{points}" fill="#fff" stroke="{colour}" stroke-width="2"/>'
    return _line(x - 4, y - 4, x + 4, y + 4, colour, 2) + _line(x - 4, y + 4, x + 4, y - 4, colour, 2)


def share_chart(title: str, groups: Sequence[str], panels: Mapping[str, Sequence[Series]]) -> str:
    """A panel for each label, a band for each group, a line for each series; shares from 0 up."""
    series, step = next(iter(panels.values())), 11
    left, right = 124.0, WIDTH - 18.0
    band = step * len(series) + 8
    parts, top, described = [], 22.0 + 18 * ((len(series) + 1) // 2), []
    for i, s in enumerate(series):
        x, y = 12.0 + 204 * (i % 2), 14.0 + 18 * (i // 2)
        parts += [_mark(x, y - 4, s.shape, s.colour), _text(x + 12, y, s.name)]
    for label, drawn in panels.items():
        tops = [n.high or n.value for s in drawn for n in s.numbers if n.value is not None]
        most = max([0.01, *(v for v in tops if v is not None)])
        highest = next(step for step in _TICKS if step * 4 >= most) * 4
        bottom = top + 24 + band * len(groups)
        parts.append(_text(8, top + 12, label, more=' font-weight="bold"'))
        for i in range(5):
            x = left + (right - left) * i / 4
            words = f"{highest * i / 4 * 100:g}%"
            parts += [_line(x, top + 20, x, bottom, LIGHT), _text(x, bottom + 14, words, "middle")]
        for g, name in enumerate(groups):
            start = top + 24 + band * g
            short = name if len(name) <= 17 else name[:16] + "…"
            parts.append(_text(left - 8, start + band / 2, short, "end", ' font-size="12"'))
            parts.append(_line(8, start + band - 2, right, start + band - 2, LIGHT, 0.5))
            for i, s in enumerate(drawn):
                n, at = s.numbers[g], start + step * (i + 0.5)
                if n.value is None:
                    continue
                low, value, high = (
                    left + min(v, highest) / highest * (right - left) if v is not None else None
                    for v in (n.low, n.value, n.high)
                )
                if low is not None and high is not None:
                    parts.append(_line(low, at, high, at, s.colour, 2))
                parts.append(_mark(value or left, at, s.shape, s.colour))
                described.append(f"{label}, {name}, {s.name}: {shown(n)}")
        top = bottom + 34
    return _svg(title, "; ".join(described), top, parts)


def curve_plot(points: Sequence[tuple[int, Number]]) -> str:
    """Score against rows trained on (log scale), with intervals; up to 12 points, fewest rows first."""
    from math import log2

    xs = [log2(max(rows, 1)) for rows, _ in points]
    spread = (max(xs) - min(xs)) or 1.0
    parts = []
    for i in range(6):
        y = _TOP + (1 - i / 5) * _SIDE
        parts += [_line(_LEFT, y, _LEFT + _SIDE, y, LIGHT), _text(_LEFT - 6, y + 4.5, f"{i / 5:.1f}", "end")]
    places = []
    for x, (rows, n) in zip(xs, points, strict=True):
        across = _LEFT + 16 + (x - min(xs)) / spread * (_SIDE - 32)

        def up(value: float) -> float:
            return _TOP + (1 - min(max(value, 0), 1)) * _SIDE

        parts.append(_text(across, _TOP + _SIDE + 18, f"{rows:,}", "middle", ' font-size="11"'))
        if n.low is not None and n.high is not None:
            parts.append(_line(across, up(n.low), across, up(n.high), BLUE, 2))
        places.append((across, up(n.value or 0.0)))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>')
    parts += [_dot(x, y, filled=True) for x, y in places]
    words = "rows trained on (log scale)"
    parts.append(_text(_LEFT + _SIDE / 2, _TOP + _SIDE + 38, words, "middle", ' font-style="italic"'))
    described = "; ".join(f"{rows} rows: {shown(n)}" for rows, n in points)
    return _svg("Learning curve: macro-F1 of the four stances", described, _TOP + _SIDE + 46, parts)
