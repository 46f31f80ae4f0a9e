"""Curves as PNG. Needs matplotlib, of the extra `plot`."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence

from ..errors import ConfigurationError
from ..messages.printable import printable
from .chart import DOTS
from .curves import Curve

COLOURS = ("#0a6ebd", "#c4500a", "#0b8457", "#a03c8c", "#8a6d00", "#5b5bd6", "#b3261e", "#4d6470")
ACROSS = 3
"""Charts in a row."""


def png(
    metrics: Sequence[str],
    of_runs: Mapping[str, Mapping[str, Curve]],
    logarithmic: Collection[str] = (),
) -> bytes:
    """Return a chart of each metric, with the curves of all runs in it, as a PNG file.

    Args:
        metrics: their names, in order; at least one.
        of_runs: the curves of each run by metric, by the run's id.
        logarithmic: the metrics whose values, which are positive, have a logarithmic axis.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ConfigurationError(
            "a PNG needs matplotlib: pip install 'crucible-kitchen[plot]'"
        ) from error
    across = min(ACROSS, len(metrics))
    down = math.ceil(len(metrics) / across)
    # Not pyplot, which would choose a window system and keep every figure.
    figure = Figure(figsize=(4.6 * across, 3.0 * down + 0.3 * len(of_runs)), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    lines = {}
    for place, metric in zip(axes, metrics, strict=False):
        # Names come from elsewhere: `$` begins a formula otherwise.
        place.set_title(printable(metric), fontsize=10, parse_math=False)
        place.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        place.grid(alpha=0.25)
        place.tick_params(labelsize=8)
        place.set_xlabel("step", fontsize=8)
        if metric in logarithmic:
            place.set_yscale("log")
        for number, (run_id, curves) in enumerate(of_runs.items()):
            if (curve := curves.get(metric)) is None:
                continue
            style = {"marker": "o", "markersize": 3} if len(curve.steps) <= DOTS else {}
            [lines[run_id]] = place.plot(
                curve.steps,
                curve.values,
                color=COLOURS[number % len(COLOURS)],
                linewidth=1.2,
                **style,
            )
    for place in axes[len(metrics) :]:
        place.set_visible(False)
    legend = figure.legend(
        lines.values(), map(printable, lines), loc="outside upper left", fontsize=9, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
