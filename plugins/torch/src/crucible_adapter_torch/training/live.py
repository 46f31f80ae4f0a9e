"""The weights of a session as they travel to processes that sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LiveWeights:
    """The trained weights of a session as they were at one moment, on the CPU: all of its weights,
    or those of its low-rank update alone.

    NumPy arrays, so that what carries objects between processes need not copy them.

    Args:
        arrays: the weights by name; bfloat16 as its bits, uint16.
        dtypes: PyTorch's name of the type of each, such as `float32`.
        base: identifies the frozen weights that an update belongs to; None if all are trained.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    dtypes: Mapping[str, str]
    base: str | None

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], base: str | None) -> LiveWeights:
        """Return a copy of these weights."""
        return cls(
            arrays={name: _array(weight) for name, weight in weights.items()},
            dtypes={name: str(w.dtype).removeprefix("torch.") for name, w in weights.items()},
            base=base,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights as tensors over the same memory, which must not be written to."""
        import torch

        return {
            name: _tensor(array, getattr(torch, self.dtypes[name]))
            for name, array in self.arrays.items()
        }


def _array(weight: Tensor) -> NDArray[np.generic]:
    import torch

    plain = weight.detach().to("cpu", copy=True).contiguous()
    array: NDArray[np.generic] = (
        plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain
    ).numpy()
    return array


def _tensor(array: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    import torch

    return torch.from_numpy(np.asarray(_Writable(array))).view(dtype)


class _Writable:
    """An array that says it may be written to, as PyTorch wants; one in a memory that processes
    share may not.
    """

    def __init__(self, array: NDArray[np.generic]) -> None:
        described = array.__array_interface__
        self.__array_interface__ = {**described, "data": (described["data"][0], False)}
        self._kept = array
