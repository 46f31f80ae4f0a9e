"""Weights that a training client published for a completer, as model references.

A reference contains the complete weights, so any completer, in any process, understands a named
one. An ephemeral one is only valid while its session keeps it, in this process.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from weakref import WeakValueDictionary

from crucible_kitchen import NotFound, explain_os_errors

from .language_model import Weights

_NAMED: Final = "noop://named/"
_EPHEMERAL: Final = "noop://ephemeral/"
_FILE: Final = "noop.json"
"""What an exported folder holds."""


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
    """Return the weights of a reference or of an exported folder; any other name is that of an
    untrained model.

    Raises:
        NotFound: an ephemeral reference that is not valid any more, or not in this process.
    """
    if not model.startswith((_NAMED, _EPHEMERAL)):
        return exported(model) or Weights(model)
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


def export(weights: Weights, folder: Path) -> None:
    """Write weights to a folder."""
    with explain_os_errors(f"nothing was exported to {folder}", no_effect=True):
        (folder / _FILE).write_text(json.dumps(asdict(weights)), encoding="utf-8")


def exported(name: str) -> Weights | None:
    """Return the weights that were exported to the folder of this name; None if none were."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Weights(**json.loads(Path(name, _FILE).read_text(encoding="utf-8")))
    return None
