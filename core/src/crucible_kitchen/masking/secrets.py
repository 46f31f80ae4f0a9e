"""The secrets that a program knows, wherever they came from."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator, Mapping, Set
from typing import Any, get_args, get_origin
from urllib.parse import unquote, unquote_plus

from pydantic import BaseModel

from . import forms, urls
from .evident import evident
from .mask import blanked
from .names import names_secret, says_secret

SHORTEST = 4
"""Shortest secret that is looked for in text; anything shorter would match ordinary words."""

PIECE = 3
"""The same for a piece of a URL's password, which is masked only if it is not part of a word."""

LINE = 16
"""The same for a line of a long secret, such as a private key."""

PART = 6
"""The same for the part of a secret that is left where a text was cut."""

DEEPEST = 100
"""How deep values are searched for secrets."""

_CUT = re.compile(r"(?:\.{3,}|\u2026)+|\Z")
_SCHEMES = frozenset(["apikey", "basic", "bearer", "digest", "token"])


def redacted(text: str, model: BaseModel) -> str:
    """Return the text with every secret that the model holds masked, for messages of libraries."""
    return Secrets(model).masked(text)


class Secrets:
    """The secrets that are known, wherever they came from. Safe to use from any thread.

    Secrets are the values of `SecretStr` and `Secret`, values in tables with a name that says so,
    and parts of URLs: the user, the password, and parameters with such a name.
    """

    def __init__(self, *values: Any) -> None:
        self._lock = threading.Lock()
        self._wholes: set[str] = set()
        self._pieces: set[str] = set()
        self._patterns: tuple[list[re.Pattern[str]], re.Pattern[str]] | None = None
        for value in values:
            self.learn(value)

    def __repr__(self) -> str:
        return f"<{len(self._wholes)} secrets>"

    def learn(self, value: Any, *, secret: bool = False) -> None:
        """Mask the secrets in a value from now on.

        Args:
            value: options, a configuration, plain data, or a text.
            secret: whether all of it is secret.
        """
        found = [*_secrets(value, secret, 0)]
        with self._lock:
            self._patterns = None
            for text, pieces in found:
                if len(text) > forms.LONGEST:
                    self._wholes.update(line for line in text.split() if len(line) >= LINE)
                elif len(text) >= SHORTEST:
                    self._wholes.add(text)
                self._pieces.update(piece for piece in pieces if len(piece) >= PIECE)

    def masked(self, text: str, *, whole: bool = False, known_only: bool = False) -> str:
        """Return a text without these secrets, in whatever form, and without those that are evident
        in it; see `evident`.

        Args:
            text: any text.
            whole: whether it is one value; see `evident`.
            known_only: leave those that are merely evident.
        """
        spans = [] if known_only else [*evident(text, whole)]
        if self._wholes or self._pieces:
            plain, encoded = self._compiled()
            for pattern in plain:
                spans += (found.span() for found in pattern.finditer(text))
            spans += self._cut_in(text)
            for found in encoded.finditer(text):
                start, end = found.span()
                while start and forms.RUN.fullmatch(text[start - 1]):
                    start -= 1
                run = forms.RUN.match(text, end)
                spans.append((start, run.end() if run else end))
        return blanked(text, iter(spans))

    def _cut_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where parts of secrets are left in a text that was cut, as by `reprlib`."""
        for cut in _CUT.finditer(text):
            for secret in tuple(self._wholes):
                begin = max(0, cut.start() - len(secret))
                start = text.find(secret[:PART], begin, cut.start())
                while start >= 0 and not secret.startswith(text[start : cut.start()]):
                    start = text.find(secret[:PART], start + 1, cut.start())
                if start >= 0:
                    yield start, cut.start()
                end = text.rfind(secret[-PART:], cut.end(), cut.end() + len(secret))
                if end >= 0 and secret.endswith(text[cut.end() : end + PART]):
                    yield cut.end(), end + PART

    def _compiled(self) -> tuple[list[re.Pattern[str]], re.Pattern[str]]:
        with self._lock:
            if self._patterns is None:
                wholes = sorted(self._wholes, key=len, reverse=True)
                pieces = sorted(self._pieces - self._wholes, key=len, reverse=True)
                between = "|".join(map(_between, pieces)) or "(?!)"
                coded = "|".join(each for whole in wholes for each in forms.encoded(whole))
                self._patterns = (
                    # One for each, because one may overlap another.
                    [re.compile(each, re.I) for each in (*map(forms.pattern, wholes), between)],
                    re.compile(coded or "(?!)"),
                )
            return self._patterns


def _between(piece: str) -> str:
    """Return the pattern of a piece that is not part of a word."""
    before = r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2})|(?<=\\[nrt]))"
    return f"{before}{forms.pattern(piece)}(?![a-z0-9])"


def is_secret(annotation: Any) -> bool:
    """Say whether a type is a secret, or can hold one."""
    if hasattr(get_origin(annotation) or annotation, "get_secret_value"):
        return True
    return any(is_secret(argument) for argument in get_args(annotation))


Known = tuple[str, tuple[str, ...]]
"""A secret, and the pieces that libraries may show of it."""


def _secrets(value: Any, inside: bool, depth: int) -> Iterator[Known]:
    """Yield every text that is a secret; `inside` a secret value, every text in it."""
    if depth > DEEPEST:
        return
    if hasattr(value, "get_secret_value"):
        yield from _secrets(value.get_secret_value(), True, depth + 1)
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            secret = inside or is_secret(field.annotation) or says_secret(name)
            yield from _secrets(getattr(value, name, None), secret, depth + 1)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            # `protocol = "file"` in a table whose type is secret: every message has such words.
            plain = item.get_secret_value() if hasattr(item, "get_secret_value") else item
            if names_secret(name) or not (isinstance(plain, str) and plain.isalpha()):
                yield from _secrets(item, inside or names_secret(name), depth + 1)
    elif isinstance(value, list | tuple | Set):
        for item in value:
            yield from _secrets(item, inside, depth + 1)
    elif isinstance(value, bytes):
        if inside:
            yield from _secrets(value.decode(errors="surrogateescape"), True, depth + 1)
    elif isinstance(value, str):
        yield from _of_urls(value)
        if inside:
            yield value, ()
            yield from _of_header(value)
    elif inside and isinstance(value, int) and not isinstance(value, bool):
        yield repr(value) if value.bit_length() < 1000 else "", ()


def _of_urls(value: str) -> Iterator[Known]:
    for found in urls.find(value, whole=True):
        text = value[found.start : found.end]
        user, colon, password = text.partition(":")
        for each in (text, user, password) if found.user and colon else (text,):
            # Libraries may split such a URL elsewhere, so each piece counts.
            pieces = re.split(r"[\s/@:#?&=;,%\\\[\]'\"]+", each) if found.user else []
            yield each if each != user or not colon else "", tuple(pieces)
            for plain in {unquote(each), unquote_plus(each)} - {each}:
                yield plain, ()


def _of_header(value: str) -> Iterator[Known]:
    """Yield the secrets in a header, such as `Basic ...`, `Bearer ...` or a cookie."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() in _SCHEMES:
        yield rest.strip(), ()
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(rest).decode().partition(":")
            except ValueError:
                return
            yield from (each for each in ((user, ()), (password, ())))
    for cookie in value.split(";") if "=" in value else ():
        yield cookie.partition("=")[2].strip(), ()
