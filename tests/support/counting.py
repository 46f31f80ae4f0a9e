"""An algorithm that learns to count: the loop's tests need one that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from crucible_kitchen import Datum, Kitchen, Measure, ModelInput, Prepared, TrainingConfig

TIMES = ("time/step", "tokens_per_second")
"""Metrics that are another each time."""


class Counting:
    """Learns to count: an algorithm whose items are numbers."""

    evaluates = True

    def __init__(self, kitchen: Kitchen, config: TrainingConfig) -> None:
        self.client = kitchen.training_client

    def prepare(self, session: Any) -> Sequence[int] | Prepared[int]:
        return range(8)

    def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
        future = self.client.forward_backward(session, [datum(item) for item in batch])

        def measure() -> dict[str, float]:
            return {"loss": self.client.await_(future).loss, "num_tokens": 2.0 * len(batch)}

        return measure

    def evaluate(self, session: Any) -> dict[str, float]:
        result = self.client.await_(self.client.forward(session, [datum(0)]))
        return {"test/loss": result.loss}


def datum(item: int) -> Datum:
    tokens = np.arange(item, item + 3)
    inputs: dict[str, Any] = {"target_tokens": tokens[1:], "weights": np.ones(2, np.float32)}
    return Datum(ModelInput.from_ints(tokens[:-1]), inputs)
