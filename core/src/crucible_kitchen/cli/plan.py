"""`crucible run --dry-run`: what a run would do and write, without training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from ..errors import CrucibleError
from ..kitchen import Kitchen
from ..workflows import Workflow
from ..workflows.planning import DoesNotFit, Memory, Plan
from .console import say, say_json, table
from .preview import companion, show_marked

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def planned(workflow: Workflow, as_json: bool) -> Workflow:
    """Return a workflow that prints what this one would do instead of running it.

    The function `plan(kitchen, config)` in the workflow's module returns it.

    Raises:
        ConfigurationError: the module has no such function.
        DoesNotFit: by what is returned, once what is known is printed.
    """
    found = companion(workflow, "plan", "(kitchen, config)", "cannot say what it would do")

    @functools.wraps(workflow)
    def shown(kitchen: Kitchen, config: Any) -> None:
        try:
            plan = found(kitchen, config)
        except DoesNotFit as error:
            if as_json:
                unknown = dict.fromkeys(field.name for field in dataclasses.fields(Plan))
                say_json(unknown | {"memory": dataclasses.asdict(error.memory)})
            else:
                table(("what", "would be"), list(_memory(error.memory)))
            raise
        if not isinstance(plan, Plan):
            raise CrucibleError(
                f"{workflow.__module__}.plan returned {type(plan).__name__}, not a Plan"
            )
        if as_json:
            say_json(dataclasses.asdict(plan))
            return
        table(("what", "would be"), list(_rows(plan)))
        if plan.examples:
            say()
            show_marked(plan.examples)

    return shown


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    for name, count in plan.amounts.items():
        yield name.replace("_", " "), f"{count:,}"
    steps = f"{plan.steps:,}"
    yield "steps", f"{steps}, of which {plan.done:,} are done" if plan.done else steps
    yield "epochs", "unknown" if plan.epochs is None else f"{plan.epochs:,.4g}"
    if plan.epochs is not None and "train_tokens" in plan.amounts:
        yield "tokens in all", f"about {round(plan.amounts['train_tokens'] * plan.epochs):,}"
    yield "evaluations", f"{plan.evaluations:,}"
    yield "checkpoints", f"{plan.checkpoints:,}"
    if plan.memory is not None:
        yield from _memory(plan.memory)
    if plan.storage is None:
        yield "bytes written", "unknown: the training client does not say how large they are"
    else:
        size = plan.storage
        yield "a checkpoint", _bytes(size.checkpoint)
        yield "final weights", _bytes(size.weights)
        yield "bytes written", f"{_bytes(size.written)} in all, {_bytes(size.most)} at a time"


def _memory(memory: Memory) -> Iterator[tuple[str, str]]:
    yield "memory", f"about {_bytes(memory.needed)} of {_bytes(memory.available)}"
    for part in ("weights", "gradients", "moments", "activations"):
        yield f"  {part}", _bytes(getattr(memory, part))
    if memory.loading > memory.weights:
        yield "  loading", f"{_bytes(memory.loading)}, before weights become few bytes"


def _bytes(count: int) -> str:
    """Return a number of bytes in decimal units, such as `1.50 GB`."""
    value, unit = float(count), UNITS[0]
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            break
        value /= 1000
    return f"{count:,} B" if unit == "B" else f"{value:.3g} {unit}"
