"""What can be set, and what is said where vLLM is not there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from crucible_kitchen import Kitchen, SamplingParams, Unsupported
from pydantic import ValidationError

# vLLM leaves sockets to be closed when they are collected, perhaps while these tests run.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed context", "ignore:Exception ignored in")

options = pytest.importorskip("crucible_adapter_vllm.options", exc_type=ImportError)


@pytest.mark.parametrize("key", ["model", "kv_cache_memory_bytes", "seed"])
def test_what_is_an_option_is_refused_among_the_arguments_of_the_engine(key: str) -> None:
    with pytest.raises(ValidationError, match="option of the adapter"):
        options.Options(engine_args={key: 1})


@pytest.mark.parametrize("key", ["logprobs_mode", "weight_transfer_config", "generation_config"])
def test_what_the_promises_depend_on_cannot_be_set(key: str) -> None:
    with pytest.raises(ValidationError, match="set by the adapter"):
        options.Options(engine_args={key: "x"})


def test_without_vllm_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "vllm" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    import crucible_adapter_vllm.completer as module

    with Kitchen(adapters={"completer": {"use": module, "model": "tiny"}}) as kitchen:
        for call in (kitchen.completer.ping, lambda: kitchen.completer.complete([1], ONE)):
            with pytest.raises(Unsupported, match="pip install vllm"):
                call()


ONE = SamplingParams(1)
