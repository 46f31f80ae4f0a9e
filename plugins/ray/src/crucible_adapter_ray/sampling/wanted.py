"""What an actor is to sample from."""

from __future__ import annotations

from dataclasses import dataclass

from crucible_kitchen import Unsupported

from .. import live
from ..live import Live


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Weights by name, or those of a session as they were when it published them. Picklable.

    Args:
        name: a model as the completer of the `torch` package knows it; None is its default.
        live: published weights, in which case there is no name.
        published: the `Live.model` of all that may still be asked for; an actor frees others.
    """

    name: str | None
    live: Live | None
    published: frozenset[str]


def wanted(name: str | None) -> Wanted:
    """Look up what `SamplingParams.model` names.

    Raises:
        NotFound: live weights that were withdrawn, or published in another process.
        Unsupported: live weights of another training client.
    """
    if name is not None and name.startswith(live.PREFIX):
        found = live.find(name)
        return Wanted(None, found, live.models() | {found.model})
    if name is not None and "-live:" in name:
        raise Unsupported(
            f"{name!r} names weights in the memory of another training client: completer.ray takes "
            "those of training_client.ray, and weights that were saved with a name"
        )
    return Wanted(name, None, live.models())
