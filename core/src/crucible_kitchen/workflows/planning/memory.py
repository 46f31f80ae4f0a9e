"""What a run needs in memory, before anything is loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

from ...errors import CrucibleError, CrucibleWarning, Unsupported
from ...kitchen import Kitchen
from ...types import SessionConfig
from ..config import ModelConfig


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that the training client's session takes on its device at most.

    Args:
        weights: all of them, trained or not.
        gradients: of those that are trained.
        moments: the optimizer's.
        activations: all else that is held while a gradient is computed.
        available: what is free on the device now.
        loading: what weights take while they are loaded, which may be more.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    available: int
    loading: int = 0

    @property
    def needed(self) -> int:
        """The bytes at most."""
        parts = self.weights + self.gradients + self.moments + self.activations
        return max(self.loading, parts)

    @property
    def state(self) -> int:
        """The bytes at most that are held whatever is computed."""
        return max(self.loading, self.weights + self.gradients + self.moments)


class DoesNotFit(CrucibleError):
    """A session needs more memory than is free, so that to load its model would end the process.

    Args:
        memory: what it needs.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__(
            f"the model does not fit: {_comparison(memory)}, so it was not loaded, and its rows "
            "were not read"
        )
        self.memory = memory


def estimate_memory(kitchen: Kitchen, config: ModelConfig) -> Memory | None:
    """Ask the training client what a session needs, before its model is loaded.

    Returns:
        None if the training client does not offer it, or cannot know it for this model.

    Raises:
        DoesNotFit: there is no memory for its weights, gradients and moments.
        AdapterError: there is no such model.
    """
    memory = _ask(kitchen, config.session(), 0)
    if memory is not None and memory.state > memory.available:
        raise DoesNotFit(memory)
    return memory


def refine_memory(
    kitchen: Kitchen, config: ModelConfig, before: Memory | None, rows: int, longest: int | None
) -> Memory | None:
    """Return an estimate for rows that are known, and warn if it is more than was free.

    Args:
        kitchen: its training client is asked.
        config: the settings.
        before: what `estimate_memory` returned.
        rows: in a batch.
        longest: tokens of the longest of all rows; None if that is not known.
    """
    memory = before
    if before is not None and longest:
        found = _ask(kitchen, replace(config.session(), max_length=longest), rows)
        # What is free now is less the model that the dry run has loaded meanwhile.
        memory = None if found is None else replace(found, available=before.available)
    if memory is not None and memory.needed > memory.available:
        warnings.warn(_comparison(memory), CrucibleWarning, stacklevel=2)
    return memory


def _ask(kitchen: Kitchen, config: SessionConfig, rows: int) -> Memory | None:
    try:
        found = kitchen.training_client.helper("memory_needed")(config, rows)
    except Unsupported:
        return None
    return Memory(**{each.name: int(found.get(each.name, 0)) for each in fields(Memory)})


def _comparison(memory: Memory) -> str:
    return (
        f"a session needs about {memory.needed / 1e9:.3g} GB of memory, and "
        f"{memory.available / 1e9:.3g} GB are free"
    )
