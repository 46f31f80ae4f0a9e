"""Whatever is called, in whatever order, a replay answers as the recording did."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import crucible_adapter_compose.cassette as cassettes
import numpy as np
import pytest
from crucible_kitchen import (
    PORTS,
    AdapterError,
    Datum,
    Kitchen,
    ModelInput,
    SamplingParams,
    SessionConfig,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Call: TypeAlias = tuple[str, Any]

NAMES = st.sampled_from(["a", "b/c", "b/d e", "\u00fc"])
CONTENT = st.binary(max_size=300)
SMALL = st.integers(-1, 9)


def calls(**drawn: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Call]]:
    each = [st.tuples(st.just(name), arguments) for name, arguments in drawn.items()]
    return st.lists(st.one_of(each), min_size=1, max_size=12)


SEQUENCES: Mapping[str, st.SearchStrategy[list[Call]]] = {
    "blob_store": calls(
        write=st.tuples(NAMES, CONTENT),
        write_pieces=st.tuples(NAMES, st.lists(CONTENT, max_size=3)),
        read=st.tuples(NAMES),
        exists=st.tuples(NAMES),
        delete=st.tuples(NAMES),
        list=st.tuples(st.sampled_from(["", "b", "b/"])),
        read_range=st.tuples(NAMES, SMALL, st.none() | SMALL),
        stream=st.tuples(NAMES, st.sampled_from([0, 1, 100])),
    ),
    "metrics_store": calls(
        record=st.tuples(NAMES, NAMES, st.floats(width=32) | SMALL, st.none() | SMALL),
        record_many=st.tuples(NAMES, st.dictionaries(NAMES, st.floats()), st.none() | SMALL),
        read=st.tuples(NAMES),
        runs=st.tuples(),
        flush=st.tuples(NAMES),
    ),
    "dataset_store": calls(
        load_dataset=st.tuples(NAMES, st.sampled_from(["train", "test", "none", None])),
        get_split=st.tuples(SMALL, st.sampled_from(["train", "none"])),
        shuffle=st.tuples(SMALL, SMALL),
        take=st.tuples(SMALL, SMALL),
        skip=st.tuples(SMALL, SMALL),
        select=st.tuples(SMALL, st.lists(SMALL, max_size=3)),
        to_list=st.tuples(SMALL),
        stream=st.tuples(SMALL, st.sampled_from([0, 300])),
    ),
    "training_client": calls(
        start_session=st.tuples(st.builds(SessionConfig, NAMES, seed=SMALL)),
        forward_backward=st.tuples(SMALL, st.lists(st.integers(0, 5), max_size=70)),
        forward=st.tuples(SMALL, st.lists(st.integers(0, 5), max_size=4)),
        optim_step=st.tuples(SMALL, st.sampled_from([0.0, 1e-3, -1.0])),
        await_=st.tuples(SMALL),
        save_checkpoint=st.tuples(SMALL, NAMES),
        save_checkpoint_async=st.tuples(SMALL, NAMES),
        load_checkpoint=st.tuples(SMALL, NAMES),
        list_checkpoints=st.tuples(NAMES),
        get_info=st.tuples(SMALL),
        encoded=st.tuples(SMALL, NAMES),
        close_session=st.tuples(SMALL),
    ),
    "completer": calls(
        complete=st.tuples(NAMES | st.lists(SMALL, max_size=70), SMALL),
        complete_batch=st.tuples(st.lists(st.lists(st.integers(0, 9)), max_size=3), SMALL),
        stream_complete=st.tuples(st.lists(st.integers(0, 9), min_size=1), SMALL),
        score=st.tuples(st.lists(st.lists(st.integers(0, 9), min_size=1), max_size=3)),
    ),
    "hub_client": calls(
        list_files=st.tuples(NAMES, st.sampled_from(["model", "dataset", "none"])),
        download=st.tuples(NAMES, st.sampled_from(["config.json", "none"])),
        snapshot=st.tuples(NAMES),
    ),
}


class Program:
    """Makes drawn calls. A handle is drawn as a number: the place of one that was returned."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self._handles: list[Any] = []

    def answer(self, name: str, arguments: tuple[Any, ...]) -> str:
        try:
            return self._shown(self._call(name, *arguments))
        except AdapterError as error:
            return f"{type(error).__name__}: {error} {error.retryable} {error.no_effect}"

    def _call(self, name: str, first: Any = None, *rest: Any) -> Any:
        port = self._port
        if port.name in ("training_client", "dataset_store") and isinstance(first, int):
            if not self._handles:
                return "no handle"
            first = self._handles[first % len(self._handles)]
        if name == "write_pieces":
            return port.write(first, iter(rest[0]))
        if name == "encoded":
            return port.helper("get_tokenizer")(first).encode(rest[0])
        if name in ("forward", "forward_backward"):
            rest = (datums(rest[0]),)
        if port.name == "completer" and name != "score":
            rest = (SamplingParams(3, seed=rest[0], logprobs=True),)
        if first is None:
            return getattr(port, name)()
        result = getattr(port, name)(first, *rest)
        return [*result] if "stream" in name else result

    def _shown(self, result: Any) -> str:
        if isinstance(result, Path):
            inside = sorted(f for f in result.rglob("*") if f.is_file()) or [result]
            return str([(f.name, f.read_bytes()) for f in inside])
        if isinstance(result, bytes | str | int | list | tuple | dict | None):
            return repr(result)
        if type(result).__module__ == "crucible_kitchen.types":
            return repr(result)
        self._handles.append(result)
        return "a handle"


def datums(tokens: list[int]) -> list[Datum]:
    row = np.array(tokens, np.int64)
    weights = np.ones(len(row), np.float32)
    return [Datum(ModelInput.from_ints(row), {"target_tokens": row, "weights": weights})]


def answers(port: str, file: Path, mode: str, drawn: list[Call]) -> list[str]:
    inner = {"use": "noop", "latency_scale": 0} if mode == "record" else "not-installed"
    table = {"use": getattr(cassettes, port), "file": file, "mode": mode, "inner": inner}
    with Kitchen({port: table}) as kitchen:
        program = Program(kitchen.port(PORTS[port]))
        return [program.answer(name, arguments) for name, arguments in drawn]


def replays_equal(port: str) -> Callable[[], None]:
    @settings(
        max_examples=40,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=SEQUENCES[port])
    def replay(drawn: list[Call]) -> None:
        shown = np.printoptions(floatmode="unique", threshold=10**6)
        with tempfile.TemporaryDirectory() as folder, shown:
            file = Path(folder, "cassette.jsonl")
            recorded = answers(port, file, "record", drawn)
            if file.exists():  # something was called
                assert answers(port, file, "replay", drawn) == recorded

    return replay


@pytest.mark.parametrize("port", PORTS)
def test_a_replay_answers_any_sequence_of_calls_as_the_recording_did(port: str) -> None:
    replays_equal(port)()
