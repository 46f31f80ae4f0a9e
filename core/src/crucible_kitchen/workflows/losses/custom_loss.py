"""Any loss that is a function of the token log probabilities, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...errors import ConfigurationError, InvalidInput
from ...losses import validate_array
from ...ports import TrainingClient
from ...types import Array, Datum, FloatArray, ForwardBackwardResult, Future
from ..evaluation.measures import token_logprobs
from ..sampling.canary import LARGEST_DIFFERENCE

CustomLoss: TypeAlias = Callable[
    [Sequence[Datum], Sequence[FloatArray]],
    tuple[float, Sequence[Array], Mapping[str, float]],
]
"""`fn(datums, logprobs) -> (loss, grads, metrics)`: `grads[i]` is d loss / d `logprobs[i]`."""


def custom_loss(
    client: TrainingClient, session: Any, datums: Sequence[Datum], fn: CustomLoss
) -> tuple[Future[ForwardBackwardResult], float, dict[str, float]]:
    """Accumulate the gradient of any loss C that is a function of the token logprobs.

    By the chain rule dC/dtheta = sum_t (dC/dp_t) dp_t/dtheta, which is the gradient of
    `cross_entropy` with `weights = -dC/dp`. So the client runs `forward`, `fn` gives C and dC/dp
    (in closed form, or with any autograd), and `forward_backward` with those weights follows.
    Exact where both passes see the same model, so at dropout 0; see `check_same_model`.

    Args:
        client: a training client that supports `forward`.
        session: its session.
        datums: `target_tokens` is all that they need; other loss inputs are for `fn` alone.
        fn: see `CustomLoss`; logprobs are float32 arrays `(N_i,)` in nats, in datum order.

    Returns:
        The future of the backward pass (its own `loss` means nothing), C, and fn's metrics.

    Raises:
        AdapterError: the result of `forward` is not that of these datums.
        InvalidInput: a gradient of the wrong shape or not finite.
        Unsupported: the client has no `forward`.
    """
    plain = [
        Datum(datum.model_input, {"target_tokens": datum.loss_fn_inputs["target_tokens"]})
        for datum in datums
    ]
    result = client.await_(client.forward(session, plain))
    logprobs = token_logprobs(client, result, [datum.model_input.length for datum in plain])
    loss, grads, metrics = fn(datums, logprobs)
    if len(grads) != len(plain):
        raise InvalidInput(f"the loss returned {len(grads)} gradients for {len(plain)} datums")
    weighted = []
    for index, (datum, grad) in enumerate(zip(plain, grads, strict=True)):
        weights = -np.asarray(grad, np.float32)
        validate_array(f"gradient {index}", weights, datum.model_input.length, integers=False)
        weighted.append(Datum(datum.model_input, {**datum.loss_fn_inputs, "weights": weights}))
    return client.forward_backward(session, weighted), float(loss), dict(metrics)


def check_same_model(
    client: TrainingClient, result: ForwardBackwardResult, logprobs: Sequence[FloatArray]
) -> None:
    """Check that the backward pass of `custom_loss` saw the model that the loss was computed with.

    Args:
        client: the training client.
        result: what the future that `custom_loss` returned has become.
        logprobs: those that the loss was given.

    Raises:
        ConfigurationError: their mean difference is beyond `LARGEST_DIFFERENCE`: the model has
            dropout, say.
        AdapterError: the result is not that of these datums.
    """
    again = np.concatenate(token_logprobs(client, result, [len(each) for each in logprobs]))
    computed = again != 0  # where the loss has no gradient, a client may return 0
    if not computed.any():
        return
    before = np.concatenate(logprobs)
    difference = float(np.mean(np.abs(again[computed] - before[computed])))
    if not difference <= LARGEST_DIFFERENCE:
        raise ConfigurationError(
            f"the log probabilities of the training client {client.adapter!r} differ by "
            f"{difference:.3f} nats in the mean between forward and forward_backward over the same "
            "weights, so a loss of them has no exact gradient. Set the dropout of the model to 0"
        )
