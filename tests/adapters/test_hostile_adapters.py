"""Whatever an adapter returns or raises is an error that names it, and ends what it is part of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hostile_adapters
import pytest
from commands import Crucible
from crucible_kitchen import (
    PORTS,
    AdapterError,
    AdapterOptions,
    BindError,
    Kitchen,
    SamplingParams,
    hookimpl,
    run,
)
from crucible_kitchen.messages.printable import printable
from hostile_adapters import ADAPTERS, IN_A_COMMAND, IN_A_RUN, Hostile
from pydantic import field_validator

import kitchen_noop

pytestmark = pytest.mark.slow

NOOP = {port: {**table, "latency_scale": 0} for port, table in kitchen_noop.ADAPTERS.items()}
WORKFLOW = {
    "model": "m",
    "dataset": "d",
    "max_steps": 2,
    "render_cache": False,  # else rows that an earlier run rendered are not read again
    "run_id": "r",
    "test_size": 4,
    "exact_match": True,
}

SURVIVED: Counter[str] = Counter()


def named(one: Hostile) -> str:
    return f"{one.port}.{one.name}.{one.callback}: "


# --- through the port ---

CALLS: dict[str, Callable[[Any], Any]] = {
    "get_tokenizer": lambda port: port.helper("get_tokenizer")(None),
    "start_session": lambda port: port.start_session(None),
    "forward_backward": lambda port: port.forward_backward(None, []),
    "forward": lambda port: port.forward(None, []),
    "optim_step": lambda port: port.optim_step(None, 0.1),
    "await_": lambda port: port.await_(None),
    "save_checkpoint": lambda port: port.save_checkpoint(None, "a"),
    "save_checkpoint_async": lambda port: port.save_checkpoint_async(None, "a"),
    "load_checkpoint": lambda port: port.load_checkpoint(None, "a"),
    "save_weights_for_sampler": lambda port: port.save_weights_for_sampler(None),
    "get_info": lambda port: port.get_info(None),
    "check_storage": lambda port: port.check_storage(None),
    "select": lambda port: port.select(None, [0]),
    "to_list": lambda port: port.to_list(None),
    "load_dataset": lambda port: port.load_dataset("d"),
    "write": lambda port: port.write("a", b"1"),
    "read_range": lambda port: port.read_range("a", 0),
    "download": lambda port: port.download("r", "f"),
    "snapshot": lambda port: port.snapshot("r"),
    "list_files": lambda port: port.list_files("r"),
    "upload": lambda port: port.upload("r", "a"),
    "record_many": lambda port: port.record_many("r", {"a": 1.0}),
    "runs": lambda port: port.runs(),
    "list": lambda port: port.list(),
    "list_checkpoints": lambda port: port.list_checkpoints(),
    "ping": lambda port: port.ping(),
    "complete": lambda port: port.complete([1], SamplingParams(1)),
    "complete_batch": lambda port: port.complete_batch([[1]], SamplingParams(1)),
    "stream_complete": lambda port: [*port.stream_complete([1], SamplingParams(1))],
    "score": lambda port: port.score([[1, 2], [3, 4]]),
}


def call(port: Any, callback: str) -> Any:
    if port.name == "dataset_store" and callback == "stream":
        return [*port.stream(None)]
    if callback == "stream":
        return [*port.stream("a")]
    return CALLS[callback](port) if callback in CALLS else getattr(port, callback)("a")


@pytest.mark.parametrize("observed", [False, True], ids=["unobserved", "observed"])
@pytest.mark.parametrize("one", ADAPTERS, ids=str)
def test_a_call_ends_in_an_error_that_names_the_callback(one: Hostile, observed: bool) -> None:
    with Kitchen({one.port: {"use": one.adapter, "inner": NOOP[one.port]}}) as kitchen:
        if observed:
            kitchen.observe(lambda event: None)
        port = kitchen.port(PORTS[one.port])
        with pytest.raises(AdapterError) as caught:
            call(port, one.callback)
    said = printable(str(caught.value))
    assert said.startswith(named(one))
    assert one.said in said
    SURVIVED["calls"] += not observed


@pytest.mark.parametrize("one", ADAPTERS, ids=str)
def test_a_wrapper_around_it_passes_the_error_on(one: Hostile) -> None:
    class Wraps(AdapterOptions):
        inner: PORTS[one.port]  # type: ignore[valid-type,name-defined]

    outer = ModuleType("outer")
    outer.Options = Wraps  # type: ignore[attr-defined]
    outer.around = hookimpl(lambda call: call())  # type: ignore[attr-defined]
    inner = {"use": one.adapter, "inner": NOOP[one.port]}
    with Kitchen({one.port: {"use": outer, "inner": inner}}) as kitchen:
        port = kitchen.port(PORTS[one.port])
        with pytest.raises(AdapterError) as caught:
            call(port, one.callback)
    assert printable(str(caught.value)).startswith(named(one))


# --- through a workflow ---


@pytest.mark.parametrize("one", IN_A_RUN, ids=str)
def test_a_run_ends_in_that_error(one: Hostile) -> None:
    adapters = {**NOOP, one.port: {"use": one.adapter, "inner": NOOP[one.port]}}
    with pytest.raises(AdapterError) as caught:
        run("supervised", WORKFLOW, adapters=adapters)
    assert printable(str(caught.value)).startswith(named(one))
    SURVIVED["runs"] += 1


# --- through the command ---


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the hostile package is installed."""
    site = tmp_path_factory.mktemp("site")
    hostile_adapters.install(site)
    path = [
        str(site),
        str(Path(hostile_adapters.__file__).parent),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    return {"PYTHONPATH": os.pathsep.join(path)}


def settings(hostile: Hostile) -> list[str]:
    inner = f"adapters.{hostile.port}."
    return [
        "workflow.use=supervised",
        *(f"workflow.{key}={str(value).lower()}" for key, value in WORKFLOW.items()),
        *(f"adapters.{port}.use=noop" for port in NOOP if port != hostile.port),
        *(f"adapters.{port}.latency_scale=0" for port in NOOP if port != hostile.port),
        f"{inner}use={hostile.name}",
        f"{inner}inner.use=noop",
        f"{inner}inner.latency_scale=0",
    ]


@pytest.mark.parametrize("one", IN_A_COMMAND, ids=str)
def test_the_command_prints_it_as_a_line_and_ends_with_1(
    one: Hostile, plain_crucible: Crucible, environ: dict[str, str]
) -> None:
    outcome = plain_crucible("run", *settings(one), timeout=60, **environ)
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.err + outcome.out
    assert f"error: {named(one)}" in outcome.err
    assert one.said in outcome.err
    assert "\x1b" not in outcome.err + outcome.out
    SURVIVED["commands"] += 1


# --- while it is bound ---


def store() -> ModuleType:
    made = ModuleType("store")
    made.read = hookimpl(lambda path: b"")  # type: ignore[attr-defined]
    made.stream = hookimpl(lambda path, chunk_size: [])  # type: ignore[attr-defined]
    made.write = hookimpl(lambda path, data: None)  # type: ignore[attr-defined]
    made.exists = hookimpl(lambda path: True)  # type: ignore[attr-defined]
    return made


class WithoutNames(ModuleType):
    def __dir__(self) -> list[str]:
        raise SystemExit(0)


class WithAProperty:
    @property
    def license(self) -> str:
        raise SystemExit(0)

    @hookimpl
    def read(self, path: str) -> bytes:
        return b""


class WithoutOptions(ModuleType):
    @property
    def Options(self) -> Any:
        raise GeneratorExit


class Nameless:
    @property
    def __name__(self) -> str:
        raise SystemExit(0)


class EqualToNothing(ModuleType):
    def __eq__(self, other: object) -> bool:
        raise SystemExit(0)

    __hash__ = None  # type: ignore[assignment]


class Exits(AdapterOptions):
    secret: str = "hunter22"

    @field_validator("secret")
    @classmethod
    def _exit(cls, secret: str) -> str:
        raise SystemExit(secret)


def hostile_modules() -> Iterator[tuple[Any, str]]:
    yield WithAProperty(), "'WithAProperty'"
    for kind in (WithoutNames, WithoutOptions):
        made = kind("odd")
        vars(made).update({k: v for k, v in vars(store()).items() if not k.startswith("__")})
        yield made, "'odd'"
    yield Nameless(), "'Nameless'"
    exits = store()
    exits.Options = Exits  # type: ignore[attr-defined]
    yield exits, "the Options of 'store' raised SystemExit"


@pytest.mark.parametrize(
    ("adapter", "said"), [*hostile_modules()], ids=lambda value: type(value).__name__
)
def test_whatever_it_raises_while_it_is_bound_is_a_mistake_that_names_it(
    adapter: Any, said: str
) -> None:
    with pytest.raises(BindError) as caught:
        _ = Kitchen({"blob_store": adapter}).blob_store
    assert said in str(caught.value)
    assert "hunter22" not in str(caught.value)
    SURVIVED["bindings"] += 1


def test_an_adapter_that_compares_to_nothing_is_bound_all_the_same() -> None:
    odd = EqualToNothing("odd")
    vars(odd).update({k: v for k, v in vars(store()).items() if not k.startswith("__")})
    assert Kitchen({"blob_store": odd}).blob_store.exists("a")


def test_ctrl_c_while_an_adapter_is_bound_is_ctrl_c() -> None:
    class Interrupted(ModuleType):
        def __dir__(self) -> list[str]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _ = Kitchen({"blob_store": Interrupted("odd")}).blob_store


# --- how many there were ---


def test_there_are_more_than_twenty_on_every_port(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says how many there are; the tests above say which were not survived."""
    assert {one.port for one in ADAPTERS} == set(PORTS)
    assert min(len(ADAPTERS), len(IN_A_RUN), len(IN_A_COMMAND)) >= 20
    expected = {"calls": len(ADAPTERS), "runs": len(IN_A_RUN), "commands": len(IN_A_COMMAND)}
    if sum(SURVIVED[what] for what in expected) + request.session.testsfailed < sum(
        expected.values()
    ):
        pytest.skip("not all of the tests above were run")
    counts = ", ".join(f"{SURVIVED[what]} of {count} {what}" for what, count in expected.items())
    with capsys.disabled():
        print(f"\n{len(ADAPTERS)} hostile adapters: {counts} ended in an error that names them")
    assert {what: SURVIVED[what] for what in expected} == expected
