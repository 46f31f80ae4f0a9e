"""Loss functions: their inputs, and custom losses by the chain rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from crucible_kitchen import (
    Array,
    ConfigurationError,
    Datum,
    FloatArray,
    ForwardBackwardResult,
    Future,
    InvalidInput,
    ModelInput,
    TrainingClient,
    Unsupported,
    custom_loss,
    loss_config,
    validate_datums,
)
from crucible_kitchen.workflows import check_same_model


def datum(n: int = 3, **inputs: Any) -> Datum:
    """Return a datum of `n` tokens with these loss inputs, valid or not; None leaves one out."""
    given = {"target_tokens": np.arange(n), "weights": np.ones(n, np.float32), **inputs}
    return Datum(ModelInput.from_ints(range(n)), {k: v for k, v in given.items() if v is not None})


def test_a_good_batch_passes_and_the_config_is_complete() -> None:
    assert validate_datums([datum(), datum(1)], "cross_entropy") == {}
    assert loss_config("ppo", {"clip_high_threshold": 1.3}) == {
        "clip_low_threshold": 0.8,
        "clip_high_threshold": 1.3,
    }
    assert loss_config("cispo", None) == {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}


@pytest.mark.parametrize(
    ("datums", "message"),
    [
        ([], "no datums"),
        ([datum(), datum(0)], "datum 1 has no tokens"),
        ([datum(weights=np.ones(2, np.float32))], r"weights has shape \(2,\), not \(3,\)"),
        ([datum(weights=np.ones((3, 1), np.float32))], "shape"),
        ([datum(weights=np.ones(3, np.int64))], "weights is int64, not floating point"),
        ([datum(target_tokens=np.ones(3))], "target_tokens is float64, not integers"),
        ([datum(weights=np.array([0, np.nan, 1]))], "not finite"),
        ([datum(weights=np.array([0, 1e300, 1]))], "not finite"),  # in float32
        ([datum(weights=None)], "lacks 'weights'"),
        ([datum(target_tokens=None)], "lacks 'target_tokens'"),
        ([datum(weigths=np.ones(3))], "no input 'weigths'; did you mean 'weights'?"),
        ([datum(advantages=np.ones(3))], "takes no input 'advantages'"),
        ([datum(target_tokens=np.array([0, 1, 300]))], "token 300; the vocabulary is 0 to 256"),
        ([datum(target_tokens=np.array([0, 1, -1]))], "token -1"),
        ([datum(6)], "has 6 tokens, the limit is 5"),
        ([datum(weights=[1.0, 1.0, 1.0])], "weights is a list, not a numpy array"),
        ([{"tokens": [1]}], "is a dict, not a Datum"),
    ],
)
def test_a_bad_batch_is_refused_by_naming_the_datum(datums: list[Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        validate_datums(datums, "cross_entropy", vocab_size=257, max_length=5)


def test_missing_weights_are_fine_if_the_loss_is_only_evaluated() -> None:
    validate_datums([datum(weights=None)], "cross_entropy", require_weights=False)


def test_an_unknown_loss_is_unsupported_and_an_unknown_config_invalid() -> None:
    with pytest.raises(Unsupported, match="there are cross_entropy"):
        validate_datums([datum()], "mse")
    with pytest.raises(InvalidInput, match="'clip_low'"):
        loss_config("ppo", {"clip_low": 0.1})
    with pytest.raises(InvalidInput, match="not finite"):
        loss_config("ppo", {"clip_low_threshold": float("nan")})


class Recorder:
    """The part of a training client that `custom_loss` calls; keeps the datums it receives."""

    adapter = "recorder"
    future: Future[ForwardBackwardResult] = Future()

    def forward(self, session: Any, datums: Sequence[Datum]) -> ForwardBackwardResult:
        assert all(set(d.loss_fn_inputs) == {"target_tokens"} for d in datums)
        outputs = [{"logprobs": np.full(d.model_input.length, -0.5, np.float32)} for d in datums]
        return ForwardBackwardResult(0.0, outputs)

    def await_(self, future: ForwardBackwardResult) -> ForwardBackwardResult:
        return future

    def forward_backward(
        self, session: Any, datums: Sequence[Datum]
    ) -> Future[ForwardBackwardResult]:
        self.datums = datums
        return self.future


def test_a_custom_loss_sends_the_negative_gradient_as_weights() -> None:
    client = Recorder()
    datums = [datum(2), datum(3)]

    def square(
        datums: Sequence[Datum], logprobs: Sequence[FloatArray]
    ) -> tuple[float, Sequence[Array], dict[str, float]]:
        return sum((p**2).sum() for p in logprobs), [2 * p for p in logprobs], {"n": 5.0}

    future, loss, metrics = custom_loss(cast("TrainingClient", client), None, datums, square)
    assert future is client.future
    assert loss == pytest.approx(1.25)
    assert metrics == {"n": 5.0}
    for sent in client.datums:
        np.testing.assert_allclose(sent.loss_fn_inputs["weights"], 1.0)
        assert sent.loss_fn_inputs["weights"].dtype == np.float32


@pytest.mark.parametrize(
    "grads", [[np.ones(2)], [np.ones(3), np.ones(3)], [np.array([1, np.inf]), np.ones(3)]]
)
def test_a_custom_loss_with_wrong_gradients_is_refused(grads: list[Array]) -> None:
    client = cast("TrainingClient", Recorder())
    with pytest.raises(InvalidInput):
        custom_loss(client, None, [datum(2), datum(3)], lambda d, p: (0.0, grads, {}))


@pytest.mark.parametrize(("again", "same"), [(-1.0, True), (0.0, True), (-1.2, False)])
def test_the_same_model_may_leave_out_logprobs_that_do_not_count(again: float, same: bool) -> None:
    client, counted = cast("TrainingClient", Recorder()), np.array([-1.0, -2.0], np.float32)
    result = ForwardBackwardResult(0.0, [{"logprobs": np.array([again, -2.0], np.float32)}])
    if same:
        check_same_model(client, result, [counted])
        return
    with pytest.raises(ConfigurationError, match="dropout"):
        check_same_model(client, result, [counted])
