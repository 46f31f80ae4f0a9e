"""Any loss that is a function of the token log probabilities, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidInput
from ..losses import validate_array
from ..ports import TrainingClient
from ..types import Array, Datum, FloatArray, ForwardBackwardResult, Future

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
    Exact where both passes see the same model, so at dropout 0.

    Args:
        client: a training client that supports `forward`.
        session: its session.
        datums: `target_tokens` is all that they need; other loss inputs are for `fn` alone.
        fn: see `CustomLoss`; logprobs are float32 arrays `(N_i,)` in nats, in datum order.

    Returns:
        The future of the backward pass (its own `loss` means nothing), C, and fn's metrics.

    Raises:
        InvalidInput: a gradient of the wrong shape or not finite.
        Unsupported: the client has no `forward`.
    """
    plain = [
        Datum(datum.model_input, {"target_tokens": datum.loss_fn_inputs["target_tokens"]})
        for datum in datums
    ]
    outputs = client.await_(client.forward(session, plain)).outputs
    loss, grads, metrics = fn(datums, [output["logprobs"] for output in outputs])
    if len(grads) != len(plain):
        raise InvalidInput(f"the loss returned {len(grads)} gradients for {len(plain)} datums")
    weighted = []
    for index, (datum, grad) in enumerate(zip(plain, grads, strict=True)):
        weights = -np.asarray(grad, np.float32)
        validate_array(f"gradient {index}", weights, datum.model_input.length, integers=False)
        weighted.append(Datum(datum.model_input, {**datum.loss_fn_inputs, "weights": weights}))
    return client.forward_backward(session, weighted), float(loss), dict(metrics)
