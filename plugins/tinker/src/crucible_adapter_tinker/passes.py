"""Passes over datums: what is sent for one, and what comes back.

SkyRL (0.3.0) divides the loss of each datum by the sum of its weights, and the gradient of a step
by the number of its datums: weights of 1 and of 10 make one gradient, and negative ones explode.
Weights that are not sent are ones, whose sum is the datum's number N of tokens. So what it gets are
advantages, multiplied by N and by the number of datums, which both cancel; for `cross_entropy` as
those of `cispo` with a ratio that is clipped to 1, whose loss is -sum p A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdapterError,
    Array,
    Datum,
    EncodedTextChunk,
    FloatArray,
    ForwardBackwardResult,
    ModelInput,
    OptimStepResult,
)

_NORMS = ("grad_norm", "gradient_norm", "unclipped_grad_norm", "unclipped_grad_l2_norm")
"""What servers call the norm of the gradient, before `:mean` and after `skyrl.ai/`."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch that was checked.

    Args:
        inputs: of the model, for each datum, as the SDK has them.
        targets: int64 `(N,)` for each datum.
        weighed: the inputs of the loss by name, float32 `(N,)`, for each datum.
        loss_fn: name of the loss.
        config: of the loss, complete.
    """

    inputs: Sequence[Any]
    targets: Sequence[Array]
    weighed: Sequence[Mapping[str, FloatArray]]
    loss_fn: str
    config: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, datums: Sequence[Datum], loss_fn: str, config: Mapping[str, float]) -> Batch:
        """Copy datums, since the caller may reuse their arrays at once. Missing inputs of the loss
        are ones.
        """
        names = LOSS_FUNCTIONS[loss_fn].inputs
        targets, weighed = [], []
        for datum in datums:
            inputs = datum.loss_fn_inputs
            targets.append(np.array(inputs["target_tokens"], np.int64))
            ones = np.ones(len(targets[-1]), np.float32)
            weighed.append({name: np.array(inputs.get(name, ones), np.float32) for name in names})
        model_inputs = [_model_input(datum.model_input) for datum in datums]
        return cls(model_inputs, targets, weighed, loss_fn, config)

    def __len__(self) -> int:
        return len(self.inputs)

    def sent(self) -> tuple[list[Any], str, dict[str, float] | None]:
        """Return the SDK's datums, the loss and its config, for a server of sums."""
        return self._datums(self.weighed), self.loss_fn, dict(self.config) or None

    def sent_to_skyrl(self, scale: float) -> tuple[list[Any], str, dict[str, float] | None]:
        """Return the same for SkyRL, where a sum over each datum is multiplied by
        `1 / N / <datums of the step>`.

        Args:
            scale: number of datums of the step, so that this cancels too.
        """
        if self.loss_fn == "cross_entropy":
            sums = [
                {
                    "logprobs": np.zeros_like(each["weights"]),
                    "advantages": each["weights"] * np.float32(scale * len(each["weights"])),
                }
                for each in self.weighed
            ]
            ones = {"clip_low_threshold": 1.0, "clip_high_threshold": 1.0}
            return self._datums(sums), "cispo", ones
        sums = [
            {**each, "advantages": each["advantages"] * np.float32(scale * len(targets))}
            for each, targets in zip(self.weighed, self.targets, strict=True)
        ]
        return self._datums(sums), self.loss_fn, dict(self.config) or None

    def result(self, output: Any) -> ForwardBackwardResult:
        """Return the result of a pass.

        The loss is that of the contract, computed from the logprobs: servers differ in what they
        return as theirs, if anything. It is among the metrics.

        Raises:
            AdapterError: the output does not belong to this batch, or has numbers that are not
                finite.
        """
        returned = output.loss_fn_outputs
        if len(returned) != len(self):
            raise AdapterError(f"{len(self)} datums were sent, {len(returned)} outputs came back")
        outputs = []
        for index, (each, targets) in enumerate(zip(returned, self.targets, strict=True)):
            if "logprobs" not in each:
                raise AdapterError(f"the output of datum {index} has no logprobs: {list(each)}")
            logprobs = np.array(each["logprobs"].to_numpy(), np.float32).reshape(-1)
            if logprobs.shape != targets.shape:
                raise AdapterError(
                    f"datum {index} has {len(targets)} tokens, {len(logprobs)} logprobs came back"
                )
            outputs.append({"logprobs": logprobs})
        metrics = {str(name): float(value) for name, value in (output.metrics or {}).items()}
        loss = self._loss([each["logprobs"] for each in outputs])
        if not np.isfinite(loss):
            raise AdapterError(f"the loss is not finite: {loss}")
        return ForwardBackwardResult(loss, outputs, metrics)

    def _datums(self, weighed: Sequence[Mapping[str, FloatArray]]) -> list[Any]:
        from tinker import types

        return [
            types.Datum(
                model_input=given,
                loss_fn_inputs={
                    "target_tokens": _tensor(targets, "int64"),
                    **{name: _tensor(values, "float32") for name, values in each.items()},
                },
            )
            for given, targets, each in zip(self.inputs, self.targets, weighed, strict=True)
        ]

    def _loss(self, logprobs: Sequence[FloatArray]) -> float:
        return float(
            sum(
                loss_of(self.loss_fn, self.config, p, each)
                for p, each in zip(logprobs, self.weighed, strict=True)
            )
        )


def loss_of(
    loss_fn: str,
    config: Mapping[str, float],
    logprobs: FloatArray,
    inputs: Mapping[str, FloatArray],
) -> float:
    """Return the loss of one datum: the formulas of `crucible_kitchen.losses`, in float64."""
    p = logprobs.astype(np.float64)
    if loss_fn == "cross_entropy":
        return float(-np.sum(inputs["weights"] * p))
    advantages = inputs["advantages"].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # the sum is looked at
        ratio = np.exp(p - inputs["logprobs"])
        if loss_fn == "importance_sampling":
            return float(-np.sum(ratio * advantages))
        clipped = np.clip(ratio, config["clip_low_threshold"], config["clip_high_threshold"])
        if loss_fn == "ppo":
            return float(-np.sum(np.minimum(ratio * advantages, clipped * advantages)))
        return float(-np.sum(clipped * p * advantages))


def step_result(response: Any) -> OptimStepResult:
    """Return the result of a step.

    Raises:
        AdapterError: the gradient is not finite. The server has applied it all the same.
    """
    metrics = {str(name): float(value) for name, value in (response.metrics or {}).items()}
    norm = next(
        (value for name, value in metrics.items() if _plain(name) in _NORMS),
        None,
    )
    if norm is not None and not np.isfinite(norm):
        raise AdapterError(
            f"the gradient is not finite (norm {norm}), and the server has applied it; load a "
            "checkpoint"
        )
    return OptimStepResult(norm, metrics)


def has_images(datums: Sequence[Datum]) -> bool:
    return any(
        not isinstance(chunk, EncodedTextChunk)
        for datum in datums
        for chunk in datum.model_input.chunks
    )


def _plain(metric: str) -> str:
    return metric.rpartition("/")[2].partition(":")[0]


def _model_input(given: ModelInput) -> Any:
    from tinker import types

    chunks: list[Any] = []
    for chunk in given.chunks:
        if not isinstance(chunk, EncodedTextChunk):
            chunks.append(
                types.ImageChunk(
                    data=chunk.data, format=chunk.format, expected_tokens=chunk.expected_tokens
                )
            )
        elif len(chunk.tokens):
            chunks.append(types.EncodedTextChunk(tokens=[int(token) for token in chunk.tokens]))
    return types.ModelInput(chunks=chunks)


def _tensor(values: Array, dtype: str) -> Any:
    from tinker import types

    return types.TensorData(data=values.copy(), dtype=dtype, shape=list(values.shape))
