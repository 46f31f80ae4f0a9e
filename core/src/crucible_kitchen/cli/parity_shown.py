"""What `crucible parity` found, as tables, as plain data and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..history.curves import Curve
from ..parity import Compared, Report, Tolerances
from .console import say, table

HEADINGS = (
    "backend",
    "step",
    "loss",
    "loss diff",
    "norm",
    "norm diff",
    "logp diff",
    "held",
)
FIGURES = ("loss", "grad_norm", "logprobs")


def show(report: Report) -> None:
    """Print a row for each step of each backend, then what each is held to, and what is wrong."""
    table(HEADINGS, list(_rows(report)))
    say()
    table(("backend", *FIGURES, "result"), list(_summary(report)))
    say("largest difference/tolerance: loss and grad_norm relative, logprobs in nats")
    for line in _notes(report):
        say(line)


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for number, measured in enumerate(report.reference.measured):
        figures = _figure(report.loss(number, measured)), "", _figure(measured.grad_norm), "", ""
        yield report.reference.name, str(number + 1), *figures, "ref"
    for each in report.others:
        for number in range(len(each.differences)):
            yield _row(report, each, number)
        if each.backend.error is not None:
            step = str(len(each.differences) + 1)
            yield each.backend.name, step, "error", "", "", "", "", "FAIL"


def _row(report: Report, each: Compared, number: int) -> tuple[str, ...]:
    measured, known = each.backend.measured[number], each.differences[number].figures()
    held, beyond = each.held(number), each.beyond(number)

    def shown(figure: str) -> str:
        if figure not in known:
            return "-"
        text = f"{known[figure]:.1e}"
        if figure in beyond:
            return f"{text}*"
        return text if figure in held else f"({text})"

    curve = each.first_step_only and number > 0
    return (
        each.backend.name,
        str(number + 1),
        _figure(report.loss(number, measured)),
        shown("loss"),
        _figure(measured.grad_norm),
        shown("grad_norm"),
        shown("logprobs"),
        "FAIL" if beyond else "curve" if curve else "ok",
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:#.5g}"


def _summary(report: Report) -> Iterator[tuple[str, ...]]:
    yield report.reference.name, "", "", "", "reference"
    for each in report.others:
        result = "beyond" if any(each.problems()) else "within"
        if each.backend.error is not None:
            result = "error"
        elif each.first_step_only:
            result += ", step 1"
        yield each.backend.name, *(_largest(each, figure) for figure in FIGURES), result


def _largest(each: Compared, figure: str) -> str:
    steps = 1 if each.first_step_only else len(each.differences)
    found = [
        known[figure]
        for known in (d.figures() for d in each.differences[:steps])
        if figure in known
    ]
    if not found or (each.first_step_only and figure == "grad_norm"):
        return "-"
    return f"{max(found):.1e}/{getattr(each.tolerances, figure):.2g}"


def _notes(report: Report) -> Iterator[str]:
    for each in report.others:
        name, within = each.backend.name, each.tolerances
        if each.first_step_only:
            curve = [d.loss for d in each.differences[1:]]
            largest = f"; the largest is {max(curve):.2g}" if curve else ""
            yield (
                f"{name} is held to step 1: it starts from other random numbers than "
                f"{report.reference.name}. Later losses may differ by {within.curve:g}{largest}"
            )
        wide = {b.dtype for b in (each.backend, report.reference)} - {None, "float32", "float64"}
        if wide:
            yield f"{name} is compared in {' and '.join(sorted(map(str, wide)))}"
        norms = [m.grad_norm for m in (*each.backend.measured, *report.reference.measured)]
        if None in norms and each.differences:
            silent = each.backend if None in norms[: len(each.differences)] else report.reference
            yield f"{silent.name} does not say the norm of its gradient"
        problems = list(each.problems())
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            yield f"FAIL {problems[0]}{more}"
        if each.backend.error is not None and len(problems) > 1:
            yield f"FAIL {problems[-1]}"
        if each.hint:
            yield each.hint
    yield from report.doubts


def plain(report: Report) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "workflow": report.workflow,
        "reference": report.reference.name,
        "within": report.within,
        "problems": report.problems,
        "doubts": report.doubts,
        "steps": [
            {"learning_rate": step.learning_rate, "tokens": step.tokens} for step in report.steps
        ],
        "backends": [
            {
                "name": backend.name,
                "adapter": backend.adapter,
                "facts": backend.facts,
                "error": backend.error,
                "steps": [
                    {
                        "loss": report.loss(n, each),
                        "loss_sum": each.loss,
                        "grad_norm": each.grad_norm,
                    }
                    for n, each in enumerate(backend.measured)
                ],
            }
            for backend in report.backends
        ],
        "differences": {each.backend.name: _plain(report, each) for each in report.others},
    }


def _plain(report: Report, each: Compared) -> dict[str, Any]:
    return {
        "within": not any(each.problems()),
        "first_step_only": each.first_step_only,
        "reference_moved": report.moved(len(each.differences)),
        "tolerances": {name: getattr(each.tolerances, name) for name in (*FIGURES, "curve")},
        "steps": [
            {
                "loss": found.loss,
                "grad_norm": found.grad_norm,
                "logprobs": found.logprobs,
                "datum": found.datum,
                "token": found.token,
                "held": sorted(each.held(number)),
                "beyond": each.beyond(number),
            }
            for number, found in enumerate(each.differences)
        ],
    }


def picture_of(report: Report) -> bytes:
    """Return charts of the figures of every backend, and of the differences, as a PNG file."""
    from ..history import picture

    curves: dict[str, dict[str, Curve]] = {}
    for backend in report.backends:
        measured = backend.measured
        curves[backend.name] = _curves(
            {
                "loss": [report.loss(n, each) for n, each in enumerate(measured)],
                "grad_norm": [_number(each.grad_norm) for each in measured],
            }
        )
    for each in report.others:
        figures = [found.figures() for found in each.differences]
        curves[each.backend.name] |= _curves(
            {
                f"difference in {name}": [known.get(name) or math.nan for known in figures]
                for name in FIGURES
            }
        )
    for tolerances, names in _tolerances(report).items():
        label = f"tolerance of {', '.join(names)}" if len(_tolerances(report)) > 1 else "tolerance"
        curves[label] = _curves(
            {
                f"difference in {name}": [getattr(tolerances, name)] * len(report.steps)
                for name in FIGURES
            }
        )
    differences = [f"difference in {name}" for name in FIGURES]
    return picture.png(["loss", "grad_norm", *differences], curves, logarithmic=differences)


def _tolerances(report: Report) -> dict[Tolerances, list[str]]:
    """Return the backends that are held to each set of tolerances."""
    found: dict[Tolerances, list[str]] = {}
    for each in report.others:
        found.setdefault(each.tolerances, []).append(each.backend.name)
    return found


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _curves(values: Mapping[str, list[float]]) -> dict[str, Curve]:
    """Return curves over steps counted from 1, without what is not a number."""
    found = {}
    for name, points in values.items():
        every = np.array(points, np.float64)
        drawn = np.isfinite(every)
        steps = np.arange(1, len(every) + 1)[drawn]
        found[name] = Curve(name, steps, every[drawn], len(every), int((~drawn).sum()))
    return found
