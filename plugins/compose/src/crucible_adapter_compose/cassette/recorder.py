"""Recording: each call is made, and written down with its answer."""

from __future__ import annotations

import json
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crucible_kitchen import AdapterError, Call, CrucibleWarning, Stream

from .arguments import Arguments
from .contract import signature
from .failures import plain_error
from .files import Files
from .handles import Numbers, plain_handle
from .objects import AskedObjects
from .streams import RecordedStream
from .tape import Tape
from .values import Json, Plain, unrecordable


class Recorder:
    """Records the calls of one adapter. Safe to use from any thread.

    Args:
        port: the adapter, bound.
        file: where the cassette will be.
        max_file_bytes: bytes of one call's files, beyond which they are not kept.
    """

    def __init__(self, port: Any, file: Path, max_file_bytes: int) -> None:
        self._port = port
        self._files = Files.of(file, max_file_bytes)
        self._numbers = Numbers()
        self._lock = threading.Lock()
        self._last = 0
        self._secrets: dict[str, dict[str, int]] = {}
        self._streams: weakref.WeakSet[RecordedStream] = weakref.WeakSet()
        serves = [name for name in port.callbacks() if port.supports(name)]
        header = {"port": port.name, "adapter": port.adapter, "callbacks": serves}
        self._tape = Tape(file, header)
        self._objects = AskedObjects(self._tape, self._numbers, self._masked, self._known)

    def finish(self) -> None:
        """Complete the cassette. Streams that are still open are left there."""
        for stream in [*self._streams]:
            stream.leave()
        self._tape.finish()

    def helper(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a helper of the adapter whose answers are recorded."""
        return self._objects.helper(name, function)

    def run(self, call: Call) -> Any:
        """Make a call, and record it."""
        made = Arguments.of(call.port, call.name, call.arguments, self._numbers, self._masked)
        with self._lock:  # the order of calls is that in which they begin
            self._last = number = self._last + 1
            line = {"call": number, "name": call.name, **self._told_apart(call.name, made)}
        try:
            result = call.on(self._port, **made.passed) if made.passed else call()
        except AdapterError as error:
            self._write(line, made, raised=self._error(error))
            raise
        if (kind := unrecordable(made.plain)) is not None:
            warnings.warn(
                f"this call of {call.port}.{call.name} cannot be replayed: an argument is or holds "
                f"{kind}, which a cassette cannot compare",
                CrucibleWarning,
                stacklevel=2,
            )
        if isinstance(result, Stream):
            self._write(line, made, streams=True)
            self._streams.add(stream := RecordedStream(result, number, self))
            return stream
        if signature(call.port, call.name).returns_handle:
            answer = plain_handle(self._numbers.of(result), result)
        elif isinstance(result, Path):
            answer = self._files.keep(result, self._known)
        else:
            answer = self.plain(result)
        self._write(line, made, returned=answer, **self._wrote(call.arguments))
        return result

    def _told_apart(self, name: str, made: Arguments) -> dict[str, Json]:
        """Number the calls that differ in their secrets alone. The first has none."""
        if not (hidden := made.masking.hidden):
            return made.masking.about()
        known = self._secrets.setdefault(json.dumps([name, made.plain]), {})
        number = known.setdefault(json.dumps(hidden), len(known))
        return {"secrets": number} if number else {}

    def _wrote(self, arguments: Mapping[str, Any]) -> dict[str, Json]:
        folder = arguments.get("folder")
        return {"wrote": self._files.keep(folder, self._known)} if folder is not None else {}

    def _write(self, line: Mapping[str, Json], made: Arguments, **outcome: Json) -> None:
        self._tape.write({**line, "arguments": made.complete(), **outcome})

    def note(self, number: int, **what: Json) -> None:
        """Record what a stream yields, or how it ends."""
        self._tape.write({"call": number, **what})

    def plain(self, value: Any) -> Json:
        """Return an answer as JSON. In what are data, such as rows, only known secrets are masked:
        a text that looks like one may be a row about passwords.
        """
        data = self._port.name in ("blob_store", "completer", "dataset_store", "metrics_store")
        return Plain(self._known if data else self._masked)(value)

    def _error(self, error: AdapterError) -> Json:
        return plain_error(error, Plain(self._masked))

    def ended(self, number: int, error: AdapterError) -> None:
        """Record that a stream failed."""
        self.note(number, ended={"raised": self._error(error)})

    def without_known(self, text: str) -> str:
        """Return a text without the known secrets."""
        return self._known(text)

    def _masked(self, text: str) -> str:
        return str(self._port.redacted(text))

    def _known(self, text: str) -> str:
        return str(self._port.redacted(text, known_only=True))
