"""Draws curves as an SVG of small panels, both axes logarithmic and each point with its number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from scripts.bench_figures import format_number

PANEL_WIDTH: Final = 400
PANEL_HEIGHT: Final = 250
COLUMNS: Final = 2
LEFT, RIGHT, TOP, BOTTOM = 24, 40, 52, 40
COLOURS: Final = ("#1f5fa8", "#a8651f")
STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:10px}"
    ".axis{stroke:#999;fill:none}.curve{stroke-width:2;fill:none}"
)


@dataclass(frozen=True)
class Curve:
    """One line: a name, and points of positive numbers in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: what is shown, with the unit of y.
        x_name: what grows.
        curves: at most as many as there are COLOURS, each with at least one point.
    """

    title: str
    x_name: str
    curves: Sequence[Curve]


def draw(panels: Sequence[Panel], caption: str) -> str:
    """The SVG's text.

    Args:
        panels: from left to right and from top to bottom.
        caption: one line at the bottom, such as where this was measured.
    """
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH, rows * PANEL_HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * PANEL_WIDTH, number // COLUMNS * PANEL_HEIGHT
        parts.append(f'<g transform="translate({x},{y})">{_draw_panel(panel)}</g>')
    parts.append(f'<text class="small" x="{LEFT}" y="{height - 8}">{escape(caption)}</text></svg>')
    return "\n".join(parts) + "\n"


def _draw_panel(panel: Panel) -> str:
    points = [point for curve in panel.curves for point in curve.points]
    across = _Scale([x for x, _ in points], LEFT, PANEL_WIDTH - RIGHT)
    up = _Scale([y for _, y in points], PANEL_HEIGHT - BOTTOM - 8, TOP + 16)
    parts = [
        f'<text class="title" x="{LEFT}" y="18">{escape(panel.title)}</text>',
        f'<path class="axis" d="M{LEFT} {TOP}V{PANEL_HEIGHT - BOTTOM}H{PANEL_WIDTH - RIGHT}"/>',
        f'<text class="small" x="{PANEL_WIDTH - RIGHT}" y="{PANEL_HEIGHT - 8}" text-anchor="end">{escape(panel.x_name)}</text>',
    ]
    for x in sorted({x for x, _ in points}):
        parts.append(
            f'<text class="small" x="{across.at(x):.1f}" y="{PANEL_HEIGHT - BOTTOM + 14}" text-anchor="middle">'
            f"{format_number(x)}</text>"
        )
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number]
        places = [(across.at(x), up.at(y), y) for x, y in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<polyline class="curve" stroke="{colour}" points="{line}"/>')
        parts.append(f'<text x="{LEFT + 8 + 170 * number}" y="36" style="fill:{colour}">{escape(curve.name)}</text>')
        for x, y, value in places:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            parts.append(f'<text class="small" x="{x + 5:.1f}" y="{y - 6:.1f}">{format_number(value)}</text>')
    return "".join(parts)


class _Scale:
    """Where numbers lie between two places, by their logarithms; in the middle if all are equal."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self._low, self._high = math.log(min(values)), math.log(max(values))
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        """The place of a number."""
        reach = self._high - self._low
        part = (math.log(value) - self._low) / reach if reach else 0.5
        return self._first + part * (self._last - self._first)
