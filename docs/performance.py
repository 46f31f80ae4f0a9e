"""Put what benchmarks found into the pages: their tables, and the plots in docs/performance/.

    cd tests && python -m benchmarks --growth --json FILE
    python docs/performance.py FILE

In a page, `<!-- found NAME -->` is followed by the tables of the benchmark NAME, up to
`<!-- end -->`. A benchmark that FILE does not have stays as it is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = (DOCS / "performance.md", DOCS / "scale" / "thousand-nodes.md")
PLOTS = DOCS / "performance"
BLOCK = re.compile(r"(<!-- found (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def places(page: Path) -> set[str]:
    """Return the names of the benchmarks that a page has a place for."""
    return {match[2] for match in BLOCK.finditer(page.read_text(encoding="utf-8"))}


def filled(page: Path, found: Mapping[str, Any]) -> str:
    """Return the text of a page with the tables of those benchmarks in `found` that it has."""
    plots = os.path.relpath(PLOTS, page.parent)
    return BLOCK.sub(
        lambda match: (
            match[1] + block(match[2], found[match[2]], plots) + match[3]
            if match[2] in found
            else match[0]
        ),
        page.read_text(encoding="utf-8"),
    )


def block(name: str, found: Mapping[str, Any], plots: str) -> str:
    """Return the Markdown of what one benchmark found; `plots` is the folder of its pictures."""
    lines = ["", "| what | against | ours | theirs | | ratio | goal |", "| --- " * 7 + "|"]
    for row in found["rows"]:
        ratio = f"{row['ratio']:{'.2f' if row['ratio'] >= 0.1 else '.1g'}}x"
        goal = row["goal"] or ""
        if row["met"] is False:
            ratio, goal = f"**{ratio}**", f"{goal}, missed"
        cells = row["what"], row["against"], number(row["ours"]), number(row["theirs"]), row["unit"]
        lines.append(f"| {' | '.join(cells)} | {ratio} | {goal} |")
    lines.append("")
    lines += [f"- {row['what']}: {row['note']}" for row in found["rows"] if row["note"]]
    for index, growth in enumerate(found["growth"]):
        picture = f"{name}-{index + 1}.svg"
        lines += ["", f"![{growth['what']}]({plots}/{picture})", "", sentence(growth)]
    return "\n".join([*lines, "", measured(found), ""])


def measured(found: Mapping[str, Any]) -> str:
    """Return when and on what a benchmark ran."""
    machine, settings = found["machine"], found["settings"]
    clock = "CPU seconds" if settings["clock"] == "cpu" else "seconds on the wall"
    return (
        f"{found['at']}, {machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}, {clock}, {settings['rounds']} rounds.\n"
    )


def sentence(growth: Mapping[str, Any]) -> str:
    """Return what the last doubling multiplies the cost by, for each curve."""
    step = growth["values"][-1] / growth["values"][-2]
    times = [f"{curve[-1] / curve[-2]:.2f} ({name})" for name, curve in growth["curves"].items()]
    what = growth["what"][0].upper() + growth["what"][1:]
    verb = "give" if growth["unit"].endswith("/s") else "cost"
    more = f"{step:.3g} times the {growth['variable']} {verb} {', '.join(times)} times as much"
    note = f" Note: {growth['note']}." if growth["note"] else ""
    return f"{what}: at the end of the curve, {more}.{note}"


def number(value: float) -> str:
    """Return a number with three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot(growth: Mapping[str, Any], file: Path) -> None:
    """Draw the curves of one cost, both axes logarithmic, so that a power is a straight line."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    # Text stays text, and the same numbers make the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "crucible", "font.size": 9}):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        axes = figure.subplots()
        for (name, curve), mark in zip(growth["curves"].items(), "os^Dvx*+", strict=False):
            axes.plot(growth["values"], curve, marker=mark, markersize=4, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(growth["values"], [short(value) for value in growth["values"]])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.minorticks_off()
        axes.set_xlabel(growth["variable"])
        axes.set_ylabel(growth["unit"])
        axes.set_title(growth["what"], fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})


def short(value: float) -> str:
    """Return a number for an axis: 65536 as 65.5k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return f"{value:g}"


def main(files: Sequence[str]) -> int:
    found = {
        name: part for file in files for name, part in json.loads(Path(file).read_text()).items()
    }
    if missing := found.keys() - {name for page in PAGES for name in places(page)}:
        sys.exit(f"no page has a place for {', '.join(sorted(missing))}")
    for page in PAGES:
        page.write_text(filled(page, found), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, part in found.items():
        for index, growth in enumerate(part["growth"]):
            plot(growth, PLOTS / f"{name}-{index + 1}.svg")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
