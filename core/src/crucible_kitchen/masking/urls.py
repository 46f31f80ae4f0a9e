"""Where a URL holds a secret: before its host, and in parameters with a name that says so.

Passwords that people type have characters that a URL may not hold: slashes, spaces, `@` and `#`.
So everything between `://` and the last `@` counts as secret, including the user, which may be a
token. A path with an `@` stays readable where it cannot be a password, that is without a colon
before the `@`, and

- after what looks like the name of a host: `https://host.org/pkg@2`;
- of a scheme whose first part is a bucket or a repository: `hf://datasets/me/rows@main`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .names import says_secret_in_a_query

_SCHEME = re.compile(
    # One slash, as `pathlib` leaves it; `\/`, as some write JSON.
    r"(?P<name>[a-z][a-z0-9+.-]{1,40}):(?:\\*/){2,}"
    r"|(?P<short>https?|s?ftps?|s3):\\*/"
    r"|(?P<jdbc>jdbc:oracle:\w{1,40}):",
    re.IGNORECASE,
)
_ENCODED = re.compile(r"%3A%2F%2F(?P<secret>[^\s&'\"<>]+)%40", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&;#])([\w%.~$\[\]-]{1,100})=")
_OUTSIDE = re.compile(r"[&\s'\"<>`]")
_CHAINED = re.compile(rf"::(?={_SCHEME.pattern})", re.IGNORECASE)
_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}|localhost|\d+\.\d+\.\d+\.\d+")
_PASSWORD_BEGINS = re.compile(r"[^\s/?#@:\[]*:(?!\d{0,5}(?:[/?#\s'\"]|$))")

_BUCKETS = frozenset(["az", "file", "gcs", "gs", "hf", "local", "memory", "s3", "s3a", "sqlite"])
_CONTAINERS = frozenset(["abfs", "abfss", "adl", "wasb", "wasbs"])
"""Schemes of Azure, in which `container@account` stands for a bucket."""

_PLACEHOLDER = "user:password"
"""What documentation writes, including our own messages."""

_CLOSING = {"'": "'", '"': '"', "`": "`", "<": ">"}


@dataclass(frozen=True, slots=True)
class Found:
    """Where a secret is in a text.

    Args:
        start, end: the positions of its first character and after its last.
        user: whether it stands before a host, as `user:password`; if not, it is the value of a
            parameter.
    """

    start: int
    end: int
    user: bool


def find(text: str, whole: bool) -> Iterator[Found]:
    """Yield every secret that URLs in a text hold.

    Args:
        text: any text.
        whole: whether it is one value, so that a URL at its start ends where the text ends.
            Otherwise a URL ends at a space, or with the quotes around it.
    """
    behind = 0
    for scheme in _SCHEME.finditer(text):
        start, end = scheme.end(), _end(text, scheme, whole)
        name = (scheme["name"] or scheme["short"] or scheme["jdbc"]).lower()
        if (at := _last_at(text, start, end)) >= 0:
            user = text[start:at]
            if user != _PLACEHOLDER and not _is_path(name, user):
                yield Found(start, at, True)
                end = max(end, at)
        if start >= behind:
            for found in _PARAMETER.finditer(text, start, end):
                if says_secret_in_a_query(found[1]):
                    stop = text.find("&", found.end(), end)
                    yield Found(found.end(), end if stop < 0 else stop, False)
            behind = end
    for found in _ENCODED.finditer(text):
        yield Found(*found.span("secret"), True)
    for found in _PARAMETER.finditer(text):  # of a path whose host a library left out
        if says_secret_in_a_query(found[1]):
            closing = _OUTSIDE.search(text, found.end())
            yield Found(found.end(), closing.start() if closing else len(text), False)


def _end(text: str, scheme: re.Match[str], whole: bool) -> int:
    """Return where a URL ends at the latest, except where that is ambiguous; see `_last_at`."""
    begin = scheme.start()
    while begin and (text[begin - 1].isalnum() or text[begin - 1] in "+.:-_"):
        begin -= 1  # jdbc:, simplecache::
    if whole and begin == 0 and "\n" not in text:
        end = len(text)
    elif begin and (closing := _CLOSING.get(text[begin - 1])):
        found = re.compile(rf"(?<!\\){closing}").search(text, scheme.end())
        end = found.start() if found else len(text)
    else:
        space = re.compile(r"\s").search(text, scheme.end())
        end = space.start() if space else len(text)
    chained = _CHAINED.search(text, scheme.end(), end)
    return chained.start() if chained else end


def _last_at(text: str, start: int, end: int) -> int:
    at = text.rfind("@", start, end)
    if at < 0 and _PASSWORD_BEGINS.match(text, start, end):
        # A password may contain the space or the quote at which the URL seems to end.
        line = text.find("\n", end)
        line = len(text) if line < 0 else line
        following = _SCHEME.search(text, end, line)
        at = text.rfind("@", end, following.start() if following else line)
    return at


def _is_path(scheme: str, before: str) -> bool:
    """Say whether the part before an `@` is a host and a path, and so not a secret."""
    if ":" in before:
        return False
    host, *path = re.split(r"[/?#]", before, maxsplit=1)
    scheme = scheme.rpartition(":")[2]
    if scheme in _CONTAINERS:
        return True
    if not path or "@" in host:
        return False
    return not host or scheme in _BUCKETS or _HOST.fullmatch(host) is not None
