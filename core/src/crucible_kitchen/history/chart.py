"""Curves as SVG: lines, ticks and a title, in the colours of the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..messages.printable import printable
from .curves import Curve, Values

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 10, 24
DOTS = 40
"""A curve of at most so many points shows each of them."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The range of an axis, and where it is labelled.

    Args:
        low: the value at its beginning.
        high: the value at its end; more than `low`.
        ticks: values that are labelled, with their labels.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def share(self, values: Values) -> Values:
        """Return how far along the axis values are, 0 to 1; same shape."""
        half = self.high / 2 - self.low / 2  # the difference of large numbers may be infinite
        return np.asarray((values / 2 - self.low / 2) / half, np.float64)


def axis(low: float, high: float, whole: bool = False) -> Axis:
    """Return an axis from `low` to `high` with round labels, of whole numbers if so wanted."""
    if not high > low:
        pad = abs(low) * 0.05 or 1.0
        low, high = (low - pad, high + pad) if not whole else (low, low + 1)
    step = _nice(high / 5 - low / 5)  # five or fewer intervals
    if whole:
        step = max(step, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # A step that is less than the spacing of floats around the values gives no distinct ticks.
    values = [n * step for n in range(first, last + 1)] if last - first <= 20 else [low, high]
    return Axis(low, high, list(zip(values, _labels(values, step), strict=True)))


def _nice(size: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `size`."""
    if not size > 0 or not math.isfinite(size):
        return 1.0
    power = 10.0 ** max(math.floor(math.log10(size)), -300)
    return next((n * power for n in (1, 2, 5) if n * power >= size), 10 * power)


def _labels(values: Sequence[float], step: float) -> list[str]:
    """Return short labels that differ where the values do."""
    largest = max(map(abs, values), default=0.0)
    digits = max(3, math.ceil(math.log10(largest / step)) + 1) if largest and step else 3
    return [_thousands(value, min(digits, 15)) for value in values]


def _thousands(value: float, digits: int) -> str:
    if 10_000 <= abs(value) < 1e9:
        unit, size = ("M", 1e6) if abs(value) >= 1e6 else ("k", 1e3)
        return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def ranges(curves: Sequence[Curve]) -> tuple[Axis, Axis]:
    """Return the axes of steps and of values that several curves share."""
    steps = np.concatenate([curve.steps for curve in curves])
    values = np.concatenate([curve.values for curve in curves])
    if not len(steps):
        return axis(0, 1, whole=True), axis(0.0, 1.0)
    x = axis(float(steps.min()), float(steps.max()), whole=True)
    low, high = float(values.min()), float(values.max())
    margin = high / 20 - low / 20
    return x, axis(low - margin, high + margin)


def svg(metric: str, curves: Sequence[tuple[int, Curve]]) -> str:
    """Return curves of one metric as an SVG element.

    Args:
        metric: its name, for those who hear the page.
        curves: with the number of the run, which chooses the colour: the classes `run0` to `run7`.
    """
    x, y = ranges([curve for _, curve in curves])
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    name = html.escape(printable(metric))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">']
    for value, label in y.ticks:
        at = TOP + inner_height * (1 - float(y.share(np.array(value))))
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{at + 4:.1f}">{label}</text>')
    for value, label in x.ticks:
        at = LEFT + inner_width * float(x.share(np.array(value)))
        parts.append(f'<text class="x" x="{at:.1f}" y="{HEIGHT - 6}">{label}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    for run, curve in curves:
        if not len(curve.steps):
            continue
        across = LEFT + inner_width * x.share(curve.steps.astype(np.float64))
        down = TOP + inner_height * (1 - y.share(curve.values))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        parts.append(f'<polyline class="curve run{run % 8}" points="{points}"/>')
        if len(curve.steps) <= DOTS:
            parts += [
                f'<circle class="dot run{run % 8}" cx="{a:.1f}" cy="{b:.1f}" r="2.5">'
                f"<title>step {step}: {value:.6g}</title></circle>"
                for a, b, step, value in zip(across, down, curve.steps, curve.values, strict=True)
            ]
    return "".join([*parts, "</svg>"])
