"""What a caller sees of an adapter's error: an `AdapterError` that says where it happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import AdapterError, described
from ..masking.errors import mask_error
from ..masking.secrets import Secrets
from ..messages.printable import text_of


class Translation:
    """Translates the errors of one bound adapter.

    Args:
        port: the port's name.
        adapter: the adapter's name.
        secrets: those that no message may show.
    """

    __slots__ = ("_adapter", "_port", "_secrets", "hint")

    def __init__(self, port: str, adapter: str, secrets: Secrets) -> None:
        self._port = port
        self._adapter = adapter
        self._secrets = secrets
        self.hint: Callable[[str], str] | None = None
        """Returns a note for an error's message, "" for none."""

    def fail(self, error: BaseException, callback: str) -> NoReturn:
        """Raise the translation of an error that a callback raised."""
        if (translated := self.translate(error, callback)) is error:
            raise translated  # with the cause that it has
        raise translated from translated.__cause__

    def translate(self, error: BaseException, callback: str) -> AdapterError:
        """Explain an error, even one that fails when it is looked at.

        Such an error is not kept as the cause, since what it holds cannot be masked.
        """
        try:
            if isinstance(error, AdapterError):  # perhaps of a class that does not fill it in
                error.reason = text_of(error.reason) or type(error).__name__
            explained = self.explain(error, callback)
            str(explained)
            hint = self.hint(explained.reason) if self.hint else ""
            if hint and hint not in getattr(explained, "__notes__", ()):
                explained.add_note(hint)
            return explained
        except KeyboardInterrupt:
            raise
        except BaseException:
            return self.explain(AdapterError(described(error)), callback)

    def explain(self, error: BaseException, callback: str) -> AdapterError:
        """Add where an error happened, if it does not say; wrap it if it is not `AdapterError`."""
        if not isinstance(error, AdapterError):
            foreign, error = error, AdapterError(described(error))
            error.__cause__ = foreign
        if error.port is None:
            mask_error(error, self._secrets)
            error.port, error.adapter, error.callback = self._port, self._adapter, callback
            error.args = (error.reason,)
        return error

    def item(self, item: Any, callback: str) -> Any:
        """Translate an item of a result if it is an error; return any other as it is."""
        return self.translate(item, callback) if isinstance(item, BaseException) else item
