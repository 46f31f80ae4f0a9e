"""What `crucible check` does: run a suite, by pytest, on a configured adapter or environment."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
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
from .conformance import LEVEL, Conformance
from .plugin import Cards
from .report import ReportCard


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked. Inside pytest, `checked.py` makes a test class of it."""

    settings: Settings
    port: type[Port] | None
    fixtures: Mapping[str, Any]
    level: str | None

    def suite(self) -> type[Conformance]:
        """Return the suite with its fixtures."""
        kind = "environment" if self.port is None else self.port.name
        suite = suite_of(kind)
        known = _plain_fixtures(suite)
        if unknown := [name for name in self.fixtures if name not in known]:
            raise ConfigurationError(
                f"{unknown[0]!r} is not a fixture of the suite of {kind} whose value is "
                f"a text or a number; those are {', '.join(known) or 'none'}"
            )

        given: dict[str, Any] = dict(self.fixtures)
        members: dict[str, Any] = {}
        if self.port is None:
            given[kind] = self.settings.values["workflow"][kind]
        else:
            members, given["reopen"] = self._adapter(self.port)
        for name, value in given.items():
            members[name] = _fixture(value)
        if self.level is not None:
            members["level"] = self.level
        return type("TestConformance", (suite,), members)

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
            if {"str", "int", "float"} & set(annotation.split(" | ")):
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
    """Run the conformance suite of a port on the adapter that the settings name for it, or that of
    environments on `workflow.environment`.

    Args:
        settings: where the adapter and its options come from. Each test binds it again.
        port: the class of the port; None checks the environment.
        fixtures: values for optional fixtures of the suite, such as `model` or `dataset_id`.
        level: the level to hold the adapter to; None is that of the kit's major version.
        only: the names of the tests to run; None is all.
        fail_fast: whether to run no further test after the first failure.
        each: called with the name of each test before it runs.

    Raises:
        ConfigurationError: the suite has no such fixture, the kit has no such level, or
            pytest could not run it.
    """
    if level is not None and Version(level) > Version(LEVEL):
        raise ConfigurationError(f"there is no level {level} yet; the newest is {LEVEL}")
    global subject
    subject = Subject(settings, port, fixtures or {}, level)

    sys.modules.pop(CHECKED, None)  # it holds the suite of an earlier call
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
    return found[0]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep pytest's environment variables and the plugins of other packages out."""
    with mock.patch.dict(os.environ, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}):
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            os.environ.pop(name, None)
        yield
