"""Names of checkpoints and weights on the server, which hold the label that they were saved under.

A server takes letters, digits, `_` and `-`, 255 of them, and no name twice (a repeated one hangs:
SkyRL 0.3). So a name is `<kind>-<label>__<unique>`, in which `_xx` stands for each byte of the
label that is not a letter or a digit; `-<n>-<m>` may follow, see `Clock`.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["c", "w"]
"""A checkpoint, or weights that were saved with a name."""

LONGEST = 200
"""The most characters of a label, encoded. A longer one is cut, and then found by beginnings of
what is left."""

_NAME = re.compile(
    r"(?P<kind>[cw])-(?P<label>(?:[A-Za-z0-9]|_[0-9a-f]{2})*)(?P<cut>-?)"
    r"__[0-9a-f]{16}(?:-(?P<server>[0-9]+)-(?P<steps>[0-9]+))?"
)
_PATH = re.compile(
    r"tinker://(?P<run>[A-Za-z0-9:_-]+)/(?P<folder>weights|sampler_weights)/(?P<name>[^/\s]+)"
)


@dataclass(frozen=True, slots=True)
class Clock:
    """How many steps an optimizer has made: `server`, as the server counts, and `steps` since its
    moments began. The two differ where a server cannot begin moments again; see `skyrl`.
    """

    server: int = 0
    steps: int = 0

    def tick(self) -> Clock:
        """Return the clock after one more step."""
        return Clock(self.server + 1, self.steps + 1)


@dataclass(frozen=True, slots=True)
class Name:
    """What a name says.

    Args:
        kind: what was saved.
        label: the beginning of the label, encoded.
        cut: whether the label was longer.
        clock: of the optimizer that was saved; None if the name does not say it.
    """

    kind: Kind
    label: str
    cut: bool = False
    clock: Clock | None = None

    def begins_with(self, prefix: str) -> bool:
        """Whether the label certainly begins with this."""
        return self.label.startswith(_encoded(prefix))


@dataclass(frozen=True, slots=True)
class Path:
    """A reference of the server, `tinker://<run>/<folder>/<name>`.

    Args:
        run: the model that was saved.
        trainable: whether it holds the state of training, not only weights to sample from.
        name: see `parsed_name`.
    """

    run: str
    trainable: bool
    name: str


def new_name(kind: Kind, label: str, clock: Clock | None) -> str:
    """Return a name that was never used before.

    Args:
        kind: what is saved.
        label: of it.
        clock: of its optimizer; None if that is unknown, or does not matter on the server.
    """
    encoded = _encoded(label)
    cut = encoded[:LONGEST]
    if cut != encoded:
        cut = f"{re.sub('_[0-9a-f]?$', '', cut)}-"  # no half of a byte
    times = "" if clock is None else f"-{clock.server}-{clock.steps}"
    return f"{kind}-{cut}__{uuid.uuid4().hex[:16]}{times}"


def parsed_name(name: str) -> Name | None:
    """Return what a name says; None if it is not one of `new_name`."""
    if not (match := _NAME.fullmatch(name)):
        return None
    clock = Clock(int(match["server"]), int(match["steps"])) if match["server"] else None
    kind: Kind = "c" if match["kind"] == "c" else "w"
    return Name(kind, match["label"], bool(match["cut"]), clock)


def parsed_path(reference: str) -> Path | None:
    """Return the parts of a reference; None if it is not one of a server."""
    if not (match := _PATH.fullmatch(reference)):
        return None
    return Path(match["run"], match["folder"] == "weights", match["name"])


def _encoded(label: str) -> str:
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"_{byte:02x}"
        for byte in label.encode("utf-8", "surrogatepass")
    )
