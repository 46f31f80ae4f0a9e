"""Weights that a training client published for a completer, as model references.

A reference contains the complete weights, so any completer, in any process, understands a named
one. An ephemeral one is only valid while its session keeps it, in this process.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from weakref import WeakValueDictionary

from crucible_kitchen import NotFound

from .language_model import Weights

_NAMED: Final = "noop://named/"
_EPHEMERAL: Final = "noop://ephemeral/"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Published:
    """Published weights. Ephemeral ones are valid as long as this object lives."""

    reference: str


_valid: WeakValueDictionary[str, Published] = WeakValueDictionary()


def publish(weights: Weights, name: str | None) -> Published:
    """Publish weights under a new reference."""
    kind, label = (_EPHEMERAL, "") if name is None else (_NAMED, quote(name, safe=""))
    reference = f"{kind}{uuid.uuid4().hex}/{label}?{urlencode(asdict(weights))}"
    published = Published(reference)
    if name is None:
        _valid[reference] = published
    return published


def find(model: str) -> Weights:
    """Return the weights of a reference; any other name is that of an untrained model.

    Raises:
        NotFound: an ephemeral reference that is not valid any more, or not in this process.
    """
    if not model.startswith((_NAMED, _EPHEMERAL)):
        return Weights(model)
    if model.startswith(_EPHEMERAL) and model not in _valid:
        raise NotFound(
            f"the ephemeral weights {model!r} are gone: their session published others, was "
            "closed, or is in another process; give weights a name to keep them"
        )
    fields = parse_qs(urlsplit(model).query, keep_blank_values=True)
    try:
        return Weights(fields["model"][0], int(fields["seed"][0]), int(fields["steps"][0]))
    except (KeyError, ValueError):
        raise NotFound(f"{model!r} is not a reference from save_weights_for_sampler") from None
