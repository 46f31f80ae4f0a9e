"""What a callback may return: annotations as checks."""

from __future__ import annotations

from collections import UserList, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest.mock import Mock

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    Completion,
    ForwardBackwardResult,
    MetricEntry,
    OptimStepResult,
    Unavailable,
    Usage,
)
from crucible_kitchen.ports import PORTS
from crucible_kitchen.returned import check_of, returned
from crucible_kitchen.types import FloatArray
from hypothesis import given
from hypothesis import strategies as st

SessionT = TypeVar("SessionT")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = list[dict[str, Any]]
ENTRY = MetricEntry("r", "loss", 1.0, None, NOW)
LOGPROBS = np.zeros(3, np.float32)
TOKENS = np.zeros(3, np.int64)


class Texts(UserList[str]):
    """Read as a list, and none."""


RIGHT: list[tuple[Any, Any]] = [
    (Any, object()),
    (None.__class__, None),
    (str, "a"),
    (bytes, b""),
    (bool, np.bool_(True)),
    (float, 1),
    (float, np.float32(1)),
    (int, np.int64(1)),
    (Path, Path("a")),
    (SessionT, object()),
    (SessionT, 0),
    (int | None, None),
    (Literal["a", "b"], "b"),
    (Sequence[str], ("a", "b")),
    (Sequence[str], Texts(["a"])),
    (Sequence[str], []),
    (ROWS, [{"a": 1}, {}]),
    (ROWS, [defaultdict(int, a=1)]),
    (list[FloatArray], [LOGPROBS]),
    (Mapping[str, str | int | float | bool | None], {"a": 1, "b": None, "c": "d"}),
    (list[MetricEntry], [ENTRY, MetricEntry("r", "loss", np.float64(1), 3, NOW, {"a": [1]})]),
    (ForwardBackwardResult | OptimStepResult, OptimStepResult(None, {"a": 1.0})),
    (ForwardBackwardResult | OptimStepResult, ForwardBackwardResult(1, ({"logprobs": LOGPROBS},))),
    (Completion, Completion("a", TOKENS, LOGPROBS, "stop", Usage(1, 2), "b")),
    (list[Completion | AdapterError], [Completion("a", None, None, "stop"), Unavailable("b")]),
    (Iterable[bytes], iter([b"a"])),
    (Iterable[bytes], [1]),  # its items are checked as they come
]


@pytest.mark.parametrize(("annotation", "value"), RIGHT)
def test_what_the_annotation_says_is_right(annotation: Any, value: Any) -> None:
    check_of(annotation)(value)


def entry(**changed: Any) -> MetricEntry:
    fields = {"run_id": "r", "metric": "m", "value": 1.0, "step": None, "timestamp": NOW}
    return MetricEntry(**(fields | changed))  # type: ignore[arg-type]


WRONG: list[tuple[Any, Any, str]] = [
    (type(None), 0, "must return None, not an int"),
    (str, b"a", "must return str, not a bytes"),
    (str, None, "must return str, not None"),
    (bytes, bytearray(b"a"), "must return bytes, not a bytearray"),
    (bool, 1, "must return bool, not an int"),
    (bool, None, "must return bool, not None"),
    (float, "1", "must return float, not a str"),
    (Path, "a", "must return Path, not a str"),
    (SessionT, None, "must return the handle of a session, not None"),
    (int | None, "1", "must return int | None, not a str"),
    (Literal["a", "b"], "c", "must return 'a' | 'b', not another text"),
    (Literal["a", "b"], ["a"], "must return 'a' | 'b', not a list"),
    (Sequence[str], "abc", "must return Sequence[str], not a str"),
    (Sequence[str], {"a"}, "must return Sequence[str], not a set"),
    (Sequence[str], iter(["a"]), "must return Sequence[str], not a list_iterator"),
    (Sequence[str], ["a", 2], "must return Sequence[str]; in it [1] is an int, not str"),
    (ROWS, ({},), "must return list[dict[str, Any]], not a tuple"),
    (ROWS, [{}, []], "must return list[dict[str, Any]]; in it [1] is a list, not dict[str, Any]"),
    (ROWS, [{1: 2}], "must return list[dict[str, Any]]; in it [0].keys() is an int, not str"),
    (
        list[FloatArray],
        [LOGPROBS, TOKENS],
        "must return list[float32 array]; in it [1] is an int64 array, not float32 array",
    ),
    (
        Mapping[str, int | None],
        {"a": 1, "b": "c"},
        "must return Mapping[str, int | None]; in it ['b'] is a str, not int | None",
    ),
    (
        list[MetricEntry],
        [ENTRY, entry(value="1")],
        "must return list[MetricEntry]; in it [1].value is a str, not float",
    ),
    (
        list[MetricEntry],
        [entry(metadata=None)],
        "must return list[MetricEntry]; in it [0].metadata is None, not Mapping[str, Any]",
    ),
    (
        ForwardBackwardResult | OptimStepResult,
        ForwardBackwardResult(1.0, [{"logprobs": [1.0]}]),  # type: ignore[dict-item]
        "must return ForwardBackwardResult | OptimStepResult; "
        "in it .outputs[0]['logprobs'] is a list, not array",
    ),
    (
        ForwardBackwardResult | OptimStepResult,
        [],
        "must return ForwardBackwardResult | OptimStepResult, not a list",
    ),
    (
        Completion,
        Completion("a", LOGPROBS, None, "stop"),  # type: ignore[arg-type]
        "must return Completion; in it .tokens is a float32 array, not int64 array | None",
    ),
    (Iterable[bytes], None, "must return Iterable[bytes], not None"),
    (Iterable[bytes], b"abc", "must return Iterable[bytes], not a bytes"),
]


@pytest.mark.parametrize(("annotation", "value", "said"), WRONG)
def test_what_it_does_not_say_is_told_with_its_place(
    annotation: Any, value: Any, said: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        check_of(annotation)(value)
    assert str(caught.value) == said


def test_an_item_of_a_stream_is_yielded() -> None:
    with pytest.raises(AdapterError, match="must yield bytes, not a str"):
        check_of(bytes)("a", verb="yield")


KINDS = st.sampled_from([annotation for annotation, _ in RIGHT])
VALUES = st.lists(st.sampled_from([value for _, value in RIGHT] + [value for _, value, _ in WRONG]))


@given(KINDS, VALUES)
def test_the_quick_look_at_many_passes_nothing_that_a_look_at_each_refuses(
    annotation: Any, values: list[Any]
) -> None:
    check = check_of(annotation)
    if check.fits(values):
        assert [check.wrong(value) for value in values] == [None] * len(values)


@given(KINDS, st.sampled_from([value for _, value in RIGHT] + [value for _, value, _ in WRONG]))
def test_a_type_that_is_right_for_certain_is_right(annotation: Any, value: Any) -> None:
    check = check_of(annotation)
    if type(value) in check.right:
        assert check.wrong(value) is None


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS.keys())
def test_every_callback_of_every_port_says_what_it_returns(port: Any) -> None:
    for name, spec in port.callbacks().items():
        assert (returned(spec) is Any) == (name == "around"), name


@pytest.mark.parametrize(
    ("annotation", "kind"), [(str, str), (ROWS, list), (Mapping[str, float], dict)]
)
def test_a_mock_is_not_what_it_stands_for(annotation: Any, kind: type) -> None:
    with pytest.raises(AdapterError, match="not a Mock"):
        check_of(annotation)(Mock(spec=kind))
