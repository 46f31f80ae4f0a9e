"""Replaying: each call is looked up, and answered as it was when it was recorded."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from crucible_kitchen import PORTS, CrucibleWarning, Unsupported, helper, hookimpl

from .answering import AnsweringObjects
from .arguments import Arguments
from .contract import signature
from .failures import error_of
from .files import Files
from .handles import RecordedHandle
from .interactions import Checkpoints, Interaction, ReplayedStream, interactions_of
from .missing import NotOnCassette
from .objects import ADAPTER
from .questions import Questions
from .reading import lines_of
from .values import Json, Plain, unrecordable, value_of

_PLAIN = {texts: Plain(str, briefly=True, texts=texts) for texts in (False, True)}
_OF_BACKENDS: Mapping[str, Any] = {"clean": (), "close": None, "ping": None}
"""Answers of callbacks that are about a backend: there is nothing to remove, and to reach."""


class Player:
    """An adapter that answers from a cassette. It has the callbacks that the recorded one had.

    Args:
        file: the cassette.
        port: the port's name.
        varying: regular expressions of further parts of texts that are not compared.
        ordered: whether calls must come in the order in which they were recorded.

    Raises:
        ValueError: the cassette cannot be replayed.
    """

    def __init__(
        self, file: Path, port: str, varying: Sequence[str] = (), ordered: bool = False
    ) -> None:
        lines = lines_of(file, port)
        header = next(lines)
        self.__name__ = f"recorded {header.get('adapter')}"
        self._file, self._port, self._id = file, port, str(header.get("id"))
        self._files = Files.of(file, 0)
        self._warned = False
        self._kept = (
            f"a replay deletes no checkpoints: those of the recording {file} stay where they were "
            "saved"
        )
        self._objects = AnsweringObjects(self._id, str(file))
        names, calls = interactions_of(file, port, chain([header], lines), self._objects)
        self._questions = Questions(str(file), port, calls, varying, ordered)
        self._calls = calls
        for name in names:
            setattr(self, name, self._callback(name))
        for name in self._objects.helpers:
            setattr(self, name, self._helper(name))
        if port == "training_client":
            self.keeps_checkpoints = helper(lambda opts: self._kept)

    def find(self, handle: Any) -> int | None:
        """Return the number of a handle; None for what is not one of this cassette."""
        ours = isinstance(handle, RecordedHandle) and handle.cassette == self._id
        return handle.number if ours else None

    def answer(self, name: str, given: Mapping[str, Any]) -> Any:
        """Answer a call.

        Raises:
            NotOnCassette: it was not recorded.
            AdapterError: what the call raised when it was recorded.
        """
        # Not masked: a mask on the cassette stands for any text, and errors are masked later.
        made = Arguments.of(self._port, name, given, self, str)
        if (kind := unrecordable(made.plain)) is not None:
            raise Unsupported(f"an argument is or holds {kind}, which a cassette cannot compare")
        try:
            found = self._found(name, given, made)
        except NotOnCassette as error:
            if error.unknown and name == "delete_checkpoint":  # so that runs can be deleted
                self._warn_of_checkpoints()
                return None
            if error.unknown and name == "list_checkpoints":
                checkpoints = Checkpoints(self._calls, self._questions.recorded)
                listed = checkpoints.listed(given["prefix"])
                if listed is not None:
                    return listed
            raise
        outcome = found.outcome
        if "raised" in outcome:
            raise error_of(outcome["raised"], value_of)
        if "streams" in outcome:
            return ReplayedStream(found, self._file)
        if "wrote" in outcome:
            self._files.put_back(outcome["wrote"], given["folder"])
        returned = outcome["returned"]
        if signature(self._port, name).returns_handle:
            return RecordedHandle(self._id, returned["$handle"])
        if isinstance(returned, dict) and "$files" in returned:
            return self._files.path_of(returned)
        return value_of(returned)

    def _found(self, name: str, given: Mapping[str, Any], made: Arguments) -> Interaction:
        try:
            return self._questions.answer(name, made)
        except NotOnCassette:
            # Where something was masked, long texts are written, in which it may be.
            whole = Arguments.of(self._port, name, given, self, str, texts=True)
            if whole.passed or whole.plain == made.plain:
                raise
            return self._questions.answer(name, whole)

    def _warn_of_checkpoints(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(self._kept, CrucibleWarning, stacklevel=2)

    def _callback(self, name: str) -> Any:
        spec = inspect.signature(PORTS[self._port].callbacks()[name]).parameters
        takes = [each for each in spec if each not in ("self", "opts")]

        def answer(*values: Any) -> Any:
            if name in _OF_BACKENDS:
                return _OF_BACKENDS[name]
            return self.answer(name, dict(zip(takes, values, strict=True)))

        kinds = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in takes]
        answer.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
        answer.__name__ = name
        return hookimpl(answer)

    def _helper(self, name: str) -> Any:
        def ask(opts: Any, *args: Any, **kwargs: Any) -> Any:
            return self._objects.ask(ADAPTER, name, args, kwargs, self._plain)

        return helper(ask)

    def _plain(self, value: Any, texts: bool = False) -> Json:
        number = self.find(value)
        if number is not None:
            return {"$handle": number}
        return _PLAIN[texts](value)
