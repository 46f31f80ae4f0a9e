"""A pytest plugin that writes report cards. It is not loaded automatically:

    pytest -p crucible_kitchen.testing.plugin --report-cards cards/

writes `cards/<port>.<adapter>[.<variant>].json` for each conformance suite that was run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ..adapters.discovery import Installed, catalog
from ..calls.port import Port
from ..version import __version__
from .conformance import EXCUSED, LEVEL, WARNED, Conformance
from .report import ReportCard, Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("crucible").addoption(
        "--report-cards",
        metavar="FOLDER",
        type=Path,
        help="write a report card of each conformance suite to this folder, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--report-cards")
    if folder is not None:
        config.pluginmanager.register(Cards(folder))


class Cards:
    """Collects the verdicts of a session's conformance suites.

    Args:
        folder: where to write the cards; None writes none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._abouts: dict[type[Conformance], tuple[str, str, str]] = {}
        self._verdicts: dict[type[Conformance], dict[str, Verdict]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        suite = getattr(item, "cls", None)
        if isinstance(item, pytest.Function) and suite and issubclass(suite, Conformance):
            if (about := _about(suite, item.funcargs)) is not None:
                self._abouts[suite] = about
            if report.when == "call" or report.outcome != "passed":
                self._judge(suite, item, report)
        return report

    def _judge(self, suite: type[Conformance], item: pytest.Function, report: Any) -> None:
        verdict = Verdict(
            test=item.originalname,
            promise=_text_of(suite.promises.get(item.originalname)),
            outcome=_outcome(report),
            reason=_reason(report),
            seconds=report.duration,
            traceback=report.longreprtext if report.outcome == "failed" else "",
        )
        verdicts = self._verdicts.setdefault(suite, {})
        earlier = verdicts.get(verdict.test)
        verdicts[verdict.test] = earlier.joined(verdict) if earlier else verdict

    def cards(self) -> list[ReportCard]:
        """Return the card of each suite that was run."""
        return [
            _card(suite, self._abouts.get(suite, (suite.__name__, "", "")), verdicts)
            for suite, verdicts in self._verdicts.items()
        ]

    def pytest_sessionfinish(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for card in self.cards():
            name = ".".join(filter(None, [card.port, card.adapter, card.variant]))
            path = self._folder / f"{re.sub(r'[ /:]', '-', name).lower()}.json"
            path.write_text(card.as_json() + "\n", encoding="utf-8")


def _about(suite: type[Conformance], fixtures: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the name of what a test was run on, its package and the version of that, if any."""
    if isinstance(port := fixtures.get(suite.kind), Port):
        entry = installed_as(port)
        return (entry.name, entry.package, entry.version) if entry else (port.adapter, "", "")
    if suite.kind != "environment":
        return None
    # Late, since pytest rewrites assertions only in modules imported after it has started.
    from .environment.playing import Maker

    if isinstance(made := fixtures.get("made"), Maker):
        return (made.chosen.name, made.chosen.package or "", made.chosen.version or "")
    return None


def _card(
    suite: type[Conformance], about: tuple[str, str, str], verdicts: Mapping[str, Verdict]
) -> ReportCard:
    name, package, version = about
    return ReportCard(
        port=suite.kind,
        adapter=name,
        variant=suite.variant,
        package=package,
        version=version,
        core=__version__,
        kit=LEVEL,
        level=suite.level,
        verdicts=tuple(verdicts.values()),
    )


def installed_as(port: Port) -> Installed | None:
    """Return the entry point of a bound adapter, if it is installed. Imports nothing."""
    for entry in catalog().entries:
        found: Any = sys.modules.get(entry.entry_point.module)
        for name in filter(None, (entry.entry_point.attr or "").split(".")):
            found = getattr(found, name, None)
        if entry.port == port.name and found is port.module:
            return entry
    return None


def _text_of(promise: Any) -> str:
    return " ".join((promise.__doc__ or "").split()) if promise else ""


def _outcome(report: Any) -> str:
    if hasattr(report, "wasxfail") and report.outcome == "skipped":
        return "warning" if WARNED in report.wasxfail else "xfailed"
    if report.outcome == "skipped":
        return "excused" if EXCUSED in str(report.longrepr) else "skipped"
    return str(report.outcome)


def _reason(report: Any) -> str:
    if getattr(report, "wasxfail", None):
        return str(report.wasxfail).removeprefix("reason: ").removeprefix(WARNED)
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ").replace(EXCUSED, "synthetic: ")
    if report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        return str(crash.message if crash else report.longrepr).strip()
    return ""
