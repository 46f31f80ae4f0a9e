"""The contract: what the adapters of the six ports implement.

A port is a pair of classes here. Callbacks of `<Port>Spec` are mandatory, those of
`<Port>OptionalSpec` may be left out, and so may those of `AdapterSpec`, which every port has. An
adapter is a module, or an object, whose functions of these names are marked `@hookimpl`:

    @hookimpl
    def read(opts: Options, path: str) -> bytes: ...

Every callback takes the adapter's bound options first, as `opts` (an implementation that has no
use for them may leave them out), then its arguments by name. A callback may leave out an argument
that has a default in `crucible_kitchen.ports`; a caller who passes anything but that default then
gets `Unsupported`, so nothing is silently ignored. Callbacks return values of the annotated types,
which the port checks, and raise `AdapterError`s; they are plain functions, called from any thread.
A handle of a session, a future or a data set may be anything but None.

The specs are generic in the type of the options and of the handles, and carry no defaults, so
that a type checker can hold a module against its port:

    if TYPE_CHECKING:
        import crucible_adapter_acme.blob_store as this_module

        _: BlobStoreSpec[Options] = this_module

Callbacks marked `repeatable` may be run again even when it is unknown whether the first attempt
had an effect: a second run leaves the world as one run does. Wrappers that retry rely on it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, TypeVar

import pluggy

from .errors import AdapterError
from .returned import Check, check_of, items_of, returned
from .types import (
    AdamParams,
    Completion,
    CompletionChunk,
    Datum,
    FloatArray,
    ForwardBackwardResult,
    MetricEntry,
    OptimStepResult,
    Prompt,
    SamplingParams,
    SessionConfig,
)

PROJECT = "crucible"

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of the callback of its name."""

_hookspec = pluggy.HookspecMarker(PROJECT)

PING_TIMEOUT: float = 5.0
"""Longest time, in seconds, that an adapter's `ping` may wait for its backend."""

F = TypeVar("F", bound=Callable[..., Any])
OptsT = TypeVar("OptsT", contravariant=True)
SessionT = TypeVar("SessionT")
FutureT = TypeVar("FutureT")
DatasetT = TypeVar("DatasetT")
# Where a callback of the optional specs only takes or only returns a handle:
SessionArgT = TypeVar("SessionArgT", contravariant=True)
FutureRetT = TypeVar("FutureRetT", covariant=True)
DatasetArgT = TypeVar("DatasetArgT", contravariant=True)

if TYPE_CHECKING:
    # A list takes no other types than its own, and an adapter may promise completions alone.
    Answer: TypeAlias = Completion | Any
else:
    Answer = Completion | AdapterError


def helper(function: F) -> F:
    """Mark a function, `opts` first, that is offered beside the callbacks of the port.

    Callers reach it as `port.helper(name)`, with the options bound. Helpers are an agreement
    between an adapter and its users; `get_tokenizer(opts, session)` is the one that workflows
    ask training clients for.
    """
    function.crucible_helper = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True, slots=True)
class CallbackTraits:
    """What the system must know about a callback beside its signature.

    Args:
        repeatable: whether it may be run again, given the arguments of the call.
        stream: whether it returns an iterable that the port hands out as a `Stream`.
        result: checks what it returns.
        item: checks each item of a stream.
        count: how many items it must return, given the arguments; None is any number.
        errors: whether items of the result may be errors, each of which the port explains.
    """

    repeatable: Callable[[Mapping[str, Any]], bool]
    stream: bool
    result: Check
    item: Callable[[Any], None]
    count: Callable[[Mapping[str, Any]], int] | None
    errors: bool


def _callback(
    *,
    repeatable: bool | Callable[[Mapping[str, Any]], bool] = False,
    stream: bool = False,
    count: Callable[[Mapping[str, Any]], int] | None = None,
    errors: bool = False,
    deprecated: str | None = None,
) -> Callable[[F], F]:
    """Declare a callback. The first implementation's result is the result (there is one).

    Whoever implements a deprecated one is told why when the adapter is bound.
    """
    decide = repeatable if callable(repeatable) else lambda arguments: bool(repeatable)
    warning = DeprecationWarning(deprecated) if deprecated else None

    def declare(function: F) -> F:
        result = returned(function)
        item = partial(check_of(items_of(result) if stream else Any), verb="yield")
        traits = CallbackTraits(decide, stream, check_of(result), item, count, errors)
        function.crucible_traits = traits  # type: ignore[attr-defined]
        return _hookspec(firstresult=True, warn_on_impl=warning)(function)

    return declare


class AdapterSpec(Protocol[OptsT]):
    """Optional callbacks that every port has."""

    @_callback(repeatable=True)
    def close(self, opts: OptsT) -> None:
        """Release what the adapter keeps under these options: connections, threads, buffers.

        Called once when the kitchen closes, after everything written was flushed by its writer, in
        a thread of its own. One that takes longer than 30 s is left, and the process ends without
        it. A later call may make the resources anew. Closing twice is fine.
        """
        ...

    @_callback(repeatable=True)
    def ping(self, opts: OptsT) -> None:
        """Ask the backend for a sign of life under these options, credentials included.

        Return if it answered, change nothing, and give up after `PING_TIMEOUT`, 5 s. `Unavailable`
        and `AdapterTimeout` mean that it cannot be reached, `Unauthorized` that it refuses. An
        adapter with nothing to reach leaves this out. `crucible doctor` calls it.
        """
        ...

    @_callback(repeatable=True)
    def clean(self, opts: OptsT, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
        """Remove what killed processes left behind, and return the name of each thing removed.

        Without a `prefix`, that is whatever lies unfinished under these options and is certain to
        have no writer any more: its lock is free, or it is older than a day where there are no
        locks, as with a multi-part upload.

        With a `prefix`, whatever lies unfinished under a label or path that starts with it: the
        caller guarantees that no other process works there, and none of this one's is under way. A
        training client also removes the complete checkpoints, and the weights that were saved
        with a name, whose label or name starts with it and whose reference is not in `keep`.
        Labels are compared as they were given: `run/1/` is not how `run/10/` begins.

        Nothing else is touched, and what is damaged or belongs to somebody else stops nothing.
        Complete checkpoints and weights are named by their references. With `dry_run` nothing is
        removed, and the names are of what would be. An adapter that leaves nothing behind leaves
        it out. `crucible clean`, and the start of a run, call it.
        """
        ...

    @_callback()
    def around(self, opts: OptsT, call: Any) -> Any:
        """Run in place of every callback that this adapter leaves to its option `inner`.

        `call()` passes the call on and returns its result, `call.on(port)` runs it on another
        adapter of the same port; see `crucible_kitchen.Call` for what it tells. Whatever is
        returned is the result of the call. Where that is a stream, `call()` returns a `Stream`,
        and whatever wraps it must close it.
        """
        ...


class TrainingClientSpec(Protocol[OptsT, SessionT, FutureT]):
    """Train a language model, one operation at a time.

    A session executes its operations in the order of submission. `forward_backward` and
    `optim_step` submit and return at once, so the right use is to submit both, then await both.

    A failed operation fails its session: everything queued behind it, and every later call but
    `load_checkpoint` and `close_session`, raises `SessionFailed`, because weights that missed a
    gradient must never be used.
    """

    @_callback()
    def start_session(self, opts: OptsT, config: SessionConfig) -> SessionT:
        """Load or create a model to be trained and return the session's handle.

        Bad credentials (`Unauthorized`), an unknown model (`NotFound`) and a field of `config`
        that cannot be honoured (`Unsupported`) fail here, not later.
        """
        ...

    @_callback()
    def forward_backward(
        self,
        opts: OptsT,
        session: SessionT,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None,
    ) -> FutureT:
        """Submit a loss and its gradient; return a future of `ForwardBackwardResult`.

        The loss is the sum over tokens; its formula is in `crucible_kitchen.losses`. Gradients
        accumulate until the next `optim_step`: two calls equal one call with both batches to
        1e-5 relative. How a large batch is cut into pieces is invisible, nothing is truncated.

        Bad input (an empty list, a wrong shape or dtype, a number that is not finite, an input
        beyond the context, an unknown loss) is `InvalidInput` or `Unsupported` at submission,
        with nothing queued.
        """
        ...

    @_callback()
    def optim_step(
        self, opts: OptsT, session: SessionT, learning_rate: float, adam: AdamParams
    ) -> FutureT:
        """Submit one AdamW step; return a future of `OptimStepResult`.

        Clips the accumulated gradient by its global L2 norm, applies it, clears it. With nothing
        accumulated it is `InvalidInput`. A gradient that is not finite fails the step and leaves
        the weights alone. `learning_rate=0` leaves the weights, not the moments.
        """
        ...

    @_callback(repeatable=True)
    def await_(
        self, opts: OptsT, future: FutureT, timeout: float | None
    ) -> ForwardBackwardResult | OptimStepResult:
        """Wait for a submitted operation, `timeout` seconds or as long as it takes.

        May be asked again, from any thread, with the same result. `AdapterTimeout` leaves the
        operation running.
        """
        ...

    @_callback()
    def save_checkpoint(self, opts: OptsT, session: SessionT, path: str) -> str:
        """Save weights, optimizer state and the state of randomness; return a reference.

        Waits for everything queued. `path` is a label of any characters; the reference is new
        each time, is complete once returned (written atomically), never replaces another, and is
        good for `load_checkpoint` and `SessionConfig.from_checkpoint` from any process under the
        same options. Training that continues from it is bit-equal on a deterministic backend.
        With gradients pending it is `InvalidInput`. Loading never unpickles.
        """
        ...

    @_callback(repeatable=True)
    def load_checkpoint(
        self, opts: OptsT, session: SessionT, path: str, with_optimizer: bool
    ) -> None:
        """Put a session back to the checkpoint of this reference.

        Drops accumulated gradients and revives a failed session. Without the optimizer, its
        state starts afresh. An unknown reference is `NotFound` and changes nothing.
        """
        ...

    @_callback(repeatable=True)
    def close_session(self, opts: OptsT, session: SessionT) -> None:
        """Free what the session holds. Twice is fine; any other use after is `SessionClosed`."""
        ...


class TrainingClientOptionalSpec(Protocol[OptsT, SessionArgT, FutureRetT]):
    """What a training client may offer beside."""

    @_callback(repeatable=True)
    def forward(
        self,
        opts: OptsT,
        session: SessionArgT,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None,
    ) -> FutureRetT:
        """Submit a loss without a gradient, dropout off; return a future of
        `ForwardBackwardResult`. Missing `weights` are ones.
        """
        ...

    @_callback()
    def save_weights_for_sampler(self, opts: OptsT, session: SessionArgT, name: str | None) -> str:
        """Publish the weights as they are after everything queued; return a model reference.

        The paired Completer takes it as `SamplingParams.model`. Without a name it is ephemeral:
        valid in this process until the next one or `close_session`. References are never reused,
        since inference servers cache by name.
        """
        ...

    @_callback(repeatable=True)
    def get_info(
        self, opts: OptsT, session: SessionArgT
    ) -> Mapping[str, str | int | float | bool | None]:
        """Return what results depend on besides the session's configuration and what is submitted.

        Such as the precision, the kind of device, how batches are cut, the commit that the model
        was loaded from: by name, as JSON holds it. A run is not continued where one of them
        differs, so a thing that changes no result (a path, a host's name) does not belong here.
        """
        ...

    @_callback(repeatable=True)
    def check_storage(self, opts: OptsT, session: SessionArgT, checkpoints: int) -> None:
        """Try every place that saving will need, so that nobody learns of it after training.

        Return if folders can be made and written there, and the free space is enough for
        `checkpoints` more checkpoints of this session and for its weights saved once with a name;
        leave nothing behind, no empty folder either. Else `Unauthorized`, `Unavailable` with
        `no_effect`, or `InvalidInput`, which names the place, the bytes that are needed and free,
        and what to do.
        """
        ...

    @_callback(repeatable=True)
    def list_checkpoints(self, opts: OptsT, prefix: str) -> Sequence[str]:
        """Return the references of the checkpoints whose label starts with `prefix`, oldest
        first.
        """
        ...

    @_callback(repeatable=True)
    def delete_checkpoint(self, opts: OptsT, path: str) -> None:
        """Delete the checkpoint of this reference. One that does not exist is fine."""
        ...


class DatasetStoreSpec(Protocol[OptsT, DatasetT]):
    """Load rows and choose among them. Every callback is repeatable.

    Handles are immutable: each operation returns a new one and leaves the old one usable. A
    position is a number of rows: `skip(shuffled, n)` continues exactly where n rows had been
    read, map-style or streaming.

    A row is what is stored. A text is that text to the character, whether it looks like a date, a
    number, a truth value or `NA`; an integer has all its digits; an object has the fields that were
    stored with it and no others, a stored null being None; a value with a type of its own (a time,
    a decimal) keeps it. This holds for every value, whatever the rows before it are like. What
    cannot be read so is `InvalidInput` with its place; no row is left out without a word.
    """

    @_callback(repeatable=True)
    def load_dataset(
        self,
        opts: OptsT,
        dataset_id: str,
        split: str | None,
        name: str | None,
        revision: str | None,
        streaming: bool,
    ) -> DatasetT:
        """Open a data set. `name` is the configuration within it.

        `split=None` is the only split, or a handle from which `get_split` chooses. An unknown
        data set or split is `NotFound`; for a split, the message lists those there are.
        """
        ...

    @_callback(repeatable=True)
    def get_split(self, opts: OptsT, handle: DatasetT, split: str) -> DatasetT:
        """Return another split of the same data set, in its stored order. `NotFound` lists
        the splits.
        """
        ...

    @_callback(repeatable=True)
    def shuffle(
        self, opts: OptsT, handle: DatasetT, seed: int, buffer_size: int | None
    ) -> DatasetT:
        """Return the rows in an order that is a function of the seed and the rows alone.

        The same on every machine. `buffer_size` rows are held at a time where the data set
        streams; None is the adapter's choice.
        """
        ...

    @_callback(repeatable=True)
    def take(self, opts: OptsT, handle: DatasetT, count: int) -> DatasetT:
        """Return the first `count` rows, or all where there are fewer."""
        ...

    @_callback(repeatable=True)
    def skip(self, opts: OptsT, handle: DatasetT, count: int) -> DatasetT:
        """Return all but the first `count` rows; none where there are no more."""
        ...

    @_callback(repeatable=True)
    def select(self, opts: OptsT, handle: DatasetT, selection: range | Sequence[int]) -> DatasetT:
        """Return the rows of these indices, in the order given. Out of range: `InvalidInput`."""
        ...

    @_callback(repeatable=True)
    def to_list(self, opts: OptsT, handle: DatasetT) -> builtins.list[dict[str, Any]]:
        """Return every row."""
        ...


class DatasetStoreOptionalSpec(Protocol[OptsT, DatasetArgT]):
    """What a dataset store may offer beside."""

    @_callback(repeatable=True, stream=True)
    def stream(
        self, opts: OptsT, handle: DatasetArgT, batch_size: int
    ) -> Iterable[builtins.list[dict[str, Any]]]:
        """Yield the rows in lists of `batch_size`, the last one shorter, in bounded memory."""
        ...


class BlobStoreSpec(Protocol[OptsT]):
    """Keep bytes under names.

    A path is relative to the store's configured root, with `/` between its parts; one that
    leaves the root (`..`, absolute, through a symbolic link) is `InvalidInput`. Empty blobs, and
    names with spaces, dots and any Unicode, are fine.
    """

    @_callback(repeatable=True)
    def read(self, opts: OptsT, path: str) -> bytes:
        """Return the whole blob. `NotFound` where there is none."""
        ...

    @_callback(repeatable=True, stream=True)
    def stream(self, opts: OptsT, path: str, chunk_size: int) -> Iterable[bytes]:
        """Yield the blob in pieces of at most `chunk_size` bytes, in constant memory.

        `NotFound` where there is none, at the call or at the first piece.
        """
        ...

    @_callback(repeatable=lambda arguments: isinstance(arguments["data"], bytes))
    def write(self, opts: OptsT, path: str, data: bytes | Iterable[bytes] | BinaryIO) -> None:
        """Store a blob, replacing an older one, all or nothing.

        A failure or a kill at any instant, in the data's own iterator too, leaves the old content
        or none, never a part. Two writers at once leave the content of one of them. Repeatable
        for bytes only: an iterator was consumed.
        """
        ...

    @_callback(repeatable=True)
    def exists(self, opts: OptsT, path: str) -> bool:
        """Say whether there is a blob of this path. A folder is not a blob."""
        ...


class BlobStoreOptionalSpec(Protocol[OptsT]):
    """What a blob store may offer beside."""

    @_callback(repeatable=True)
    def delete(self, opts: OptsT, path: str) -> None:
        """Delete the blob. One that does not exist is fine."""
        ...

    @_callback(repeatable=True)
    def list(self, opts: OptsT, prefix: str) -> Sequence[str]:
        """Return the paths of all blobs that start with `prefix`, sorted. No folders, no
        half-written blobs.
        """
        ...

    @_callback(repeatable=True)
    def read_range(self, opts: OptsT, path: str, start: int, end: int | None) -> bytes:
        """Return bytes `start` to `end` (exclusive; None is the end), clamped as a slice is.

        A negative bound is `InvalidInput`.
        """
        ...


class HubClientSpec(Protocol[OptsT]):
    """Fetch models and data sets from a hub. Every callback but `upload` is repeatable.

    The revision is resolved to a commit first and everything comes from that commit. A missing
    repository, revision and file are three `NotFound`s that say which; no access is
    `Unauthorized`.
    """

    @_callback(repeatable=True)
    def download(
        self, opts: OptsT, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        """Return the local path of one file, complete, its size and hash checked."""
        ...

    @_callback(repeatable=True)
    def snapshot(
        self,
        opts: OptsT,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Sequence[str] | None,
        ignore_patterns: Sequence[str] | None,
    ) -> Path:
        """Return a local folder that holds every file of the commit that matches, complete and
        checked; never a part of it, offline neither.

        A file matches if its path fits one of `allow_patterns` (None is all) and none of
        `ignore_patterns`, by the rules of `fnmatch`: `*` matches slashes, too.
        """
        ...

    @_callback(repeatable=True)
    def list_files(self, opts: OptsT, repo_id: str, repo_type: str, revision: str) -> Sequence[str]:
        """Return the paths of the files of the revision, sorted."""
        ...


class HubClientOptionalSpec(Protocol[OptsT]):
    """What a hub client may offer beside."""

    @_callback()
    def upload(
        self,
        opts: OptsT,
        repo_id: str,
        source: Path,
        path_in_repo: str,
        repo_type: str,
        revision: str,
        message: str | None,
    ) -> str:
        """Upload a file or a folder as one commit and return that commit's id."""
        ...


def _replaces(arguments: Mapping[str, Any]) -> bool:
    """Say whether recording again would replace a row, and not add one."""
    return arguments.get("step") is not None


class MetricsStoreSpec(Protocol[OptsT]):
    """Keep the numbers of runs. Every callback is repeatable, but for recording without a step.

    One row per (run, metric, step): recording again replaces, so a resumed run leaves no
    duplicates. Without a step every call is a row of its own. Steps may come late and go
    backwards. NaN and infinities come back as they went in. Several processes may write at once.
    """

    @_callback(repeatable=_replaces)
    def record(
        self,
        opts: OptsT,
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        """Take one number. It may be held back until `flush`."""
        ...

    @_callback(repeatable=True)
    def flush(self, opts: OptsT, run_id: str) -> None:
        """Return when everything recorded for the run would survive a power cut."""
        ...

    @_callback(repeatable=True)
    def read(self, opts: OptsT, run_id: str) -> builtins.list[MetricEntry]:
        """Return the run's rows, this process's unflushed ones included, in the order in which
        they were first recorded. An unknown run has none.
        """
        ...


class MetricsStoreOptionalSpec(Protocol[OptsT]):
    """What a metrics store may offer beside."""

    @_callback(repeatable=_replaces)
    def record_many(
        self,
        opts: OptsT,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        """Take several numbers of one step, as `record` would one by one."""
        ...

    @_callback(repeatable=True)
    def runs(self, opts: OptsT) -> Sequence[str]:
        """Return the ids of all runs, sorted."""
        ...


class CompleterSpec(Protocol[OptsT]):
    """Sample from a language model. Every callback is repeatable.

    A prompt is a conversation, token ids, or a `ModelInput`. Token ids in, token ids out: where
    the server returns no ids, a prompt of token ids is `Unsupported`. A prompt beyond the context
    is `InvalidInput`. Logprobs equal the trainer's `forward` at temperature 1, top_p 1 and
    top_k -1; elsewhere they are the backend's, raw or processed. Asking for them where the server
    ignores it is `Unsupported`. Each is a finite number: one that the server does not say is an
    `AdapterError`, never NaN or a number in its place, which would be trained on.
    """

    @_callback(repeatable=True)
    def complete(self, opts: OptsT, prompt: Prompt, params: SamplingParams) -> Completion:
        """Return one completion. `params.n` above 1 is `InvalidInput`."""
        ...

    @_callback(
        repeatable=True,
        count=lambda arguments: len(arguments["prompts"]) * arguments["params"].n,
        errors=True,
    )
    def complete_batch(
        self, opts: OptsT, prompts: Sequence[Prompt], params: SamplingParams
    ) -> builtins.list[Answer]:
        """Return `len(prompts) * params.n` results, prompt-major, each a `Completion` or an
        `AdapterError`: one bad item does not lose the rest.

        Result k is sampled with `params.seed + k`. Requests in flight are bounded.
        """
        ...


class CompleterOptionalSpec(Protocol[OptsT]):
    """What a completer may offer beside."""

    @_callback(repeatable=True, stream=True)
    def stream_complete(
        self, opts: OptsT, prompt: Prompt, params: SamplingParams
    ) -> Iterable[CompletionChunk]:
        """Yield one completion in pieces, whose texts, tokens, logprobs and reasoning add up to
        what `complete` returns. Leaving early closes the stream and frees the server.
        """
        ...

    @_callback(repeatable=True, count=lambda arguments: len(arguments["sequences"]))
    def score(
        self, opts: OptsT, sequences: Sequence[Prompt], model: str | None
    ) -> builtins.list[FloatArray]:
        """Return the logprobs of given tokens: for each sequence of n tokens a float32 array
        `(n-1,)`, entry i the log probability, in nats, of token i+1 after tokens 0 to i.
        """
        ...
