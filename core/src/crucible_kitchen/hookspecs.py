"""The contract: what the adapters of the six ports implement.

A port is a pair of classes here. Callbacks of `<Port>Spec` are mandatory, those of
`<Port>OptionalSpec` may be left out, and so may those of `AdapterSpec`, which every port has. An
adapter is a module, or an object, whose functions of these names are marked `@hookimpl`:

    @hookimpl
    def read(opts: Options, path: str) -> bytes: ...

Every callback takes the adapter's bound options first, as `opts` (an implementation that does not
need them may leave them out), then its arguments by name. A callback may leave out an argument
that has a default in `crucible_kitchen.ports`; a caller that passes anything but that default then
gets `Unsupported`, so nothing is silently ignored. Callbacks return values of the annotated types,
which the port checks, and raise `AdapterError`s; they are plain functions, called from any thread.
The handle of a session, a future or a data set may be anything but None.

The specs are generic in the type of the options and of the handles, and carry no defaults, so
that a type checker can hold a module against its port:

    if TYPE_CHECKING:
        import crucible_adapter_acme.blob_store as this_module

        _: BlobStoreSpec[Options] = this_module

        def optional_callbacks(optional: BlobStoreOptionalSpec[Options]) -> None:
            implements(optional.delete)(this_module.delete)

Callbacks marked `repeatable` may be repeated even when it is unknown whether the first attempt had
an effect: running one twice has the same effect as running it once. Wrappers that retry rely on it.
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
# Where the callbacks of an optional spec only take, or only return, a handle:
SessionArgT = TypeVar("SessionArgT", contravariant=True)
FutureRetT = TypeVar("FutureRetT", covariant=True)
DatasetArgT = TypeVar("DatasetArgT", contravariant=True)

if TYPE_CHECKING:
    # Lists are invariant, and an adapter may promise completions alone.
    Answer: TypeAlias = Completion | Any
else:
    Answer = Completion | AdapterError


def helper(function: F) -> F:
    """Mark a function that an adapter offers in addition to its callbacks; `opts` comes first.

    Callers get it from `port.helper(name)`, with the options bound. Helpers are an agreement
    between an adapter and its users. Workflows ask training clients for `get_tokenizer(opts,
    session)`, and dry runs for `memory_needed(opts, config, rows)`, where `rows`, if it is not 0,
    is how many of `config.max_length` tokens are in a batch; commands ask completers for
    `get_tokenizer(opts, model)`, hub clients for `commit_url(opts, repo_id, commit)`, and training
    clients for `keeps_checkpoints(opts)`: why `delete_checkpoint` deletes none, or "". An adapter
    that makes its results up returns why from `synthetic(opts)`, "" where they are real; it
    answers from `opts` alone and waits for nothing, such as a network, since messages also ask
    adapters that are not in use. A kitchen calls `observe(opts, event)` with every event while the
    adapter is bound: so a metrics store shows a run's settings, and how it ended.
    """
    function.crucible_helper = True  # type: ignore[attr-defined]
    return function


def implements(spec: F) -> Callable[[F], None]:
    """Have a type checker hold a function against the spec of one optional callback.

        if TYPE_CHECKING:
            def optional_callbacks(optional: BlobStoreOptionalSpec[Options]) -> None:
                implements(optional.delete)(this_module.delete)

    The whole of an optional spec fits only a module that has all of its callbacks.
    """
    return lambda function: None


@dataclass(frozen=True, slots=True)
class CallbackTraits:
    """What the system must know about a callback besides its signature.

    Args:
        repeatable: whether it may be repeated, given the arguments of the call.
        stream: whether it returns an iterable that the port hands out as a `Stream`.
        result: checks the value that it returns.
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
    """Declare a callback. The first implementation's result is the result (there is only one).

    Binding an adapter that implements a deprecated callback warns with this reason.
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
    """Optional callbacks that every port has.

    No callback, of any port, changes the working directory or the umask, or seeds the generators of
    `random` and NumPy: all threads of a program share them. A relative path is looked up when the
    adapter is bound, or at its first use.
    """

    @_callback(repeatable=True)
    def close(self, opts: OptsT) -> None:
        """Release what the adapter keeps under these options: connections, threads, buffers.

        Called once when the kitchen closes, in a separate thread, after writers have flushed all
        data. A call that takes longer than 30 s is abandoned, and the process ends without it. A
        later callback may create the resources again. Closing twice is fine.
        """
        ...

    @_callback(repeatable=True)
    def ping(self, opts: OptsT) -> None:
        """Check that the backend answers under these options, credentials included.

        Return if it answered, change nothing, and give up after `PING_TIMEOUT`, 5 s. `Unavailable`
        and `AdapterTimeout` mean that it cannot be reached, `Unauthorized` that it refuses. An
        adapter with nothing to reach leaves this out. `crucible doctor` calls it.
        """
        ...

    @_callback(repeatable=True)
    def clean(self, opts: OptsT, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
        """Remove what killed processes left behind, and return the name of each thing removed.

        Without a `prefix`, remove everything unfinished under these options that certainly has no
        writer any more: its lock is free, or, where there are no locks, as with a multi-part
        upload, it is older than a day.

        With a `prefix`, remove everything unfinished under a label or path that starts with it: the
        caller guarantees that no other process works there, and that this one has nothing under
        way. A training client also removes the complete checkpoints, and the weights saved with a
        name, whose label or name starts with it and whose reference is not in `keep`. Labels are
        compared as they were given: `run/10/` does not start with `run/1/`.

        Nothing else is touched. Damaged or foreign files are skipped, without an error. Complete
        checkpoints and weights are named by their references. With `dry_run`, remove nothing, and
        return the names of what would be removed. An adapter that leaves nothing behind leaves this
        out. `crucible clean`, and the start of a run, call it.
        """
        ...

    @_callback()
    def around(self, opts: OptsT, call: Any) -> Any:
        """Run in place of every callback that this adapter leaves to its option `inner`.

        `call()` passes the call on and returns its result, `call.on(port)` runs it on another
        adapter of the same port; `crucible_kitchen.Call` has the rest. The return value is the
        result of the call. Where that is a stream, `call()` returns a `Stream`, and an adapter
        that wraps it must close it.
        """
        ...


class TrainingClientSpec(Protocol[OptsT, SessionT, FutureT]):
    """Train a language model, one operation at a time.

    A session executes its operations in the order of submission. `forward_backward` and
    `optim_step` submit and return at once, so callers should submit both, then await both.

    A failed operation fails its session: everything queued behind it, and every later call except
    `load_checkpoint` and `close_session`, raises `SessionFailed`, because weights that missed a
    gradient must never be used.
    """

    @_callback()
    def start_session(self, opts: OptsT, config: SessionConfig) -> SessionT:
        """Load or create a model to train, and return the session's handle.

        Bad credentials (`Unauthorized`), an unknown model (`NotFound`) and a field of `config`
        that cannot be honoured (`Unsupported`) fail here, not later. Equal configurations begin
        with the same weights in every process. `config.seed` may be any integer.
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
        1e-5 relative. Splitting a large batch must not show in the results; nothing is truncated.
        Datums are read at submission, whatever the type, byte order and strides of their arrays,
        and are not changed: the caller may change them once the call has returned.

        Where every loss input of a position is 0 (the weight for `cross_entropy`; the logprob and
        the advantage for the others), it adds to no loss and no gradient. Its logprob need not be
        computed: it is that or exactly 0.0. So the sum of weights times logprobs is right.

        Bad input (an empty list, a wrong shape or dtype, a number that is not finite, an input
        beyond the context, an unknown loss) is `InvalidInput` or `Unsupported` at submission,
        and nothing is queued.
        """
        ...

    @_callback()
    def optim_step(
        self, opts: OptsT, session: SessionT, learning_rate: float, adam: AdamParams
    ) -> FutureT:
        """Submit one AdamW step; return a future of `OptimStepResult`.

        Clips the accumulated gradient by its global L2 norm, applies it, clears it. `adam.eps` is
        added to the root of the second moment after its correction for the bias. With nothing
        accumulated, the step is `InvalidInput`. A gradient that is not finite fails the step and
        leaves the weights unchanged. `learning_rate=0` leaves the weights unchanged, but updates
        the moments.
        """
        ...

    @_callback(repeatable=True)
    def await_(
        self, opts: OptsT, future: FutureT, timeout: float | None
    ) -> ForwardBackwardResult | OptimStepResult | str:
        """Wait for a submitted operation, at most `timeout` seconds; None waits indefinitely.

        May be called again, from any thread, with the same result. `AdapterTimeout` leaves the
        operation running. What was awaited once is returned at any timeout, even 0.
        """
        ...

    @_callback()
    def save_checkpoint(self, opts: OptsT, session: SessionT, path: str) -> str:
        """Save weights, optimizer state and random state; return a reference.

        Waits for everything queued. `path` is a label of any characters. The reference is new each
        time and never replaces another; its checkpoint is complete once returned (written
        atomically), and valid for `load_checkpoint` and `SessionConfig.from_checkpoint` in any
        process under the same options. Training that continues from it is bit-equal on a
        deterministic backend. With gradients pending it is `InvalidInput`. Loading never unpickles.
        """
        ...

    @_callback(repeatable=True)
    def load_checkpoint(
        self, opts: OptsT, session: SessionT, path: str, with_optimizer: bool
    ) -> None:
        """Restore a session from the checkpoint of this reference.

        Drops accumulated gradients and revives a failed session. Without the optimizer, its state
        starts from zero. An unknown reference is `NotFound` and changes nothing.
        """
        ...

    @_callback(repeatable=True)
    def close_session(self, opts: OptsT, session: SessionT) -> None:
        """Free what the session holds. Closing twice is fine; any other use is `SessionClosed`."""
        ...


class TrainingClientOptionalSpec(Protocol[OptsT, SessionArgT, FutureRetT]):
    """Optional callbacks of a training client."""

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
        `ForwardBackwardResult`. Missing `weights` are ones, so all logprobs are computed then.
        """
        ...

    @_callback()
    def save_checkpoint_async(self, opts: OptsT, session: SessionArgT, path: str) -> FutureRetT:
        """Submit a checkpoint; return a future of its reference, a `str`.

        As `save_checkpoint`, but what is submitted after it runs meanwhile, and is not in it: it
        holds the state after everything submitted before it. Once `await_` returns the reference,
        the checkpoint is complete and durable. With gradients pending it is `InvalidInput` at
        submission. A failure of saving is that of its future alone, and the session goes on.
        `load_checkpoint` does not change what it holds; `close_session` waits for it or abandons
        it, so that its future ends and nothing more is written.
        """
        ...

    @_callback()
    def save_weights_for_sampler(self, opts: OptsT, session: SessionArgT, name: str | None) -> str:
        """Publish the weights as they are after everything queued; return a model reference.

        The paired Completer takes it as `SamplingParams.model`. Without a name the reference is
        ephemeral: valid in this process until the next such reference or `close_session`.
        References are never reused, since inference servers cache by name.
        """
        ...

    @_callback(repeatable=True)
    def export_weights(self, opts: OptsT, session: SessionArgT, folder: Path, merge: bool) -> None:
        """Write the weights as they are after everything queued to a folder, as Transformers
        reads them.

        `folder` exists. It gets the configuration, the weights in safetensors and, where the model
        has them, the generation configuration and the tokenizer with its chat template. With
        `merge`, a low-rank update is added to the weights that it updates, and the folder holds a
        whole model. Without, it holds the update alone, as an adapter of PEFT that names its base
        model; `InvalidInput` if the session has no update, or if no program could load the base.

        The session, its pending gradients included, stays as it is. Files of the same names are
        replaced. A failure may leave some in the folder, which is the caller's to remove.
        """
        ...

    @_callback(repeatable=True)
    def get_info(
        self, opts: OptsT, session: SessionArgT
    ) -> Mapping[str, str | int | float | bool | None]:
        """Return what results depend on besides the session's configuration and its inputs.

        For example the precision, the kind of device, how batches are split, the commit that the
        model was loaded from; by name, with values that JSON can hold. A run does not continue
        where one of them differs, so values that change no result (a path, a host name) do not
        belong here.
        """
        ...

    @_callback(repeatable=True)
    def check_storage(self, opts: OptsT, session: SessionArgT, checkpoints: int) -> None:
        """Try every place that saving will need, so that a problem shows before training.

        Return if folders can be created and written there, and the free space is enough for
        `checkpoints` more checkpoints of this session and for its weights saved once with a name.
        Leave nothing behind, not even an empty folder. Otherwise raise `Unauthorized`,
        `Unavailable` with `no_effect`, or `InvalidInput`, naming the place, the bytes needed and
        free, and what to do.
        """
        ...

    @_callback(repeatable=True)
    def list_checkpoints(self, opts: OptsT, prefix: str) -> Sequence[str]:
        """Return the references of the checkpoints whose label starts with `prefix`, character
        by character as it was given, oldest first.
        """
        ...

    @_callback(repeatable=True)
    def delete_checkpoint(self, opts: OptsT, path: str) -> None:
        """Delete the checkpoint of this reference. One that does not exist is fine."""
        ...


class DatasetStoreSpec(Protocol[OptsT, DatasetT]):
    """Load rows and select among them. Every callback is repeatable.

    Handles are immutable: each operation returns a new one and leaves the old one usable. A
    position is a number of rows: `skip(shuffled, n)` continues exactly where n rows had been
    read, map-style or streaming.

    A row is exactly what was stored, and rows come in the stored order. A text keeps every
    character, even if it looks like a date, a number, a boolean or `NA`; an integer and a float
    keep all their digits; an object has the fields stored with it and no others, in their order, a
    stored null being None; values of other types (times, decimals) keep their type. This holds for
    every value, whatever the rows before it contain. A value that cannot be read this way, and
    anything that is not a row, is `InvalidInput` with its place; no row is dropped silently. What
    was replaced since is read anew when it is opened again.
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
        data set or split is `NotFound`; for a split, the message lists the existing ones.
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
        """Return the rows in an order that depends only on the seed and the rows.

        It is the same on every machine, in every process. Every integer is a seed, and no two are
        one; those that cannot be used are `InvalidInput`. While streaming, at most `buffer_size`
        rows are held at a time; None is the adapter's choice. Where nothing streams, `buffer_size`
        changes nothing, and any row may come anywhere.
        """
        ...

    @_callback(repeatable=True)
    def take(self, opts: OptsT, handle: DatasetT, count: int) -> DatasetT:
        """Return the first `count` rows, or all if there are fewer."""
        ...

    @_callback(repeatable=True)
    def skip(self, opts: OptsT, handle: DatasetT, count: int) -> DatasetT:
        """Return all but the first `count` rows; no rows if there are not more."""
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
    """Optional callbacks of a dataset store."""

    @_callback(repeatable=True, stream=True)
    def stream(
        self, opts: OptsT, handle: DatasetArgT, batch_size: int
    ) -> Iterable[builtins.list[dict[str, Any]]]:
        """Yield the rows in lists of `batch_size`, the last one shorter, in bounded memory."""
        ...


class BlobStoreSpec(Protocol[OptsT]):
    """Keep bytes under names.

    A path is relative to the store's configured root, with `/` between its parts; one that
    leaves the root (`..`, absolute, through a symbolic link) is `InvalidInput`, and so is a second
    spelling of a path: no part is empty or `.`, and there is no `/` at the end. Empty blobs, and
    names with spaces, dots and any Unicode, are valid; a part may have 255 bytes in UTF-8. A store
    may refuse, as `InvalidInput`, the names of its own temporary files, a NUL, and `a/b` where `a`
    is a blob, or `a` where `a/b` is one; otherwise they are blobs like any other.

    Several processes may use one store at once: what one has written, replaced or deleted is so at
    once for all.
    """

    @_callback(repeatable=True)
    def read(self, opts: OptsT, path: str) -> bytes:
        """Return the whole blob. `NotFound` if it does not exist."""
        ...

    @_callback(repeatable=True, stream=True)
    def stream(self, opts: OptsT, path: str, chunk_size: int) -> Iterable[bytes]:
        """Yield the blob in pieces of at most `chunk_size` bytes, in constant memory.

        `NotFound` if it does not exist, at the call or at the first piece.
        """
        ...

    @_callback(repeatable=lambda arguments: isinstance(arguments["data"], bytes))
    def write(self, opts: OptsT, path: str, data: bytes | Iterable[bytes] | BinaryIO) -> None:
        """Store a blob, replacing an older one, all or nothing.

        A failure or a kill at any instant, even in the data's own iterator, leaves the old content
        or none, never a part. Two writers at once leave the content of one of them. Repeatable
        for bytes only: the first attempt consumes an iterator.

        Pieces are written in constant memory. A file is read from its position to its end, and is
        left open; it need not seek. The source may call the store. When `write` has ended, however
        it did, nothing temporary is left; only a kill may leave some, for `clean`. What is a file
        has the permissions of any new file of the process.
        """
        ...

    @_callback(repeatable=True)
    def exists(self, opts: OptsT, path: str) -> bool:
        """Say whether a blob of this path exists. A folder is not a blob."""
        ...


class BlobStoreOptionalSpec(Protocol[OptsT]):
    """Optional callbacks of a blob store."""

    @_callback(repeatable=True)
    def delete(self, opts: OptsT, path: str) -> None:
        """Delete the blob. One that does not exist is fine. A folder is not a blob: what is below
        it stays.
        """
        ...

    @_callback(repeatable=True)
    def list(self, opts: OptsT, prefix: str) -> Sequence[str]:
        """Return the paths of all blobs that start with `prefix`, sorted as texts. No folders, no
        half-written blobs, no temporary names.
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

    The revision is resolved to a commit first, and everything comes from that commit. A missing
    repository, revision or file is a `NotFound` that says which; denied access is `Unauthorized`.
    What cannot be the name of a revision, such as an empty text or a path, is `NotFound` or
    `InvalidInput`, never the newest commit. Several processes may fetch to one cache at once.
    """

    @_callback(repeatable=True)
    def download(
        self, opts: OptsT, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        """Return the local path of one file, complete, its size and hash checked. The path ends
        with the file's path in the repository.
        """
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
        """Return a local folder that holds every matching file of the commit, complete and
        checked; never a partial snapshot, not even offline.

        A file matches if its path fits one of `allow_patterns` (None is all) and none of
        `ignore_patterns`, by the rules of `fnmatch`: `*` also matches slashes.
        Other files are not fetched: an empty list of `allow_patterns` matches nothing, and the
        folder is then empty, unless it holds what was fetched before.
        """
        ...

    @_callback(repeatable=True)
    def list_files(self, opts: OptsT, repo_id: str, repo_type: str, revision: str) -> Sequence[str]:
        """Return the paths of the files of the revision, sorted as texts."""
        ...


class HubClientOptionalSpec(Protocol[OptsT]):
    """Optional callbacks of a hub client."""

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
        """Upload a file or a folder as one commit and return that commit's id.

        Every file of a folder is uploaded under its own path, hidden ones too, except bookkeeping
        such as `.git`; a link to a file as what it leads to. What else the repository holds stays,
        and so does the source. Uploading what is there already returns a commit that has it. Of
        uploads at once none is lost: each is in the branch when it returns, or raises.
        """
        ...


def _replaces(arguments: Mapping[str, Any]) -> bool:
    """Say whether recording again replaces a row instead of adding one."""
    return arguments.get("step") is not None


class MetricsStoreSpec(Protocol[OptsT]):
    """Keep the numbers of runs. Every callback is repeatable, except recording without a step.

    One row per (run, metric, step): recording again replaces it, so a resumed run leaves no
    duplicates. Without a step, every call adds a row. Steps may arrive late and out of order. NaN
    and infinities are returned as they were recorded. Several processes may write at once.

    A name, an id, a step or metadata that the store cannot keep exactly is `InvalidInput` or
    `Unsupported` at once: nothing is cut, bounded or normalised, and no other row is lost with it.
    Arguments are read during the call, and not changed. A row that replaces another has the time
    of its own recording.
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
        """Record one number. It may be buffered until `flush`."""
        ...

    @_callback(repeatable=True)
    def flush(self, opts: OptsT, run_id: str) -> None:
        """Return once everything recorded for the run would survive a power cut."""
        ...

    @_callback(repeatable=True)
    def read(self, opts: OptsT, run_id: str) -> builtins.list[MetricEntry]:
        """Return the run's rows, including this process's unflushed ones, in the order in which
        they were first recorded. An unknown run has no rows.
        """
        ...


class MetricsStoreOptionalSpec(Protocol[OptsT]):
    """Optional callbacks of a metrics store."""

    @_callback(repeatable=_replaces)
    def record_many(
        self,
        opts: OptsT,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        """Record several numbers of one step, in their order, all of them or none.

        The rows are those that `record` would make one by one. Where one number is refused,
        nothing is recorded or replaced, and no run begins; a `read` of another thread sees all
        numbers of a call or none. There may be any number of them; with none nothing happens.
        """
        ...

    @_callback(repeatable=True)
    def runs(self, opts: OptsT) -> Sequence[str]:
        """Return the ids of all runs of which `read` returns rows, sorted, flushed or not."""
        ...


class CompleterSpec(Protocol[OptsT]):
    """Sample from a language model. Every callback is repeatable.

    A prompt is a conversation, token ids, or a `ModelInput`, whose chunks are read as one. Token
    ids in, token ids out: where the server returns no ids, a prompt of token ids is `Unsupported`.
    A prompt beyond the context, or with a token beyond the vocabulary, is `InvalidInput`; an image
    that is not read is `InvalidInput` or `Unsupported`, and never skipped.

    Logprobs equal the trainer's `forward` at temperature 1, top_p 1 and top_k -1; elsewhere they
    are the backend's, raw or processed. Where the server ignores a request for them, it is
    `Unsupported`. Each is a finite number: one that the server does not return is an
    `AdapterError`, never NaN or a substitute, which would be trained on.

    The prompt, the seed, the temperature, `top_k` and `top_p` alone decide what is sampled, in
    every process; a smaller `max_tokens` cuts it, and `stop` ends it. Any integer is a seed of its
    own, or is `InvalidInput` or `Unsupported`. A stop string is looked for in the answer alone, and
    the one that comes first in the text counts. The text keeps its white space.
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

        Result k is sampled with `params.seed + k`, errors counted. The number of requests in
        flight is bounded.
        """
        ...


class CompleterOptionalSpec(Protocol[OptsT]):
    """Optional callbacks of a completer."""

    @_callback(repeatable=True, stream=True)
    def stream_complete(
        self, opts: OptsT, prompt: Prompt, params: SamplingParams
    ) -> Iterable[CompletionChunk]:
        """Yield one completion in pieces, whose texts, tokens, logprobs and reasoning concatenate
        to what `complete` returns. Leaving early closes the stream and frees the server.
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
