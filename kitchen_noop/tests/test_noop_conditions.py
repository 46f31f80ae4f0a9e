"""Latency and failures, the same for all six ports; and the six ports together."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from crucible_kitchen import (
    PORTS,
    ConfigurationError,
    Kitchen,
    SamplingParams,
    SessionConfig,
    Unavailable,
)
from importlib_metadata import distribution

import kitchen_noop
from kitchen_noop import conditions

MODULES: dict[str, ModuleType] = {
    port: table["use"] for port, table in kitchen_noop.ADAPTERS.items()
}


def test_all_six_ports_are_served_completely() -> None:
    with Kitchen(adapters=kitchen_noop.ADAPTERS) as kitchen:
        assert kitchen.configured == tuple(PORTS)
        for port in PORTS.values():
            bound = kitchen.port(port)
            without_use = {
                "around",
                "close",
                "ping",
                "clean",
            }  # it wraps, keeps and reaches nothing
            assert all(bound.supports(name) for name in set(port.callbacks()) - without_use)


def test_each_port_has_its_entry_point() -> None:
    entries = {
        entry.name: entry.load()
        for entry in distribution("crucible-adapter-noop").entry_points
        if entry.group == "crucible.adapters"
    }
    assert entries == {f"{port}.noop": module for port, module in MODULES.items()}


def test_the_adapters_are_found_by_name() -> None:
    with Kitchen(adapters=dict.fromkeys(PORTS, "noop")) as kitchen:
        kitchen.bind(PORTS)


@pytest.mark.parametrize("port", PORTS)
def test_every_option_is_documented(port: str) -> None:
    fields = MODULES[port].Options.model_fields
    assert {"latency_scale", "failure_rate", "seed"} <= set(fields)
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "options", [{"latency_scale": -1}, {"failure_rate": 1.1}, {"latency_scale": "inf"}]
)
def test_an_option_out_of_its_range_is_refused(port: str, options: dict[str, Any]) -> None:
    kitchen = Kitchen(adapters={port: {"use": MODULES[port], **options}})
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        kitchen.bind([port])


@pytest.mark.parametrize("port", PORTS)
def test_no_callback_is_shy_of_plain_calls(port: str) -> None:
    """A callback is a plain function whose first argument is the options."""
    module = MODULES[port]
    for name, function in vars(module).items():
        if hasattr(function, "crucible_impl"):
            assert next(iter(inspect.signature(function).parameters)) == "opts", name


def test_latency_is_scaled_and_off_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    conditions.pause(conditions.Conditions(latency_scale=0), 2.0)
    assert slept == []
    conditions.pause(conditions.Conditions(), 2.0)
    conditions.pause(conditions.Conditions(latency_scale=0.25), 2.0)
    assert slept == [2.0, 0.5]


def test_failures_come_at_their_rate_and_by_their_seed() -> None:
    def outcomes(**options: Any) -> list[bool]:
        opts = conditions.Conditions(**options)
        return [conditions.fault(opts) is not None for _ in range(1000)]

    assert sum(outcomes()) == 0
    assert sum(outcomes(failure_rate=1)) == 1000
    assert 200 < sum(outcomes(failure_rate=0.25)) < 300
    assert outcomes(failure_rate=0.5, seed=1) == outcomes(failure_rate=0.5, seed=1)
    assert outcomes(failure_rate=0.5, seed=1) != outcomes(failure_rate=0.5, seed=2)


def test_a_failure_says_that_nothing_was_done_and_a_repeat_may_succeed() -> None:
    with pytest.raises(Unavailable) as caught:
        conditions.round_trip(conditions.Conditions(latency_scale=0, failure_rate=1), 0)
    assert caught.value.retryable
    assert caught.value.no_effect


REQUESTS: dict[str, list[Callable[[Kitchen], object]]] = {
    "blob_store": [
        lambda k: k.blob_store.read("a"),
        lambda k: list(k.blob_store.stream("a")),
        lambda k: k.blob_store.write("a", b""),
        lambda k: k.blob_store.exists("a"),
        lambda k: k.blob_store.delete("a"),
        lambda k: k.blob_store.list(),
        lambda k: k.blob_store.read_range("a", 0),
    ],
    "dataset_store": [lambda k: k.dataset_store.load_dataset("a")],
    "hub_client": [
        lambda k: k.hub_client.download("a", "README.md"),
        lambda k: k.hub_client.snapshot("a"),
        lambda k: k.hub_client.list_files("a"),
        lambda k: k.hub_client.upload("a", Path(__file__)),
    ],
    "metrics_store": [
        lambda k: k.metrics_store.flush("a"),
        lambda k: k.metrics_store.read("a"),
        lambda k: k.metrics_store.runs(),
    ],
    "completer": [
        lambda k: k.completer.complete([1], SamplingParams(1)),
        lambda k: list(k.completer.stream_complete([1], SamplingParams(1))),
        lambda k: k.completer.score([[1]]),
    ],
}


@pytest.mark.parametrize(
    ("port", "request_"), [(port, each) for port in REQUESTS for each in REQUESTS[port]]
)
def test_every_request_takes_its_time_and_may_fail(
    port: str, request_: Callable[[Kitchen], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with Kitchen(adapters={port: {"use": MODULES[port], "failure_rate": 1}}) as kitchen:
        with pytest.raises(Unavailable):
            request_(kitchen)
        assert 0 < sum(slept) < 1


def test_one_adapter_can_be_changed() -> None:
    adapters = {
        **kitchen_noop.ADAPTERS,
        "training_client": {"use": "noop", "latency_scale": 0, "failure_rate": 1},
    }
    with Kitchen(adapters=adapters) as kitchen:
        kitchen.training_client.start_session(SessionConfig("m"))
        assert kitchen.training_client.options.failure_rate == 1  # type: ignore[attr-defined]
