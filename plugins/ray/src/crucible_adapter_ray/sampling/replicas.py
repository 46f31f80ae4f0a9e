"""The weights of sessions in a process that samples from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
from crucible_adapter_torch.options import CompleterOptions as TorchOptions
from crucible_kitchen import Unavailable

from ..live import Live

if TYPE_CHECKING:
    from crucible_adapter_torch.distributed import Replica


class Replicas:
    """A model for each session, with the weights that were last asked for. Not thread-safe.

    Args:
        opts: where to compute, and in which precision if it is not "auto"; all else is as in the
            session.
    """

    def __init__(self, opts: TorchOptions) -> None:
        self._opts = opts
        self._made: dict[str, _Held] = {}

    def name_of(self, live: Live) -> str:
        """Return the model, for the completer of this process, that has these weights. Those that
        it had are gone.

        Raises:
            Unavailable: the node that held them is gone.
        """
        if live.model not in self._made:
            self._made[live.model] = _Held(_replica(live, self._opts))
        return self._made[live.model].name_of(live)

    def keep(self, models: frozenset[str]) -> None:
        """Free all but these."""
        for model in self._made.keys() - models:
            self._made.pop(model).replica.close()


class _Held:
    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._has: str | None = None
        self._name = ""

    def name_of(self, live: Live) -> str:
        if self._has != live.reference:
            self._has = None  # while it is neither, or if that fails
            self._name = self.replica.take(_fetched(live))
            self._has = live.reference
        return self._name


def _replica(live: Live, opts: TorchOptions) -> Replica:
    from crucible_adapter_torch.distributed import Replica

    here: dict[str, Any] = {"device": opts.device, "threads": opts.threads}
    if opts.dtype != "auto":
        here["dtype"] = opts.dtype
    return Replica(live.opts.model_copy(update=here), live.config)


def _fetched(live: Live) -> Any:
    try:
        return ray.get(live.weights)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise Unavailable(
            f"the weights {live.reference!r} were lost with the node that held them; have the "
            f"session save them again ({type(error).__name__})"
        ) from error
