"""What `crucible check` does: run suites, by pytest, on an adapter or an environment."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from hypothesis.configuration import set_hypothesis_home_dir
from packaging.version import Version

from ..calls.port import Port
from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..settings import Settings
from . import suite_of
from .conformance import LEVEL, Conformance, unfit_level
from .plugin import Cards
from .report import ReportCard
from .shipped import chosen, suites_in


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked. Inside pytest, `checked.py` makes test classes of it.

    Args:
        settings: where the adapter and its options come from.
        port: the class of the port; None if it is an environment.
        fixtures: values for optional fixtures.
        level: the level to hold it to; None is that of the suite.
        module: where the package has suites of its own; None for the bare suite.
        variant: which of those.
        configured: whether it is checked as the settings have it; otherwise as the fixtures of the
            package's suites make it.
        name: the name of what is checked, to which those suites are held; "" holds them to none.
    """

    settings: Settings
    port: type[Port] | None
    fixtures: Mapping[str, Any]
    level: str | None
    module: str | None = None
    variant: str | None = None
    configured: bool = True
    name: str = ""

    def suites(self) -> Mapping[str, type[Conformance]]:
        """Return the suites with their fixtures, each under the name of its class."""
        if self.module is None:
            return {"TestConformance": self._suite("TestConformance", suite_of(self._kind))}
        suites = chosen(suites_in(self.module, self._kind), self.variant, self.configured)
        names = [f"Test{suite.__name__.removeprefix('Test')}" for suite in suites]
        return {n: self._suite(n, suite) for n, suite in zip(names, suites, strict=True)}

    @property
    def _kind(self) -> str:
        return "environment" if self.port is None else self.port.name

    def _suite(self, name: str, suite: type[Conformance]) -> type[Conformance]:
        known = _plain_fixtures(suite)
        if unknown := [each for each in self.fixtures if each not in known]:
            raise ConfigurationError(
                f"{unknown[0]!r} is not a fixture of the suite of {self._kind} whose value is "
                f"a text or a number; those are {', '.join(known) or 'none'}"
            )
        given: dict[str, Any] = dict(self.fixtures)
        members: dict[str, Any] = {}
        if self.configured and self.port is None:
            given[self._kind] = self.settings.values["workflow"][self._kind]
        elif self.configured and self.port is not None:
            members, given["reopen"] = self._adapter(self.port)
        members |= {each: _fixture(value) for each, value in given.items()}
        if self.level is not None:
            members["level"] = self.level
        return type(name, (suite,), members)

    def _adapter(self, port: type[Port]) -> tuple[dict[str, Any], Any]:
        """Return the fixture of the adapter, and a function that binds it once more."""

        @contextlib.contextmanager
        def opened() -> Iterator[Port]:
            with Kitchen(settings=self.settings) as kitchen:
                yield kitchen.port(port)

        def adapter(test: Any) -> Iterator[Port]:
            with opened() as bound:
                yield bound

        return {port.name: pytest.fixture(adapter)}, opened


def _plain_fixtures(suite: type[Conformance]) -> list[str]:
    """Return the names of fixtures whose annotation allows a text or a number."""
    names = []
    for name in dir(suite):
        member: Any = inspect.getattr_static(suite, name)
        if hasattr(member, "__wrapped__") and not name.startswith("test_"):  # so a fixture
            annotation = inspect.unwrap(member).__annotations__.get("return", "")
            # A text where the module says so, a type or a union elsewhere.
            written = annotation.__name__ if isinstance(annotation, type) else str(annotation)
            if {"str", "int", "float"} & set(written.split(" | ")):
                names.append(name)
    return names


def _fixture(value: Any) -> Any:
    def given(test: Any) -> Any:
        return value

    return pytest.fixture(given)


CHECKED = f"{__package__}.checked"
subject: Subject | None = None


def check(
    settings: Settings,
    port: type[Port] | None,
    *,
    fixtures: Mapping[str, Any] | None = None,
    level: str | None = None,
    only: Collection[str] | None = None,
    fail_fast: bool = False,
    each: Callable[[str], None] = lambda test: None,
) -> ReportCard:
    """Run the bare conformance suite of a port on the adapter that the settings name for it, or
    that of environments on `workflow.environment`.

    Args:
        settings: where the adapter and its options come from. Each test binds it again.
        port: the class of the port; None checks the environment.
        fixtures: values for optional fixtures of the suite, such as `model` or `dataset_id`.
        level: the level to hold the adapter to; None is that of the kit's major version.
        only: the names of the tests to run; None is all. The card is partial without the others.
        fail_fast: whether to run no further test after the first failure.
        each: called with the name of each test before it runs.

    Raises:
        ConfigurationError: the suite has no such fixture, the kit has no such level, or
            pytest could not run it.
    """
    [card] = run(Subject(settings, port, fixtures or {}, level), only, fail_fast, each)
    return card


def run(
    what: Subject,
    only: Collection[str] | None = None,
    fail_fast: bool = False,
    each: Callable[[str], None] = lambda test: None,
) -> Sequence[ReportCard]:
    """Run the suites of a subject; return a card for each.

    Args:
        what: the subject.
        only: as `check` has it.
        fail_fast: as `check` has it.
        each: as `check` has it.

    Raises:
        ConfigurationError: as in `check`.
        AdapterLoadError: the package's own suites cannot be imported.
    """
    if what.level is not None and (why := unfit_level(what.level)):
        raise ConfigurationError(why)
    if what.level is not None and Version(what.level) > Version(LEVEL):
        raise ConfigurationError(f"there is no level {what.level} yet; the newest is {LEVEL}")
    global subject
    subject = what

    sys.modules.pop(CHECKED, None)  # it holds the suites of an earlier call
    broken: list[BaseException] = []

    class Watch:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            if only is not None:
                items[:] = [i for i in items if getattr(i, "originalname", "") in only]

        def pytest_runtest_logstart(self, nodeid: str) -> None:
            each(nodeid.rpartition("::")[2])

        def pytest_exception_interact(self, node: pytest.Item, call: pytest.CallInfo[Any]) -> None:
            if isinstance(node, pytest.Collector) and call.excinfo:
                broken.append(call.excinfo.value)

    cards = Cards()
    with tempfile.TemporaryDirectory() as folder, _alone():
        set_hypothesis_home_dir(f"{folder}/hypothesis")
        code = pytest.main(
            # No file of the user's, and no plugin that happens to be installed, takes part.
            [
                *("--pyargs", CHECKED, "--noconftest"),
                *("-c", os.devnull, "--rootdir", folder, "--basetemp", f"{folder}/tmp"),
                *("-p", "no:cacheprovider", "-p", "no:terminal"),
                *(["--exitfirst"] if fail_fast else []),
            ],
            plugins=[cards, Watch()],
        )
    if broken:
        raise broken[0]
    if not (found := cards.cards()):
        raise ConfigurationError(f"pytest ended before any test was run, with {code!r}")
    if problems := [*cards.mixed(), *_of_others(what, found)]:
        raise ConfigurationError(*problems)
    return found


def _of_others(what: Subject, cards: Sequence[ReportCard]) -> Iterator[str]:
    """Yield which cards are of something else than what is checked."""
    for card in cards if what.name and not what.configured else ():
        # A suite none of whose tests got so far is named like its class. An environment may be
        # made of its class, which has no name.
        is_known = bool(card.package) or (what.port is not None and card.counts["passed"] > 0)
        if is_known and card.adapter.rpartition("/")[2] != what.name:
            yield (
                f"the suites in {what.module!r} were run on {card.title}, and say nothing about "
                f"{card.port}.{what.name}"
            )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep pytest's environment variables and the plugins of other packages out."""
    with mock.patch.dict(os.environ, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}):
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            os.environ.pop(name, None)
        yield
