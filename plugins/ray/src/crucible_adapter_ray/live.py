"""Weights that a training client hands to the completers of the same driver, through Ray's object
store.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crucible_kitchen import NotFound, SessionConfig

if TYPE_CHECKING:
    import ray
    from crucible_adapter_torch.options import TrainingClientOptions

PREFIX = "ray-live:"
"""What the reference of live weights begins with, and that of nothing else."""


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """Published weights. Picklable: it travels to the actors that sample from them.

    Args:
        reference: what they are asked for by.
        weights: the `LiveWeights` of a session, in the object store, whatever node it is on; the
            object is kept there as long as this is referred to.
        opts: of the training client, as its ranks have them.
        config: of the session.
        model: names `opts` and `config`: weights of one session at different times have the same.
    """

    reference: str
    weights: ray.ObjectRef
    opts: TrainingClientOptions
    config: SessionConfig
    model: str = field(init=False)

    def __post_init__(self) -> None:
        # Not by equality: options that are equal are not when one of them has travelled.
        named = f"{self.opts.model_dump_json()} {self.config!r}"
        object.__setattr__(self, "model", named)


_published: dict[str, Live] = {}
_lock = threading.Lock()


def publish(ref: ray.ObjectRef, opts: TrainingClientOptions, config: SessionConfig) -> str:
    """Offer weights; return a reference never used before. They are kept until withdrawn, and by
    calls that sample from them.

    Args:
        ref: the result of `Rank.live` of a session's first rank. It must be owned by this process,
            as that of a call to an actor is: what an actor puts is lost with it.
        opts: of the training client.
        config: what the session was started with.
    """
    reference = f"{PREFIX}{uuid.uuid4().hex}"
    with _lock:
        _published[reference] = Live(reference, ref, opts, config)
    return reference


def withdraw(reference: str | None) -> None:
    """Unpublish weights. Calls that already sample from them may finish."""
    with _lock:
        _published.pop(reference or "", None)


def find(reference: str) -> Live:
    """Return published weights.

    Raises:
        NotFound: they were withdrawn, or published in another process.
    """
    with _lock:
        if reference in _published:
            return _published[reference]
    raise NotFound(
        f"no weights {reference!r}: they are valid in the process that saved them, until its "
        "session saves the next ones or is closed; save them with a name to keep them"
    )


def models() -> frozenset[str]:
    """Return the `model` of all that is published at the moment."""
    with _lock:
        return frozenset(live.model for live in _published.values())
