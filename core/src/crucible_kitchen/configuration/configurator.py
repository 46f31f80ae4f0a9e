"""Tables of the settings become what they describe: configurations and bound adapters."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from ..adapters.binding import PortT, bind, label_of, options_class
from ..adapters.discovery import Catalog, catalog
from ..calls.port import Port, ports_in
from ..errors import BindError, ConfigurationError, CrucibleError
from ..events import Event, Observers
from ..extent import unfit
from ..masking.errors import without_secrets
from ..masking.secrets import Secrets
from ..messages.spelling import nearest
from ..options.adapter_options import AdapterOptions
from ..settings import Key, Settings, miswritten
from .mistakes import carried, cause_of, described, explained
from .renaming import Renaming, put
from .replaced import named_in
from .validation import ModelT, validate

PLAIN = (bool, int, float, list, tuple, datetime.date, datetime.time)
"""Types of TOML and JSON besides strings and tables. None of their values can be an adapter."""


class Configurator:
    """Validates the tables of the settings, and binds the adapters that they name.

    Args:
        settings: where each value came from, for messages.
        environ: the environment, for defaults of options.
        observers: those of every adapter.
        secrets: those that no message may show; secrets in options and tables are added.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        observers: Observers,
        secrets: Secrets,
    ) -> None:
        self._settings = settings
        self._observers = observers
        self._secrets = secrets
        # Every model that is validated finds these; `bind` serves options that are adapters.
        self._context = {"environ": environ, "bind": self._bind}
        self.packages: dict[str, str] = {}
        """The versions of the packages whose adapters were bound, inner ones included."""
        self.observing: list[Callable[[], None]] = []
        """Functions that end what bound adapters observe."""

    @functools.cached_property
    def installed(self) -> Catalog:
        """The adapters that are installed."""
        return catalog()

    def configure(self, model: type[ModelT], table: Mapping[str, Any], at: Key) -> ModelT:
        """Validate a table; see `Kitchen.configure`."""
        if found := [f"{'.'.join(place)}: it {why}" for place, why in unfit(table, at)]:
            raise ConfigurationError(*found)
        renaming = Renaming(self._settings, self._options_of)
        try:
            self._secrets.learn(table)
            renamed = renaming.table(model, table, at)
            if not renaming.mistakes:
                put(self._settings, at, table, renamed)
            configured = validate(model, renamed, self._context, ".".join(at))
            self._secrets.learn(configured)
        except ValidationError as error:
            raise self._explained(error, at, renaming) from self._cause_of(error)
        except (CrucibleError, KeyboardInterrupt):
            raise
        except BaseException as error:  # in a validator of the class's own
            raise ConfigurationError(
                f"{'.'.join(at)}: {model.__name__} raised {described(error)}"
            ) from without_secrets(error, self._secrets)
        if renaming.mistakes:
            raise ConfigurationError.of(renaming.mistakes)
        self._hint(configured, at)
        return configured

    def adapter(self, port: type[PortT], value: Any, at: Key) -> PortT:
        """Bind the adapter that a value of the settings describes.

        Args:
            port: the port that it must serve.
            value: a name, a module or object, or a table whose `use` is one of these.
            at: where it is in the settings.

        Raises:
            ConfigurationError: its options are wrong, or it cannot be found, loaded or bound.
        """
        renaming = Renaming(self._settings, self._options_of)
        try:
            renamed = renaming.adapter(port, value, at)
        except PydanticUserError:  # said where it is bound
            renamed = value
        if renamed is not value and not renaming.mistakes:
            put(self._settings, at, value, renamed)
        try:
            bound = TypeAdapter(port).validate_python(renamed, context=self._context)
        except ValidationError as error:
            raise self._explained(error, at, renaming) from self._cause_of(error)
        if renaming.mistakes:
            raise ConfigurationError.of(renaming.mistakes)
        self._hint(bound, at)
        return bound

    def _hint(self, value: Any, at: Key) -> None:
        """Let errors of the adapters in a value say which options went with a replaced adapter."""
        if not self._settings.replaced:
            return
        for port, key in ports_in(value, at):
            port.hint_by(
                functools.partial(
                    named_in, settings=self._settings, adapter=key, options=type(port.options)
                )
            )
            self._hint(port.options, key)

    def _bind(self, port: type[PortT], value: Any) -> PortT:
        """Bind one adapter, perhaps inside the options of another.

        Raises:
            PydanticCustomError: a mistake in the value or the adapter; see `mistakes`.
            ValidationError: mistakes in its options.
        """
        table = dict(value) if isinstance(value, Mapping) else {"use": value}
        use = table.pop("use", None)
        if use is None or (isinstance(use, str) and not use):
            near = nearest("use", table)
            hint = f"; did you mean 'use', not {near!r}?" if near else ""
            raise PydanticCustomError(
                "no_use", 'name the adapter: use = "<name>"{hint}', {"hint": hint}
            )
        if why := miswritten(use):  # it may hold a secret, so it is not looked for as a name
            raise PydanticCustomError("miswritten", "{why}", {"why": why})
        try:
            adapter, label = self._found(port, use)
            options = options_class(adapter, label)
        except CrucibleError as error:
            raise carried(error) from error
        try:
            opts = validate(options, table, self._context, label)
        except (ValidationError, KeyboardInterrupt):
            raise
        except BaseException as error:  # in a validator of the adapter's own
            broken = BindError(f"the Options of {label!r} raised {described(error)}")
            broken.__cause__ = error
            raise carried(broken) from error
        try:
            bound = bind(port, adapter, opts, label, self._observers, self._secrets)
        except BindError as error:
            raise carried(error) from error
        observe = getattr(adapter, "observe", None)
        if getattr(observe, "crucible_helper", False) is True:
            self.observing.append(self._observers.add(_Observing(label, observe, opts)))
        return bound

    def _found(self, port: type[PortT], use: Any) -> tuple[Any, str]:
        """Return the adapter that `use` names, or is, and its name in messages."""
        if isinstance(use, str):
            entry = self.installed.find(port.name, use)
            adapter = entry.load()
            self.packages[entry.package] = entry.version
            return adapter, use
        if isinstance(use, PLAIN):
            kind = type(use).__name__
            raise BindError(f"name the adapter by a string, not a value of type {kind}")
        return use, label_of(use)

    def _options_of(self, port: type[Port], use: Any) -> type[AdapterOptions]:
        adapter, label = self._found(port, use)
        return options_class(adapter, label)

    def _explained(self, error: ValidationError, at: Key, renaming: Renaming) -> ConfigurationError:
        found = explained(error, at, self._settings, self._secrets)
        return ConfigurationError.of([*renaming.mistakes, found]) if renaming.mistakes else found

    def _cause_of(self, error: ValidationError) -> BaseException | None:
        cause = cause_of(error)
        return None if cause is None else without_secrets(cause, self._secrets)


@dataclass(frozen=True, slots=True)
class _Observing:
    """The helper `observe(opts, event)` of a bound adapter, as an observer."""

    label: str
    observe: Any
    opts: Any

    def __call__(self, event: Event) -> None:
        self.observe(self.opts, event)

    def __repr__(self) -> str:
        return self.label
