"""What can go wrong, as exceptions.

Two families share the root `CrucibleError`:

- mistakes in configuration and installation (`ConfigurationError`, `PortNotConfigured`,
  `AdapterNotFound`, `AdapterLoadError`, `AdapterForbidden`, `BindError`): found before any work
  starts; the command line prints them and exits with 2;
- `AdapterError` and its subclasses: a call to an adapter failed. Each subclass is also the
  builtin exception that people expect, so `except LookupError` catches `NotFound`.
"""

from __future__ import annotations

import errno
import re
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


def described(error: BaseException) -> str:
    """Return the type and the text of an exception, such as `KeyError: 'a'`.

    Never fails: an exception that has no text, or raises when asked for it, is its type alone.
    """
    name = type(error).__name__
    try:
        text = str.__str__(str(error))  # a subclass of str could fail later
    except KeyboardInterrupt:
        raise
    except BaseException:
        return name
    return f"{name}: {text}" if text else name


def causes(
    error: BaseException | None, until: BaseException | None = None
) -> Iterator[BaseException]:
    """Yield the error, then what caused it, what caused that, and so on; each once.

    The cause is what the error was raised `from`, else what was being handled when it was raised,
    even where a library hides that with `from None`: its message is often all that is left of it.

    Args:
        error: where the chain begins.
        until: where it ends; not yielded. An adapter passes the `sys.exception()` from before its
            own work, since what its caller was handling at the time explains nothing.
    """
    seen: set[int] = set()
    while error is not None and error is not until and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


class CrucibleError(Exception):
    """The root of every exception that Crucible Kitchen raises on purpose."""


class CrucibleWarning(RuntimeWarning):
    """Something went wrong, and the work goes on. The command line prints it as a line."""


class ConfigurationError(CrucibleError):
    """Settings are wrong. The message names each key, where it came from and what to do.

    Args:
        mistakes: a text for each; the message lists them one below the other, the first `LISTED`.
    """

    LISTED = 20
    """Mistakes that a message lists at most; the others are counted."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        if len(self.mistakes) < 2:
            return "".join(self.mistakes)
        first = self.mistakes[: self.LISTED]
        listed = [textwrap.indent(mistake, "    ").strip() for mistake in first]
        if more := len(self.mistakes) - len(first):
            listed.append(f"and {more:,} more")
        return "\n  - ".join([f"{len(self.mistakes):,} mistakes in the configuration:", *listed])

    @classmethod
    def of(cls, errors: Iterable[ConfigurationError]) -> ConfigurationError:
        """Return one error with the mistakes of all, each once; of their class if it is one."""
        errors = list(errors)
        kinds = {type(error) for error in errors}
        kind = kinds.pop() if len(kinds) == 1 else ConfigurationError
        joined = kind(*dict.fromkeys(m for error in errors for m in error.mistakes))
        joined.__cause__ = next((e.__cause__ for e in errors if e.__cause__), None)
        return joined


class PortNotConfigured(ConfigurationError):
    """A workflow asked for a port for which no adapter was chosen."""


class AdapterNotFound(ConfigurationError):
    """No installed adapter, or more than one, answers to the chosen name."""


class AdapterLoadError(ConfigurationError):
    """The chosen adapter is installed but cannot be imported, or needs another core."""


class AdapterForbidden(AdapterLoadError):
    """The chosen adapter is installed, and the table `[plugins]` forbids loading it."""


class BindError(ConfigurationError):
    """The chosen adapter does not implement its port as the hookspecs say."""


class AdapterError(CrucibleError):
    """A call to an adapter failed.

    Args:
        reason: what happened, for a human, without secrets.
        retryable: whether the same call may succeed later. Default: the class's own.
        no_effect: whether the adapter knows that the call changed nothing.
        details: anything that helps a program to react, picklable.

    The port through which the call went fills in `port`, `adapter` and `callback`.
    Instances pickle with all their fields (Ray carries errors between processes).
    """

    retryable: bool = False
    no_effect: bool = False
    # For subclasses whose __init__ does not call this one, such as dataclasses.
    reason: str = ""
    port: str | None = None
    adapter: str | None = None
    callback: str | None = None

    def __init__(
        self,
        reason: str,
        *,
        retryable: bool | None = None,
        no_effect: bool | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        if retryable is not None:
            self.retryable = retryable
        if no_effect is not None:
            self.no_effect = no_effect
        self.details: dict[str, Any] = dict(details or {})
        self.port = self.adapter = self.callback = None

    def __str__(self) -> str:
        if self.port is None:
            return self.reason
        return f"{self.port}.{self.adapter}.{self.callback}: {self.reason}"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call cls(reason) and lose the keyword arguments; a subclass that is
        # an OSError too would even pickle OSError's idea of its arguments.
        return (_rebuild, (type(self), self.reason, self.__dict__.copy()))


def _rebuild(cls: type[AdapterError], reason: str, state: dict[str, Any]) -> AdapterError:
    # Not by cls(reason): a subclass of an adapter may take other arguments.
    error = cls.__new__(cls, reason)
    error.args = (reason,)
    error.__dict__.update(state)
    return error


class NotFound(AdapterError, LookupError):
    """The named thing does not exist: a blob, a split, a model, a revision, a checkpoint."""


class AlreadyExists(AdapterError, FileExistsError):
    """The thing exists and the call promises never to replace it."""


class InvalidInput(AdapterError, ValueError):
    """An argument is wrong, whatever the backend. Nothing was done, a repeat fails again."""

    no_effect = True


class Unauthorized(AdapterError, PermissionError):
    """The backend refused the credentials, or these credentials may not do this."""

    no_effect = True


A_DAY = 86_400.0


class RateLimited(AdapterError):
    """The backend refused the call for now.

    Args:
        retry_after: seconds to wait, if the backend named them. Kept as None if negative or not a
            number, and as a day if longer, since servers lie.
    """

    retryable = True
    no_effect = True
    retry_after: float | None = None

    def __init__(self, reason: str, *, retry_after: float | None = None, **fields: Any) -> None:
        super().__init__(reason, **fields)
        if isinstance(retry_after, int | float) and retry_after >= 0:  # False for NaN
            self.retry_after = min(retry_after, A_DAY)

    @staticmethod
    def retry_after_of(headers: Mapping[str, str]) -> float | None:
        """Return the seconds to wait according to `Retry-After`, from 0 to a day; None without it.

        RFC 9110, 10.2.3: digits, to which servers add decimals, or a date in any of the three forms
        of 5.6.7. A date that has passed is 0; anything else, a negative number included, is None.

        Args:
            headers: those of an HTTP response; the case of their names does not matter.
        """
        text = next((str(v) for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
        if _SECONDS.fullmatch(text):
            return min(float(text), A_DAY)
        from email.utils import mktime_tz, parsedate_tz  # which imports sockets

        # For a date of many digits `parsedate_tz` raises errors that it does not document.
        with suppress(ValueError, OverflowError, TypeError, IndexError, OSError):
            if date := parsedate_tz(text[:64]):
                # The form without a time zone means GMT, which `mktime_tz` takes for local time.
                seconds = mktime_tz((*date[:9], date[9] or 0)) - time.time()
                return min(max(0.0, seconds), A_DAY)
        return None


_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")


class AdapterTimeout(AdapterError, TimeoutError):
    """No answer within the time allowed. The operation may still be running."""

    retryable = True


class Unavailable(AdapterError, ConnectionError):
    """The backend cannot be reached, or answered that it cannot serve at present."""

    retryable = True


class Unsupported(AdapterError, NotImplementedError):
    """The adapter does not offer this callback, argument or field."""

    no_effect = True


class NotRecorded(AdapterError):
    """An adapter replays a recording, which does not have this answer.

    What is asked as it was when it was recorded has one; what tries a part of it may have none.
    """

    no_effect = True


class SessionClosed(AdapterError, RuntimeError):
    """The session was closed; start another."""

    no_effect = True


class SessionFailed(AdapterError, RuntimeError):
    """An earlier operation of this session failed, so its weights cannot be trusted.

    Only `load_checkpoint` (which revives it) and `close_session` are still accepted.
    """

    no_effect = True


def check_positive(name: str, value: int | None) -> None:
    """Refuse a count or a size below 1, such as a `chunk_size`; None stands for a default.

    Raises:
        InvalidInput: `value` is below 1.
    """
    if value is not None and value < 1:
        raise InvalidInput(f"{name} must be at least 1, not {value}")


@contextmanager
def explain_os_errors(what: str, *, no_effect: bool | None = None) -> Iterator[None]:
    """Replace errors of the operating system by the `AdapterError` that they stand for.

    A full disk, a failing one, or too many open files are `Unavailable`; a place that may not be
    written, or is read-only, is `Unauthorized`; an impossible path is `InvalidInput`; a missing
    file is `NotFound`. Any other is an `AdapterError`.

        with explain_os_errors(f"cannot write to {folder}", no_effect=True):
            os.fsync(descriptor)

    Args:
        what: what failed and where, such as `cannot write to /data/runs`; begins the message.
        no_effect: whether a call that fails here changed nothing. Default: the class's own.
    """
    try:
        yield
    except AdapterError:  # some are OSErrors as well
        raise
    except OSError as error:
        said = error.strerror or str(error) or type(error).__name__
        if isinstance(error.filename, str) and error.filename not in what:
            said += f" ({error.filename})"
        raise _kind_of(error)(f"{what}: {said}", no_effect=no_effect) from error


def _kind_of(error: OSError) -> type[AdapterError]:
    for builtin, kind in _OF_BUILTINS.items():
        if isinstance(error, builtin):
            return kind
    return next((kind for kind, codes in _OF_CODES.items() if error.errno in codes), AdapterError)


def _codes(names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))


# By class first, since libraries raise these without a number.
_OF_BUILTINS: Mapping[type[OSError], type[AdapterError]] = {
    FileNotFoundError: NotFound,
    PermissionError: Unauthorized,
    FileExistsError: InvalidInput,
    IsADirectoryError: InvalidInput,
    NotADirectoryError: InvalidInput,
    TimeoutError: AdapterTimeout,
    ConnectionError: Unavailable,
    BlockingIOError: Unavailable,
}
_OF_CODES: Mapping[type[AdapterError], frozenset[int]] = {
    # EFBIG: beyond the largest file that the file system, or a limit of the process, allows.
    Unavailable: _codes(
        "ENOSPC EDQUOT EFBIG EIO EREMOTEIO EMFILE ENFILE ENOMEM ENOBUFS EBUSY ETXTBSY ESTALE"
        " ENOLCK EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENOTCONN"
    ),
    Unauthorized: _codes("EROFS"),
    InvalidInput: _codes("ENAMETOOLONG ELOOP EILSEQ"),
}
