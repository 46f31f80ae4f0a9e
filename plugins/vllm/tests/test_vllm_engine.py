"""An engine whose weights are half replaced is not used again. vLLM is not needed for it."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from types import ModuleType
from typing import Any

import pytest

# vLLM leaves sockets to be closed when they are collected, perhaps while these tests run.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed context", "ignore:Exception ignored in")


class Llm:
    """Takes the place of vLLM's engine."""

    errored = False

    class model_config:  # noqa: N801
        max_model_len = 8

    def __init__(self) -> None:
        self.is_shut_down = False

    def shutdown(self) -> None:
        self.is_shut_down = True


class Live:
    """Weights of a session."""

    kind = "tiny"
    live = "a session"

    def __init__(self, name: str) -> None:
        self.name = name

    def weights(self) -> list[Any]:
        return []


class Transfer(ModuleType):
    """Hands weights over, and may wait in the middle of it."""

    waits = False

    def __init__(self) -> None:
        super().__init__("crucible_adapter_vllm.transfer")
        self.begun = threading.Event()

    async def connect(self, llm: Llm) -> None:
        pass

    async def hand_over(self, llm: Llm, weights: list[Any], version: str) -> None:
        if self.waits:
            import asyncio

            self.begun.set()
            await asyncio.Event().wait()


@pytest.fixture
def transfer() -> Transfer:
    return Transfer()


@pytest.fixture
def engine(transfer: Transfer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    package = pytest.importorskip("crucible_adapter_vllm")
    receiver = ModuleType("crucible_adapter_vllm.receiver")
    receiver.BACKEND = "crucible"  # type: ignore[attr-defined]
    for module in (transfer, receiver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(package, module.__name__.rpartition(".")[2], module, raising=False)
    monkeypatch.delitem(sys.modules, "crucible_adapter_vllm.engine", raising=False)
    monkeypatch.setattr(package, "engine", None, raising=False)
    module = importlib.import_module("crucible_adapter_vllm.engine")
    monkeypatch.setattr(module.Engine, "_start", lambda self, model: Llm())
    made = module.Engine(None)
    yield made
    made.close()
    del sys.modules[module.__name__]  # one that is imported later has the true modules


def used(engine: Any, name: str) -> Future[Llm]:
    async def use() -> Llm:
        async with engine.serving(Live(name)) as now:
            llm: Llm = now.llm
            return llm

    future: Future[Llm] = engine.submit(use())
    return future


def test_an_engine_is_used_again_for_other_weights_of_its_kind(engine: Any) -> None:
    first = used(engine, "first").result(60)
    assert used(engine, "second").result(60) is first


def test_an_engine_that_was_interrupted_while_it_took_weights_is_replaced(
    engine: Any, transfer: Transfer
) -> None:
    first = used(engine, "first").result(60)
    transfer.waits = True
    interrupted = used(engine, "second")
    assert transfer.begun.wait(60)
    interrupted.cancel()
    with pytest.raises(CancelledError):
        interrupted.result(60)
    transfer.waits = False
    assert used(engine, "third").result(60) is not first
    assert first.is_shut_down
