"""A secret in every form in which libraries write it: one regular expression finds them all."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator

LONGEST = 500
"""Longest secret that is looked for in every form; of a longer one, each of its lines is."""

_ESCAPED = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}


def pattern(secret: str) -> str:
    """Return a pattern of the text as it is, and escaped or percent-encoded in whole or in part.

    That covers `repr` of a text and of its bytes, JSON, `quote`, `quote_plus`, HTML, and each of
    these applied twice. Search for it regardless of case: libraries write hosts in lower case.
    """
    # Several backslashes count as one: how often they were doubled is unknown.
    return "".join(map(_character, re.sub(r"\\+", r"\\", secret)))


def _character(character: str) -> str:
    if character.isascii() and character.isalnum():
        return f"(?:{character}|%(?:25)*{ord(character):02x})"
    return f"(?:{'|'.join(dict.fromkeys(_forms(character)))})"


def _forms(character: str) -> Iterator[str]:
    utf8 = character.encode(errors="surrogateescape" if _is_escape(character) else "surrogatepass")
    yield "".join(rf"%(?:25)*{byte:02x}" for byte in utf8)
    yield "".join(rf"\\+x{byte:02x}" for byte in utf8)
    utf16 = character.encode("utf-16-be", errors="surrogatepass")
    yield "".join(rf"\\+u{utf16[i : i + 2].hex()}" for i in range(0, len(utf16), 2))
    yield rf"\\+U{ord(character):08x}"
    if ord(character) < 256:
        yield rf"\\+x{ord(character):02x}"
        yield rf"%(?:25)*{ord(character):02x}"
    if character == "\\":
        yield r"\\+"
        return
    if character in _ESCAPED:
        yield rf"\\+{_ESCAPED[character]}"
    if character.isspace():
        yield r"\s|\+"
    if character == "'":
        yield "''"
    named = html.escape(character)
    yield rf"\\*{re.escape(character)}"
    yield rf"{re.escape(named)}|&#0*{ord(character)};|&#x0*{ord(character):x};"


def _is_escape(character: str) -> bool:
    return "\udc80" <= character <= "\udcff"  # a byte that was not UTF-8


def encoded(secret: str) -> Iterator[str]:
    """Yield patterns of the text in hexadecimal, and in base64 at any offset of what was encoded,
    as the password of `user:password` in a header. These are case-sensitive.
    """
    for codec in ("utf-8", "latin-1"):
        try:
            data = secret.encode(codec, errors="surrogateescape")
        except UnicodeEncodeError:
            continue
        yield f"{data.hex()}|{data.hex().upper()}"
        for before in range(3):
            text = base64.b64encode(b"\0" * before + data).decode()
            # Characters that also depend on the neighbours are left out.
            skipped, used = -(-before * 8 // 6), (before + len(data)) * 8 // 6
            if used - skipped >= 4:
                yield "".join(map(_of_base64, text[skipped:used]))


def _of_base64(character: str) -> str:
    return {"+": "(?:[+-]|%2[bB])", "/": "(?:[/_]|%2[fF])"}.get(character, character)


RUN = re.compile(r"[A-Za-z0-9+/_=%-]*")
"""How a text in base64 or hexadecimal can continue."""
