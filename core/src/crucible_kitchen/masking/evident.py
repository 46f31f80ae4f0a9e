"""Secrets that are evident in a text: in URLs, in headers, and after names that say so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import urls
from .mask import blanked
from .names import counts, says_secret, says_secret_in_a_text

_QUOTED_NAME = re.compile(
    r"""(?P<q>\\*['"])(?P<name>[\w.-]{1,100})(?P=q)\s*:\s*b?(?P<v>\\*['"])(?P<value>.*?)(?P=v)""",
    re.DOTALL,
)
_ASSIGNED = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]{1,100})="""
    r"""(?:(?P<q>\\*['"])(?P<quoted>[^\n]{0,1000}?)(?P=q)"""
    r"""|(?:\\*['"])?(?!\.\.\.)(?P<bare>[^\s'"`,:;&=<>$(){}\[\]\\][^\s'"`,;&<>(){}\[\]\\]*))"""
)
_NOTHING = frozenset(["none", "null", "true", "false"])
_HEADER = re.compile(
    r"\bauthorization\W{0,6}(?:bearer|basic|digest|token|apikey)\s+(?P<value>[^\s'\",;}]+)",
    re.IGNORECASE,
)


def masked(text: str, *, whole: bool = False) -> str:
    """Return a text without the secrets that are evident in it: those in URLs, in headers, and
    in tables and assignments with a name that says so.

    Args:
        text: any text, such as a message.
        whole: whether it is one value, such as an option, so that a URL at its start ends where the
            text ends.
    """
    return blanked(text, evident(text, whole))


def evident(text: str, whole: bool) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each secret that is evident in a text."""
    if ":" in text or "=" in text:
        for found in urls.find(text, whole):
            yield found.start, found.end
        for header in _HEADER.finditer(text):
            yield header.span("value")
        for item in _ASSIGNED.finditer(text) if "=" in text else ():
            bare = item["bare"]
            if says_secret_in_a_text(item["name"]) and not _is_plain(item["name"], bare or ""):
                yield item.span("quoted" if bare is None else "bare")
        if "'" in text or '"' in text:
            for item in _QUOTED_NAME.finditer(text):
                if says_secret(item["name"]):
                    yield item.span("value")


def _is_plain(name: str, value: str) -> bool:
    return value.lower() in _NOTHING or (value.isdecimal() and counts(name, len(value)))
