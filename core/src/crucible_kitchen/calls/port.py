"""A bound adapter: the base class of the six ports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import core_schema

from ..errors import AdapterError, Unsupported
from ..masking.models import visible
from .closing import CLOSE_TIMEOUT, LeftOpen, ends_in_time, raise_first
from .dispatch import Dispatch
from .port_schema import port_schema


class Port(Dispatch):
    """A bound adapter. Use one of the six subclasses in `crucible_kitchen.ports`."""

    @property
    def module(self) -> Any:
        """The bound adapter itself: a module, or an object."""
        return self._adapter

    def helper(self, name: str) -> Callable[..., Any]:
        """Return the adapter's helper of this name with its options bound.

        Raises:
            Unsupported: neither the adapter nor one that it wraps has such a helper.
        """
        try:
            function: Any = getattr(self._adapter, name, None)
            offered = callable(function) and getattr(function, "crucible_helper", False)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._errors.fail(error, name)
        if offered:

            @functools.wraps(function)
            def bound(*args: Any, **kwargs: Any) -> Any:
                try:
                    return function(self._opts, *args, **kwargs)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    self._errors.fail(error, name)

            return bound
        if self._inner is not None:
            return self._around_helper(name, self._inner.helper(name))
        raise self._errors.explain(Unsupported(f"has no helper {name!r}"), name)

    def _around_helper(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        """Return a helper of `inner` as this adapter's own helper `around_helper` wraps it."""
        around: Any = getattr(self._adapter, "around_helper", None)
        if getattr(around, "crucible_helper", False) is not True:
            return inner
        try:
            wrapped: Callable[..., Any] = around(self._opts, name, inner)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._errors.fail(error, name)
        return wrapped

    def redacted(self, text: str, *, known_only: bool = False) -> str:
        """Return the text with every secret masked that the adapter's kitchen knows.

        Args:
            text: any text.
            known_only: leave those that are merely evident in it, such as `password=...`; for
                data, which may be about passwords.
        """
        return self._secrets.masked(text, known_only=known_only)

    def ping(self) -> None:
        """Return if the adapter's backend can be reached, else raise; see `AdapterSpec.ping`."""
        self._run("ping", {})

    def clean(self, prefix: str = "", keep: Sequence[str] = (), dry_run: bool = False) -> list[str]:
        """Remove what killed processes left behind, here and with every adapter bound for an
        option; see `AdapterSpec.clean`.

        Args:
            prefix: what labels and paths start with where no process works now; empty, anywhere,
                and only what certainly has no writer any more.
            keep: references that are still needed.
            dry_run: remove nothing.

        Returns:
            The names of what was removed, or would be.
        """
        removed: list[str] = []
        if "clean" in self._implemented:
            removed += self._run("clean", {"prefix": prefix, "keep": keep, "dry_run": dry_run})
        for child, _ in ports_in(self.options):
            removed += child.clean(prefix, keep, dry_run)
        return removed

    def close(self) -> None:
        """Close the adapter, then every adapter that was bound for its options.

        Raises:
            AdapterError: one of them failed; the others are closed all the same.
            AdapterTimeout: one of them took longer than `CLOSE_TIMEOUT`, 30 s, and was left open.
        """
        raise_first(self.close_within(CLOSE_TIMEOUT))

    def close_within(self, timeout: float) -> list[BaseException]:
        """Do as `close`, and return what failed instead of raising it.

        Args:
            timeout: seconds that each adapter is given.

        Returns:
            `AdapterError`s, `LeftOpen` for each adapter that took too long, KeyboardInterrupt.
        """
        failures: list[BaseException] = []
        if "close" in self._implemented:
            try:
                if not ends_in_time(functools.partial(self._run, "close", {}), timeout):
                    late = LeftOpen(f"did not end within {timeout:g} s, so it was left as it is")
                    failures.append(self._errors.explain(late, "close"))
            except (AdapterError, KeyboardInterrupt) as error:
                failures.append(error)
        for child, _ in ports_in(self.options):
            failures += child.close_within(timeout)
        return failures

    # --- options that hold a port ---

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return port_schema(cls, cls.describe)

    def describe(self) -> dict[str, Any]:
        """Return the adapter and its options as plain data, secrets masked."""
        return {"use": self.adapter, **visible(self._opts)}


def ports_in(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[Port, tuple[str, ...]]]:
    """Find the adapters bound for options, wherever a field, a list or a table holds them.

    Args:
        value: a configuration, its options, or a value in them.
        at: the path of that value.

    Yields:
        Each adapter with its path. Adapters inside an adapter's own options are not included.
    """
    if isinstance(value, Port):
        yield value, at
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from ports_in(getattr(value, name), (*at, name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from ports_in(item, (*at, str(name)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ports_in(item, (*at, str(index)))
