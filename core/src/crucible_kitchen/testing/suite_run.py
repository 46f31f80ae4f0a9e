"""One conformance suite in one session of pytest: what it has, and what became of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..adapters import kit
from ..adapters.contents import files_of
from ..adapters.discovery import ADAPTERS, ENVIRONMENTS, catalog
from ..version import __version__
from .report import ReportCard, Verdict


@dataclass(frozen=True, slots=True)
class About:
    """What a test was run on.

    Args:
        kind: the port's name, or `environment`.
        variant: which of its backends.
        level: the level to which it is held.
        name: its name; empty if the test did not get so far.
        package: its distribution; empty if it is not installed.
        version: the version of that.
    """

    kind: str
    variant: str
    level: str
    name: str
    package: str
    version: str

    def files(self) -> Mapping[str, str]:
        """Return the hashes of the files of its distribution, as `ReportCard` has them."""
        group = ENVIRONMENTS if self.kind == "environment" else ADAPTERS
        for entry in catalog(group).entries if self.package else ():
            if (entry.port or "environment", entry.name, entry.package) == (
                self.kind,
                self.name,
                self.package,
            ):
                with contextlib.suppress(OSError):  # else it cannot be bound to them
                    return files_of(entry.entry_point.module, entry.folder)
        return {}


class SuiteRun:
    """Collects what a session finds out with one suite.

    Args:
        suite: the suite's node id, such as `tests/test_acme.py::TestAcme`.
    """

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.tests: dict[str, str] = {}
        """The names of its tests, by node id: one with parameters has several."""
        self.promises: list[str] = []
        """The names of the tests that it should have."""
        self.verdicts: dict[str, list[Verdict]] = {}
        """What became of each, by node id."""
        self.names: set[str] = set()
        """The names of what its tests were run on: of one thing, or it has no card."""
        self._about: About | None = None
        self._files: Mapping[str, str] = {}

    def expect(self, tests: Mapping[str, str], promises: Sequence[str]) -> None:
        """Note which tests were found, whether or not they will be run."""
        self.tests |= tests
        self.promises = list(promises)

    def judge(self, item: str, about: About, verdict: Verdict) -> None:
        """Note what became of a test, or of a part of it."""
        if self._about is None or not self._about.name:
            self._about = about
            # Now, while they are what is being tested.
            self._files = about.files()
        if about.name:
            self.names.add(about.name)
        self.verdicts.setdefault(item, []).append(verdict)

    @property
    def mixed(self) -> str:
        """Why it has no card of one adapter; "" if it has."""
        if len(self.names) < 2:
            return ""
        return (
            f"{self.suite} was run on {' and '.join(sorted(self.names))}, so it has no card of "
            "one adapter: give each a class of its own"
        )

    def card(self) -> ReportCard:
        """Return the card. Its order is that of the suite, in whatever order tests were run."""
        about = self._about
        assert about is not None, "no test was run"
        joined: dict[str, Verdict] = {}
        for item in dict.fromkeys([*self.tests, *self.verdicts]):
            for verdict in self.verdicts.get(item, ()):
                earlier = joined.get(verdict.test)
                joined[verdict.test] = earlier.joined(verdict) if earlier else verdict
        missing = [test for item, test in self.tests.items() if item not in self.verdicts]
        promised = self._promised(about.kind)
        missing += [test for test in promised if test not in joined]
        # Those that a package adds come last; pytest finds what it overrides last, too.
        place = {test: number for number, test in enumerate(promised)}
        return ReportCard(
            port=about.kind,
            adapter=about.name or self.suite.rpartition("::")[2],
            variant=about.variant,
            package=about.package,
            version=about.version,
            core=__version__,
            kit=kit.LEVEL,
            level=about.level,
            verdicts=tuple(
                sorted(joined.values(), key=lambda verdict: place.get(verdict.test, len(place)))
            ),
            not_run=tuple(
                sorted(dict.fromkeys(missing), key=lambda test: place.get(test, len(place)))
            ),
            kit_digest=kit.digest(),
            files=self._files,
        )

    def _promised(self, kind: str) -> Sequence[str]:
        """Return the names of the promises, also where every worker died before it named them."""
        from . import suite_of

        return self.promises or list(suite_of(kind).promises)
