"""Any text as a name that MLflow accepts, and back.

MLflow's metric keys are letters, digits, `_`, `-`, `.`, space, `:` and `/`, and must look like a
normal relative path. Such names stay as they are, except that `:` escapes all other characters:
`:40` is the byte 0x40 of the name's UTF-8, and a `:` alone is an empty part. So `test/nll` stays
`test/nll`, `loss@1` is `loss:401`, and `a//b` is `a/:/b`.
"""

from __future__ import annotations

import re

_TO_ESCAPE = re.compile(r"[^\w\-. ]")
_ESCAPED = re.compile(r"(?::[0-9a-f]{2})+")
_EMPTY = ":"


def encode(text: str) -> str:
    """Return the name in MLflow: different for every text, and never empty."""
    return "/".join(map(_encode_part, text.split("/")))


def decode(name: str) -> str:
    """Return the text that a name encodes."""
    return "/".join(
        "" if part == _EMPTY else _ESCAPED.sub(lambda found: _unescape(found[0]), part)
        for part in name.split("/")
    )


def _encode_part(part: str) -> str:
    if not part:
        return _EMPTY
    if part in (".", ".."):
        return _escape(part)
    return _TO_ESCAPE.sub(lambda found: _escape(found[0]), part)


def _escape(text: str) -> str:
    return "".join(f":{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def _unescape(text: str) -> str:
    # A name from another program may not be UTF-8 once unescaped.
    try:
        return bytes.fromhex(text.replace(":", "")).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text
