"""What must be known of a session to check what is submitted to it, where it does not run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crucible_kitchen import (
    Datum,
    EncodedTextChunk,
    InvalidInput,
    SessionConfig,
    validate_datums,
)

from ..passes.batches import token_array


@dataclass(frozen=True)
class Facts:
    """What is known of an open session. Picklable. Only loading a checkpoint may change it: `info`.

    Args:
        config: what the session was started with.
        vocab_size: token ids are below it.
        max_length: the most tokens of a datum; None for no limit.
        device: the kind of the device that it computes on, such as `cpu`.
        info: the answer of `get_info`; the same on every rank.
        storage: the bytes of a checkpoint, `checkpoint`, and of the weights saved with a name,
            `weights`; a little more than they take.
        ranks: how many processes share the session.
    """

    config: SessionConfig
    vocab_size: int
    max_length: int | None
    device: str
    info: Mapping[str, str | int | float | bool | None]
    storage: Mapping[str, int]
    ranks: int = 1

    def check_datums(
        self,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None,
        *,
        backward: bool,
    ) -> dict[str, float]:
        """Check a batch as a whole, and return the complete config of its loss.

        Args:
            datums: of the batch.
            loss_fn: the loss.
            loss_fn_config: of the loss; what is missing gets its default.
            backward: whether gradients are wanted: the session must be trainable, and no input of
                the loss may be missing.

        Raises:
            InvalidInput: see `validate_datums`; or the session is not trainable.
            Unsupported: an unknown loss; an image.
        """
        if backward and not self.config.trainable:
            raise InvalidInput("the session was started with trainable=False")
        config = validate_datums(
            datums,
            loss_fn,
            loss_fn_config,
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            require_weights=backward,
        )
        for datum in datums:
            for chunk in datum.model_input.chunks:
                if type(chunk) is not EncodedTextChunk:
                    token_array(datum.model_input)  # raises, if it is an image
        return config

    @staticmethod
    def check_learning_rate(learning_rate: float) -> None:
        """Check the learning rate of a step.

        Raises:
            InvalidInput: it is negative, or not finite.
        """
        if not (learning_rate >= 0 and math.isfinite(learning_rate)):
            raise InvalidInput(
                f"learning_rate must be finite and not negative, not {learning_rate}"
            )
