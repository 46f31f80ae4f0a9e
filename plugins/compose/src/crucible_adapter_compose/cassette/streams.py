"""Recording a stream: its items are written down in order, without a secret that crosses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from crucible_kitchen import AdapterError, CompletionChunk, Stream

from .values import Json

_HELD = 1 << 16
"""Characters of items that are held back at most, before they are looked through."""
_LONGEST = 1 << 14
"""Characters of a secret in any form, which are held back further: its rest may follow."""
_CROSSES = {"$unrecordable": "secret that crosses its pieces"}


class Notes(Protocol):
    """Where items are written down."""

    def plain(self, value: Any) -> Json:
        """Return an item as JSON, without secrets."""
        ...

    def without_known(self, text: str) -> str:
        """Return a text without the known secrets."""
        ...

    def note(self, number: int, **what: Json) -> None:
        """Write down something about a call."""
        ...

    def ended(self, number: int, error: AdapterError) -> None:
        """Write down that it failed."""
        ...


class RecordedStream(Iterator[Any]):
    """A stream whose items are recorded as they come, but for those at its end that may hold the
    beginning of a secret.

    Args:
        stream: the stream.
        number: of its call.
        notes: where they are written down.
    """

    def __init__(self, stream: Stream[Any], number: int, notes: Notes) -> None:
        self._stream, self._number, self._notes = stream, number, notes
        self._open = True
        self._held: deque[tuple[Json, bytes | str]] = deque()
        self._length = 0

    def __next__(self) -> Any:
        try:
            item = next(self._stream)
        except StopIteration:
            self._end("exhausted")
            raise
        except AdapterError as error:
            if self._open:
                self._open = False
                self._write(0)
                self._notes.ended(self._number, error)
            raise
        if self._open:
            self._hold(item)
        return item

    def close(self) -> None:
        """Free what the stream holds."""
        try:
            self._stream.close()
        finally:
            self.leave()

    def leave(self) -> None:
        """Record the stream up to here, and no further."""
        self._end("left")

    def _end(self, how: str) -> None:
        if self._open:
            self._open = False
            self._write(0)
            self._notes.note(self._number, ended=how)

    def _hold(self, item: Any) -> None:
        plain, content = self._notes.plain(item), _content(item)
        if content is None:
            self._notes.note(self._number, item=plain)
            return
        self._held.append((plain, content))
        self._length += len(content)
        if self._length > _HELD:
            self._write(_LONGEST)

    def _write(self, keep: int) -> None:
        """Write down what is held, but for the last so many characters."""
        if len(self._held) > 1:
            contents = [content for _, content in self._held]
            if _secret_crosses(contents, self._notes.without_known):
                self._held = deque((_CROSSES, content) for content in contents)
        while self._held and self._length - len(self._held[0][1]) >= keep:
            item, content = self._held.popleft()
            self._length -= len(content)
            self._notes.note(self._number, item=item)


def _content(item: Any) -> bytes | str | None:
    """Return what goes on in the next item; None of a row, which does not."""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    return item.text if isinstance(item, CompletionChunk) else None


def _secret_crosses(pieces: Sequence[bytes | str], masked: Callable[[str], str]) -> bool:
    """Return whether pieces hold a secret together that none of them holds alone."""
    texts = [each for each in pieces if isinstance(each, str)]
    whole = b"".join(each for each in pieces if isinstance(each, bytes))

    def without(content: bytes, codec: str) -> bytes:
        text = masked(content.decode(codec, "surrogateescape"))
        return text.encode(codec, "surrogateescape")

    # A character may have its bytes in two pieces, so bytes are compared.
    return masked("".join(texts)) != "".join(map(masked, texts)) or any(
        without(whole, codec)
        != b"".join(without(each, codec) for each in pieces if isinstance(each, bytes))
        for codec in (("utf-8",) if whole.isascii() else ("utf-8", "latin-1"))
    )
