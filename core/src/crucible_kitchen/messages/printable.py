"""Foreign text, such as names, answers and error messages, made safe for a terminal.

A terminal reads some characters as commands: they clear the screen, change its title, write into
the keyboard's buffer, or make a link with a misleading text. Others reverse the order in which text
is displayed, or have no width, so that two texts look alike. All are shown by their codes, as
Python writes them. The two joiners stay, which Persian, Indian scripts and emoji need.
"""

from __future__ import annotations

import re
from typing import Any

# C0 except newline and tab, DEL and C1; separators that only some programs read as line breaks;
# marks, embeddings, overrides and isolates of direction; what has no width, but for the joiners;
# lone surrogates, which cannot be encoded.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return the text with every character escaped that a terminal reads as a command, or that
    hides.

    ESC becomes `\x1b`, for example. Newlines and tabs stay.
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def text_of(value: Any) -> str:
    """Return `str(value)`, or the name of its type if that fails. Never fails."""
    try:
        return str.__str__(str(value))  # a subclass of str could fail later
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__}>"


def repr_of(value: Any) -> str:
    """Return `repr(value)`, or the name of its type if that fails. Never fails."""
    try:
        return str.__str__(repr(value))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__}>"


def printable_json(text: str) -> str:
    r"""Return JSON, or TOML strings, escaped without a change of meaning: ESC is `\u001b`.

    Lone surrogates are escaped, too, although TOML cannot hold them.
    """
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
