"""Record every call to an adapter, and replay it without the backend."""

from __future__ import annotations

import re
import weakref
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Generic, Literal

from crucible_kitchen import (
    PORTS,
    AdapterOptions,
    BlobStore,
    Call,
    Completer,
    DatasetStore,
    HubClient,
    LocalPath,
    MetricsStore,
    TrainingClient,
    hookimpl,
    resource,
)
from crucible_kitchen import helper as helper_
from pydantic import (
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from ..recordings import check_apart
from ..wrapper import PortT, Wrapper
from .player import Player
from .reading import whole
from .recorder import Recorder
from .tape import taken

FOREIGN = {"none": "replay", "all": "record", "rewrite": "record", "new_episodes": "record"}
"""What VCR.py calls these modes."""

_RECORDED: MutableMapping[tuple[Path, str], CassetteOptions[Any]] = weakref.WeakValueDictionary()
"""Who records, by file and port."""


class CassetteOptions(AdapterOptions, Generic[PortT]):
    mode: Literal["replay", "record", "once"] = "replay"
    """`replay` answers from the cassette, and never calls `inner`, which need not be installed.
    `record` calls `inner`, and is refused where the cassette exists: delete it to record it again.
    `once` replays a cassette that exists, and records one that does not."""
    file: LocalPath
    """The cassette, a file of JSON lines. Files that calls return are in `<file>.files` next to
    it."""
    varying: tuple[str, ...] = ()
    """Regular expressions of parts of texts in arguments that differ from run to run, so that a
    replay does not compare them. UUIDs and what is random in the ids of runs and in the labels of
    their checkpoints are known."""
    ordered: bool = False
    """Whether a replay takes calls in the order in which they were recorded alone, as a program
    without threads makes them. Else a call outside a session is answered whenever it is made."""
    max_file_bytes: int = Field(default=64 << 20, ge=0)
    """Bytes of the files that one call returns or writes, beyond which a recording does not keep
    them; replayed, such a call is `Unsupported`."""
    inner: PortT = Field(default=None, validate_default=True)
    """The adapter that is recorded. In a replay it is neither imported nor bound, and the cassette
    stands in its place."""

    @classmethod
    def port(cls) -> Any:
        """Return the class of the port."""
        return cls.model_fields["inner"].annotation

    @field_validator("mode", mode="before")
    @classmethod
    def _named_as_here(cls, mode: Any) -> Any:
        if (ours := FOREIGN.get(mode) if isinstance(mode, str) else None) is not None:
            first = ", after the older cassette was deleted" if ours == "record" else ""
            raise ValueError(f"what VCR.py calls {mode!r} is {ours!r} here{first}")
        return mode

    @field_validator("varying")
    @classmethod
    def _expressions(cls, varying: tuple[str, ...]) -> tuple[str, ...]:
        for each in varying:
            try:
                matches_nothing = re.compile(each).fullmatch("")
            except re.error as error:
                raise ValueError(f"{each!r} is not a regular expression: {error}") from None
            if matches_nothing:
                raise ValueError(f"{each!r} matches the empty text; name a part that differs")
        return varying

    @field_validator("file")
    @classmethod
    def _fits_the_mode(cls, file: Path, info: ValidationInfo) -> Path:
        mode = info.data.get("mode")
        if mode == "record" and file.exists():
            raise ValueError(taken(file))
        if mode == "replay" or (mode == "once" and file.exists()):
            whole(file, cls.port().name)
        return file.absolute()  # the working directory may be another one when it is written

    @field_validator("inner", mode="wrap")
    @classmethod
    def _replaced_by_the_cassette(
        cls, inner: Any, bind: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        port, known = cls.port(), info.data
        mode, file = known.get("mode"), known.get("file")
        if isinstance(inner, port):  # bound already
            return inner
        if mode is None or file is None:  # which is the mistake that is reported
            return None
        if mode == "replay" or (mode == "once" and file.exists()):
            varying, ordered = known.get("varying", ()), known.get("ordered", False)
            return bind({"use": Player(file, port.name, varying, ordered)})
        if inner is None:
            raise ValueError('name the adapter to record: inner = "<name>"')
        return bind(inner)

    @model_validator(mode="after")
    def _records_alone(self) -> CassetteOptions[PortT]:
        if self.replays:
            return self
        check_apart([self.inner], self.file)
        name, file = self.port().name, self.file.resolve()
        for port in PORTS:
            if port != name and (file, port) in _RECORDED:
                raise ValueError(
                    f"{name} and {port} would both record to {self.file}; give each a file of its "
                    "own"
                )
        _RECORDED[file, name] = self
        return self

    @property
    def replays(self) -> bool:
        """Whether the cassette answers."""
        return isinstance(self.inner.module, Player)

    @property
    def records_to(self) -> Path | None:
        """The file in which it is recorded; None in a replay."""
        return None if self.replays else self.file


@resource
def _recorder(opts: CassetteOptions[Any]) -> Recorder:
    return Recorder(opts.inner, opts.file, opts.max_file_bytes)


class Cassette(Wrapper):
    """Record every call to an adapter, and replay it without the backend.

    A replay answers each call as it was answered when it was recorded: results, streams piece by
    piece, errors, and what helpers return. Calls are found by their callback and their arguments,
    those of a session in their order; threads may take turns otherwise than they did. A call that
    was not recorded is an error that names the nearest one and what differs.
    """

    @hookimpl
    def around(self, opts: CassetteOptions[Any], call: Call) -> Any:
        if opts.replays or call.name == "ping":  # to be there is not an answer to be recorded
            return call()
        return _recorder(opts).run(call)

    @helper_
    def around_helper(self, opts: CassetteOptions[Any], name: str, function: Any) -> Any:
        return function if opts.replays else _recorder(opts).helper(name, function)

    @hookimpl
    def close(self, opts: CassetteOptions[Any]) -> None:
        if (recorder := _recorder.peek(opts)) is not None:
            recorder.finish()
        _RECORDED.pop((opts.file.resolve(), opts.port().name), None)


training_client = Cassette("cassette", CassetteOptions[TrainingClient])
dataset_store = Cassette("cassette", CassetteOptions[DatasetStore])
blob_store = Cassette("cassette", CassetteOptions[BlobStore])
hub_client = Cassette("cassette", CassetteOptions[HubClient])
metrics_store = Cassette("cassette", CassetteOptions[MetricsStore])
completer = Cassette("cassette", CassetteOptions[Completer])
