"""The ranks of a session, and how they agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from crucible_kitchen import AdapterError, InvalidInput
from torch import device

from .alone import Alone

T = TypeVar("T")


class Group(Alone):
    """All processes of the default group of `torch.distributed`.

    Args:
        here: the device of this rank, for which the group must have a backend.
    """

    def __init__(self, here: device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        if here.type == "cuda":
            index = torch.cuda.current_device() if here.index is None else here.index
            here = torch.device("cuda", index)
            torch.cuda.set_device(here)  # where objects are sent from, too
        self._device = here

    def agree(self, run: Callable[[], T]) -> T:
        failure: AdapterError | None = None
        try:
            result = run()
        except AdapterError as error:
            failure = error
        except Exception as error:  # what cannot be pickled could not be raised on other ranks
            failure = AdapterError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
        failures = self._all(failure)
        if failure is not None:
            raise failure
        for other in failures:
            if other is not None:
                raise other
        return result

    def least(self, number: int) -> int:
        return self._reduced(number, dist.ReduceOp.MIN)

    def most(self, number: int) -> int:
        return self._reduced(number, dist.ReduceOp.MAX)

    def _reduced(self, number: int, operation: Any) -> int:
        found = torch.tensor(number, dtype=torch.int64, device=self._device)
        dist.all_reduce(found, operation)
        return int(found.item())

    def _all(self, value: T) -> list[T]:
        """Return every rank's value, which is pickled."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def _check_equal(self, model: Any) -> None:
        """Check that every rank has the same weights, by the beginning of each.

        Raises:
            InvalidInput: they are others somewhere.
        """
        digest = hashlib.sha256()
        for name, weight in model.named_parameters():
            start = weight.detach().flatten()[:256].float().cpu().numpy()
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(start.tobytes())
        digests = self._all(digest.hexdigest())
        odd = [rank for rank, other in enumerate(digests) if other != digests[0]]
        if odd:
            raise InvalidInput(
                f"ranks {odd} have other weights than rank 0: the model must be the same wherever "
                "the session runs; name a revision, or use one folder for all"
            )
