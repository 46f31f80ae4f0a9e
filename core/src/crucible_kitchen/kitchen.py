"""The kitchen: the bound set of active adapters, one for each configured port."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .adapters.binding import PortT
from .adapters.policy import Policy, enforced
from .calls.closing import CLOSE_TIMEOUT, LeftOpen, raise_first, warn_of
from .calls.port import Port, ports_in
from .configuration.configurator import Configurator
from .configuration.suggestions import not_configured
from .configuration.validation import ModelT
from .errors import AdapterError, ConfigurationError, PortNotConfigured
from .events import Observer, Observers
from .masking.errors import without_secrets
from .masking.secrets import Secrets
from .observers.config import Observe, check, handlers, observe
from .ports import (
    PORTS,
    BlobStore,
    Completer,
    DatasetStore,
    HubClient,
    MetricsStore,
    TrainingClient,
)
from .settings import Key, Settings, gather, in_code


class Kitchen:
    """The adapters of one program, one for each configured port.

        with Kitchen(adapters={"blob_store": {"use": "fsspec", "url": "runs"}}) as kitchen:
            kitchen.blob_store.write("greeting", b"hello")

    Made in code, it reads no file; `Kitchen.load()` reads `crucible.toml` and the environment.
    An adapter is imported and bound when its port is first used. Safe to use from any thread.

    Args:
        adapters: for each port a name, a module or object, or a table whose `use` is one of
            these and whose other keys are the adapter's options.
        settings: in place of `adapters`, settings that are merged already. Mistakes in them raise
            nothing here; `mistakes()` returns them with all others.
        environ: the environment, for defaults of options; None is the process's.

    Raises:
        ConfigurationError: a port does not exist. Here and when a port is bound, the message
            lists every mistake in the configuration.
        TypeError: both `adapters` and `settings` are given.
    """

    def __init__(
        self,
        adapters: Mapping[str, Any] | None = None,
        *,
        settings: Settings | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if adapters is not None and settings is not None:
            raise TypeError("give a kitchen adapters or settings, not both")
        if settings is None:
            self.settings = in_code({"adapters": {} if adapters is None else adapters})
        else:
            self.settings = settings
        self._secrets = Secrets(self.settings.values)
        self.observers = Observers(functools.partial(self._secrets.masked, whole=True))
        self._configurator = Configurator(
            self.settings,
            os.environ if environ is None else environ,
            self.observers,
            self._secrets,
        )
        self.policy = Policy.of(self.settings.values.get("plugins", {}), self.settings.source_of)
        """Which plugins may be loaded for it."""
        self.left_open: list[str] = []
        """The adapters that did not close in time, as `port.adapter`."""
        self._handlers: list[Observer] = []
        self._lock = threading.RLock()
        self._ports: dict[str, Any] = {}  # of the class of each name
        self._extra: list[Port] = []
        if settings is None:
            self._refuse_mistakes()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        profile: str | None = None,
        arguments: Sequence[str] = (),
        adapters: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Kitchen:
        """Make a kitchen of everything the user configured; see `crucible_kitchen.settings`.

        Args:
            path: the file; None looks for `crucible.toml`.
            profile: the `[profile.<name>]` to lay over the file.
            arguments: `key.path=value`, as on the command line.
            adapters: as in `Kitchen(...)`; they override every other layer.
            environ: the environment; None is the process's.

        Raises:
            ConfigurationError: the configuration has mistakes that show without any adapter.
        """
        code = {"adapters": adapters} if adapters else None
        settings = gather(path, profile=profile, arguments=arguments, code=code, environ=environ)
        kitchen = cls(settings=settings, environ=environ)
        kitchen._refuse_mistakes()
        kitchen.observe_as_configured()
        return kitchen

    def _refuse_mistakes(self) -> None:
        if self.settings.mistakes:
            raise self.with_the_rest({})

    def __repr__(self) -> str:
        return f"<Kitchen {', '.join(self.configured) or 'without adapters'}>"

    # --- ports ---

    @property
    def training_client(self) -> TrainingClient:
        return self.port(TrainingClient)

    @property
    def dataset_store(self) -> DatasetStore:
        return self.port(DatasetStore)

    @property
    def blob_store(self) -> BlobStore:
        return self.port(BlobStore)

    @property
    def hub_client(self) -> HubClient:
        return self.port(HubClient)

    @property
    def metrics_store(self) -> MetricsStore:
        return self.port(MetricsStore)

    @property
    def completer(self) -> Completer:
        return self.port(Completer)

    @property
    def configured(self) -> tuple[str, ...]:
        """The names of the ports that have an adapter in the settings."""
        return tuple(name for name in PORTS if name in self.settings.values.get("adapters", {}))

    def port(self, port: type[PortT]) -> PortT:
        """Return the adapter of a port, bound on first use.

        Raises:
            PortNotConfigured: no adapter is chosen; there is no silent default.
            ConfigurationError: its options are wrong; or one of the subclasses `AdapterNotFound`,
                `AdapterLoadError` and `BindError`.
        """
        bound: PortT | None = self._ports.get(port.name)  # no lock: reading a dict needs none
        if bound is not None:
            return bound
        if port.name not in self.configured:
            raise PortNotConfigured(self._not_configured([port.name]))
        try:
            return self._bound(port)
        except ConfigurationError as error:
            found: dict[Key, ConfigurationError] = {("adapters", port.name): error}
            cause = None if error.__cause__ is None else self.without_secrets(error.__cause__)
            raise self.with_the_rest(found) from cause

    def _bound(self, port: type[PortT]) -> PortT:
        with self._lock:
            if port.name not in self._ports:
                table = self.settings.values["adapters"][port.name]
                with enforced(self.policy):
                    self._ports[port.name] = self._configurator.adapter(
                        port, table, ("adapters", port.name)
                    )
            bound: PortT = self._ports[port.name]
            return bound

    def bind(
        self, ports: Iterable[str], found: Mapping[Key, ConfigurationError] | None = None
    ) -> None:
        """Bind these ports now, so that a mistake shows before any work starts.

        Args:
            ports: their names.
            found: mistakes that the caller has found, by where they are in the settings.

        Raises:
            PortNotConfigured: some ports have no adapter; the message names all of them.
            ConfigurationError: as for `port`, or there are mistakes already.
        """
        ports, found = list(ports), dict(found or {})
        if missing := [name for name in PORTS if name in ports and name not in self.configured]:
            found["adapters",] = PortNotConfigured(self._not_configured(missing))
        if found or self.settings.mistakes:
            raise self.with_the_rest(found)
        for name in ports:
            self.port(PORTS[name])

    def mistakes(
        self, found: Mapping[Key, ConfigurationError] | None = None
    ) -> dict[Key, ConfigurationError]:
        """Bind every configured port; return what is wrong, by where it is in the settings.

        Args:
            found: known mistakes, by where they are; adapters with known mistakes are not tried
                again.

        Returns:
            `found` and all others: at `()` those that concern no adapter, at
            `("adapters", "<port>")` those of an adapter, at `("observe",)` those of that table.
            While the table `[plugins]` has a mistake, only those at `()`: nothing may be loaded.
        """
        found = dict(found or {})
        if self.settings.mistakes:
            found[()] = ConfigurationError(*self.settings.mistakes)
            if self.policy.broken:  # nothing can be tried
                return {(): found[()]}
        for name in self.configured:
            if ("adapters", name) not in found:
                try:
                    self._bound(PORTS[name])
                except ConfigurationError as error:
                    found["adapters", name] = error
        try:
            check(self.observe_config(), self.settings.source_of)
        except ConfigurationError as error:
            found["observe",] = error
        return found

    def with_the_rest(self, found: Mapping[Key, ConfigurationError]) -> ConfigurationError:
        """Return one error of these and all other mistakes, so that one run shows them all."""
        return ConfigurationError.of(self.mistakes(found).values())

    def _not_configured(self, missing: Sequence[str]) -> str:
        file = self.settings.files[0] if self.settings.files else "crucible.toml"
        with enforced(self.policy):
            return not_configured(missing, self._configurator.installed, str(file))

    # --- configuration ---

    def configure(self, model: type[ModelT], table: Mapping[str, Any], at: Key) -> ModelT:
        """Validate a table of the settings; adapters that it names are bound.

        Args:
            model: the class, such as a workflow's configuration.
            table: the values.
            at: where the table is in the settings, to name keys and sources in errors.

        Raises:
            ConfigurationError: the class does not accept the values. The message names each key's
                full path, the place its value came from, and the nearest spelling.
        """
        with enforced(self.policy):
            configured = self._configurator.configure(model, table, at)
        with self._lock:
            self._extra.extend(port for port, _ in ports_in(configured))
        return configured

    # --- the whole ---

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Report every adapter call and workflow event to `observer`.

        Returns:
            A function that stops it.
        """
        return self.observers.add(observer)

    def observe_config(self) -> Observe:
        """Return the table `[observe]`.

        Raises:
            ConfigurationError: unknown keys or invalid values, named with their source.
        """
        table = self.settings.values.get("observe", {})
        with enforced(self.policy):
            return observe(table, self.configure, self.settings.source_of)

    def observe_as_configured(self) -> None:
        """Switch on the observers of the table `[observe]`, which `close` closes as well.

        Raises:
            ConfigurationError: the table is wrong, or an observer cannot be made.
        """
        for handler in handlers(self.observe_config(), self.settings.source_of):
            self.observe(handler)
            self._handlers.append(handler)

    def describe(self) -> dict[str, Any]:
        """Return the bound adapters and their options as plain data, secrets masked."""
        return {name: self._ports[name].describe() for name in PORTS if name in self._ports}

    def redacted(self, text: str, *, whole: bool = False) -> str:
        """Return the text with every configured secret masked, in whatever form.

        Args:
            text: any text.
            whole: whether it is one value, such as an option, so that a URL at its start ends
                where the text ends.
        """
        return self._secrets.masked(text, whole=whole)

    def without_secrets(self, error: BaseException) -> BaseException:
        """Return an error with every configured secret masked, in its causes, too.

        It is masked in place. If it cannot be changed, an error of a class of the same name that is
        derived from its own is returned instead.
        """
        return without_secrets(error, self._secrets)

    def conceal(self, value: Any) -> None:
        """Mask the secrets in a value, such as a configuration, from now on."""
        self._secrets.learn(value)

    def packages(self) -> dict[str, str]:
        """Return the versions of the packages whose adapters were bound, inner ones included."""
        return dict(self._configurator.packages)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close every adapter that was bound. Using a port later binds it again.

        Args:
            timeout: seconds that each adapter may take. One that takes longer is left as it is, in
                a thread that does not keep the process from ending, and is named in `left_open`.

        Raises:
            AdapterError: an adapter failed; the others are closed all the same. If several failed,
                it is the first error, and each other one is a `CrucibleWarning`.
            AdapterTimeout: an adapter took longer than `timeout`.
        """
        with self._lock:
            ports = [*self._extra, *self._ports.values()]
            self._ports, self._extra = {}, []
            observing, self._configurator.observing = self._configurator.observing, []
        try:
            failures = [f for port in ports for f in port.close_within(timeout)]
        finally:
            for stop in observing:
                stop()
            for handler in self._handlers:
                if callable(close := getattr(handler, "close", None)):
                    self.observers.guarded(handler, "close", close)
        late = [failure for failure in failures if isinstance(failure, LeftOpen)]
        self.left_open += [f"{failure.port}.{failure.adapter}" for failure in late]
        raise_first(failures)

    def __enter__(self) -> Kitchen:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.close()
        except AdapterError as failure:
            if error is None:  # never hide the first failure behind one of closing
                raise
            warn_of(failure)
