"""Values: converted and checked where they are made."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdamParams,
    EncodedTextChunk,
    ImageChunk,
    InvalidInput,
    LoraConfig,
    MetricEntry,
    ModelInput,
    SamplingParams,
)
from hypothesis import given
from hypothesis import strategies as st

IMAGE = ImageChunk(b"...", "png", expected_tokens=4)


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_token_ids_come_back_as_they_went_in(ids: list[int]) -> None:
    made = ModelInput.from_ints(ids)
    assert made.to_ints() == ids
    assert made.length == len(ids)


def test_the_length_counts_the_positions_of_images() -> None:
    chunks: Any = [EncodedTextChunk(np.array([1, 2])), IMAGE, EncodedTextChunk(np.array([3]))]
    made = ModelInput(chunks)
    assert made.length == 7


def test_an_image_has_no_token_ids() -> None:
    with pytest.raises(InvalidInput, match="image"):
        ModelInput((IMAGE,)).to_ints()


@pytest.mark.parametrize("tokens", [[1.5], [[1, 2]], ["a"], [True], [[1], [2, 3]]])
def test_tokens_that_are_not_flat_integers_are_refused(tokens: Any) -> None:
    with pytest.raises(InvalidInput, match="flat sequence of integers"):
        EncodedTextChunk(tokens)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoraConfig().rank = 3  # type: ignore[misc]


def test_tokens_are_int64() -> None:
    assert EncodedTextChunk(np.array([1, 2], np.uint8)).tokens.dtype == np.int64


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": 0},
        {"n": 0},
        {"stop": ("a", 1)},
        {"stop": ("",)},
    ],
)
def test_sampling_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SamplingParams(**{"max_tokens": 1, **wrong})


def test_one_stop_string_is_a_tuple_of_one() -> None:
    assert SamplingParams(1, stop="ab").stop == ("ab",)  # type: ignore[arg-type]
    assert SamplingParams(1, stop=()).stop == ()
    assert SamplingParams(1).stop is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": -1e-8},
        {"weight_decay": float("nan")},
        {"grad_clip_norm": float("inf")},
    ],
)
def test_adam_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        AdamParams(**wrong)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"dropout": 1.0}])
def test_lora_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        LoraConfig(**wrong)


@pytest.mark.parametrize(
    ("value", "step", "metadata", "message"),
    [
        ("1.0", 1, None, "the value of 'nll' must be a number"),
        (10**400, 1, None, "the value of 'nll' is not a float"),
        (1.0, 1.5, None, "the step of 'nll' must be an integer"),
        (1.0, 1, {1: "a"}, "metadata keys must be strings"),
        (1.0, 1, {"a": float("nan")}, r"metadata\['a'\] is not JSON"),
        (1.0, 1, {"a": object()}, r"metadata\['a'\] is not JSON"),
    ],
)
def test_a_number_that_no_store_can_keep_is_refused(
    value: Any, step: Any, metadata: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        MetricEntry.recorded("run", "nll", value, step, metadata)


def test_a_recorded_number_holds_plain_values_of_its_own() -> None:
    metadata = {"tags": ["a"]}
    step: Any = np.int64(3)
    entry = MetricEntry.recorded("run", "nll", np.float32(0.5), step, metadata)
    metadata["tags"].append("b")
    assert (entry.value, entry.step, entry.metadata) == (0.5, 3, {"tags": ["a"]})
    assert (type(entry.value), type(entry.step)) == (float, int)
    assert entry.timestamp.utcoffset() == timedelta(0)


NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone(timedelta(hours=1)))
ROW = {
    "run_id": "run",
    "metric": "nll",
    "value": 1,
    "step": None,
    "timestamp": NOW,
    "metadata": {"split": "test"},
}


def test_a_row_that_was_kept_becomes_an_entry_in_utc() -> None:
    entry = MetricEntry.restored(**ROW)
    assert (entry.run_id, entry.metric, entry.step) == ("run", "nll", None)
    assert repr(entry.value) == "1.0"
    assert entry.timestamp == NOW
    assert entry.timestamp.utcoffset() == timedelta(0)
    assert entry.metadata == {"split": "test"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, kept) for name in ROW for kept in (b"", [1], object(), True)),
        *((name, None) for name in ROW if name != "step"),
        *((name, 1) for name in ("run_id", "metric", "timestamp", "metadata")),
        *((name, "1") for name in ("value", "step", "timestamp", "metadata")),
        ("value", 10**400),
        ("step", 1.0),
        ("timestamp", NOW.replace(tzinfo=None)),
        ("timestamp", datetime.min.replace(tzinfo=NOW.tzinfo)),
    ],
)
def test_what_is_no_row_of_metrics_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput):
        MetricEntry.restored(**{**ROW, field: value})
