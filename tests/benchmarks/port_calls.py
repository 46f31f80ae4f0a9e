"""What a call through a port costs, against the bare call of the hook that pluggy makes of it.

The callback does nothing, which is the worst case: all that is measured is the way to it.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import Any

from .comparison import Growth, Row, at_most
from .settings import Settings

AGAINST = "the bare hook of pluggy"


def rows(settings: Settings) -> Iterator[Row]:
    """Yield a call, and what observers and wrappers add to it."""
    calls = 200 if settings.small else 20_000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(redirect_stderr(io.StringIO()))  # where the console observer writes
        found = settings.contest().run(
            hook=_repeated(bare_hook(), calls),
            port=_repeated(_bound(stack, adapter()), calls),
            kitchen=_through_a_kitchen(stack, calls),
            observed=_repeated(_bound(stack, adapter(), lambda event: None), calls),
            wrapped=_repeated(_bound(stack, _wrapped(adapter(), concurrency=64)), calls),
            paced=_repeated(_bound(stack, _wrapped(adapter(), concurrency=64, rate=1e9)), calls),
            **{
                name: _repeated(_bound(stack, adapter(), observer), calls)
                for name, observer in _observers(folder).items()
            },
        )
        assert set(found.results.values()) == {calls}, "a way made another number of calls"
    for name, what, goal in (
        ("port", "a port call", at_most(1.2)),
        ("kitchen", "kitchen.port.call", at_most(1.5)),
        ("observed", "with one observer", at_most(2.5)),
        ("wrapped", "retry(limit(...))", at_most(4.0)),
        ("paced", "retry(limit(...)), also paced", None),
        ("jsonl", "with the observer jsonl", None),
        ("console", "with the observer console", None),
        ("otel", "with the observer otel, not sent", None),
    ):
        shown = goal or at_most(float("inf"))
        row = found.row(
            name, "hook", what=what, against=AGAINST, goal=shown, work=1e-6 * calls, unit="us"
        )
        yield row if goal else _without_goal(row)
    yield _whole_run(settings)


def growth(settings: Settings) -> Iterator[Growth]:
    """Yield a call's time over the number of observers, and of wrappers."""
    calls = 200 if settings.small else 10_000
    values = (1, 2, 4, 8)
    with ExitStack() as stack:
        ways = {
            f"{kind}_{number}": _repeated(_bound(stack, *made(number)), calls)
            for kind, made in (("observers", _watched), ("wrappers", _nested))
            for number in values
        }
        found = settings.contest().run(**ways)
    for kind in ("observers", "wrappers"):
        seconds = [min(found.seconds[f"{kind}_{number}"]) / calls for number in values]
        yield Growth(
            f"a port call through {kind}",
            kind,
            "us",
            values,
            {"port call": [each * 1e6 for each in seconds]},
        )


# --- what is called ---


def adapter() -> ModuleType:
    """Return a blob store whose callbacks do nothing."""
    from crucible_kitchen import hookimpl

    def read(opts: Any, path: str) -> bytes:
        return b""

    def stream(opts: Any, path: str, chunk_size: int) -> tuple[bytes, ...]:
        return ()

    def write(opts: Any, path: str, data: bytes) -> None: ...

    def exists(opts: Any, path: str) -> bool:
        return True

    made = ModuleType("nothing")
    for callback in (read, stream, write, exists):
        setattr(made, callback.__name__, hookimpl(callback))
    return made


def bare_hook() -> Callable[[str], bool]:
    """Return the hook of the same callback, called by pluggy alone."""
    import pluggy
    from crucible_kitchen.hookspecs import (
        PROJECT,
        AdapterSpec,
        BlobStoreOptionalSpec,
        BlobStoreSpec,
    )

    manager = pluggy.PluginManager(PROJECT)
    for spec in (BlobStoreSpec, BlobStoreOptionalSpec, AdapterSpec):
        manager.add_hookspecs(spec)
    manager.register(adapter())
    hook: Callable[..., bool] = manager.hook.exists
    return hook


def _repeated(exists: Callable[..., bool], calls: int) -> Callable[[], int]:
    """Return a loop of that many calls, which returns how many answered.

    Both loops are alike but for the arguments, which a hook takes by name alone.
    """
    from pluggy import HookCaller

    if isinstance(exists, HookCaller):
        options = object()

        def by_hook() -> int:
            answered = 0
            for _ in range(calls):
                answered += exists(opts=options, path="a")
            return answered

        return by_hook

    def by_port() -> int:
        answered = 0
        for _ in range(calls):
            answered += exists("a")
        return answered

    return by_port


def _through_a_kitchen(stack: ExitStack, calls: int) -> Callable[[], int]:
    from crucible_kitchen import Kitchen

    kitchen = stack.enter_context(Kitchen({"blob_store": adapter()}))

    def by_kitchen() -> int:
        answered = 0
        for _ in range(calls):
            answered += kitchen.blob_store.exists("a")
        return answered

    return by_kitchen


def _bound(stack: ExitStack, table: Any, *observers: Any) -> Callable[[str], bool]:
    from crucible_kitchen import Kitchen

    kitchen = stack.enter_context(Kitchen({"blob_store": table}))
    for observer in observers:
        kitchen.observe(observer)
    return kitchen.blob_store.exists


def _wrapped(inner: Any, **limits: Any) -> dict[str, Any]:
    from crucible_adapter_compose import limit, retry

    limited = {"use": limit.blob_store, "inner": {"use": inner}, **limits}
    return {"use": retry.blob_store, "inner": limited}


def _watched(observers: int) -> tuple[Any, ...]:
    return (adapter(), *(_Silent() for _ in range(observers)))


def _nested(wrappers: int) -> tuple[Any, ...]:
    from crucible_adapter_compose import retry

    table: Any = {"use": adapter()}
    for _ in range(wrappers):
        table = {"use": retry.blob_store, "inner": table}
    return (table,)


class _Silent:
    def __call__(self, event: Any) -> None: ...


def _observers(folder: Path) -> Mapping[str, Any]:
    from crucible_kitchen.observers.console import Console
    from crucible_kitchen.observers.jsonl import JsonLines
    from crucible_kitchen.observers.otel import OpenTelemetry
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    otel = OpenTelemetry(TracerProvider(), MeterProvider([InMemoryMetricReader()]))
    return {"jsonl": JsonLines(folder / "trace.jsonl"), "console": Console(), "otel": otel}


# --- a whole run ---


def _whole_run(settings: Settings) -> Row:
    """Return what one observer costs a supervised run on noops, of five calls a step."""
    from crucible_kitchen import Kitchen
    from crucible_kitchen.workflows import run_in

    import kitchen_noop

    steps = 5 if settings.small else 100
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    config = {"model": "any", "dataset": "rows", "batch_size": 8, "max_steps": steps}

    def run(*observers: Any) -> int:
        with Kitchen(quick) as kitchen:
            for observer in observers:
                kitchen.observe(observer)
            run_in(kitchen, "supervised", config)
        return steps

    found = settings.contest().run(observed=lambda: run(_Silent()), alone=run)
    row = found.row(
        "observed",
        "alone",
        what="a supervised run on noops, with one observer",
        against="without one",
        goal=at_most(float("inf")),
        work=1e-3,
        unit="ms",
    )
    return _without_goal(row)


def _without_goal(row: Row) -> Row:
    """Return a row that is only shown, its ratio still one of costs."""
    import dataclasses

    return dataclasses.replace(row, goal=None)
