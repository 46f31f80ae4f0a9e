"""A pytest plugin that writes report cards. It is not loaded automatically:

    pytest -p crucible_kitchen.testing.plugin --report-cards cards/

writes `cards/<port>.<adapter>[.<variant>].json` for each conformance suite that was run, also where
pytest-xdist runs it in several processes. Two suites that would write one file are an error.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ..adapters.discovery import Installed, catalog
from ..calls.port import Port
from ..masking.secrets import Secrets
from .conformance import EXCUSED, WARNED, Conformance
from .report import ReportCard, Verdict
from .suite_run import About, SuiteRun

VERDICT = "crucible_verdict"
"""The attribute of pytest's reports that carries a verdict: pytest-xdist sends it along."""
COLLECTED = "crucible_collected"
"""The key of what a worker of pytest-xdist collected, in its output."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("crucible").addoption(
        "--report-cards",
        metavar="FOLDER",
        type=Path,
        help="write a report card of each conformance suite to this folder, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--report-cards")
    if folder is not None:
        try:  # now, and not after all tests were run
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(
                f"--report-cards: {folder} cannot be a folder: {error.strerror}"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise pytest.UsageError(f"--report-cards: nothing can be written to {folder}")
        config.pluginmanager.register(Cards(folder))


class Cards:
    """Collects the verdicts of a session's conformance suites.

    A process that runs tests judges them and attaches the verdicts to pytest's reports; the process
    to which the reports go, often the same, makes the cards.

    Args:
        folder: where to write the cards; None writes none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._runs: dict[str, SuiteRun] = {}
        self._lines: list[str] = []

    # Where tests are run.

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        suite = collector.obj if isinstance(collector, pytest.Class) else None
        if isinstance(suite, type) and issubclass(suite, Conformance) and report.passed:
            # All of its tests: those that `-k`, `--lf` and the like choose are chosen later.
            tests = {
                item.nodeid: item.originalname
                for item in report.result
                if isinstance(item, pytest.Function)
            }
            self._run(collector.nodeid).expect(tests, list(suite.promises))
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        suite = getattr(item, "cls", None)
        if (
            isinstance(item, pytest.Function)
            and isinstance(suite, type)
            and issubclass(suite, Conformance)
            and (report.when == "call" or report.outcome in ("failed", "skipped"))
        ):
            about = About(suite.kind, suite.variant, suite.level, *_named(suite, item.funcargs))
            verdict = _verdict(suite, item, report)
            parent = item.parent.nodeid if item.parent else ""
            facts = dataclasses.asdict(about), dataclasses.asdict(verdict)
            setattr(report, VERDICT, [parent, *facts])
        return report

    # Where reports arrive.

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (carried := getattr(report, VERDICT, None)) is not None:
            suite, about, verdict = carried
            self._run(suite).judge(report.nodeid, About(**about), Verdict(**verdict))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker of pytest-xdist collected."""
        collected: Mapping[str, Any] = getattr(node, "workeroutput", {}).get(COLLECTED, {})
        for suite, (tests, promises) in collected.items():
            self._run(suite).expect(tests, promises)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            runs = self._runs.items()
            output[COLLECTED] = {suite: [run.tests, run.promises] for suite, run in runs}
        elif self._folder is not None and not self._written(self._folder):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._lines:
            terminalreporter.section("report cards")
            for line in self._lines:
                terminalreporter.line(line)

    def cards(self) -> list[ReportCard]:
        """Return the card of each suite of which a test was run."""
        return [run.card() for run in self._runs.values() if run.verdicts]

    def mixed(self) -> list[str]:
        """Return why suites have no card of one adapter; see `SuiteRun.mixed`."""
        return [run.mixed for run in self._runs.values() if run.mixed]

    def _run(self, suite: str) -> SuiteRun:
        return self._runs.setdefault(suite, SuiteRun(suite))

    def _written(self, folder: Path) -> bool:
        """Write the cards; return whether each has a file of its own, and is written."""
        files: dict[str, list[SuiteRun]] = {}
        for run in self._runs.values():
            if run.verdicts:
                files.setdefault(run.card().file_name, []).append(run)
        written = True
        for name, runs in files.items():
            path, why = folder / name, runs[0].mixed
            if len(runs) > 1:
                suites = " and ".join(run.suite for run in runs)
                why = (
                    f"{suites} have one card, {name}, which was not written: name what differs "
                    'between them in the class attribute `variant`, such as variant = "S3"'
                )
            try:
                if why:
                    path.unlink(missing_ok=True)  # of an earlier session: it is neither's
                else:
                    card = runs[0].card()
                    self._lines.append(f"{card.write(folder)}: {card.summary}")
            except OSError as error:
                why = f"{path} cannot be written: {error.strerror}"
            if why:
                self._lines.append(f"ERROR: {why}")
                written = False
        return written


def _named(suite: type[Conformance], fixtures: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the name of what a test was run on, its package and the version of that.

    Empty where the fixture is not there (yet), or it is not installed.
    """
    if isinstance(port := fixtures.get(suite.kind), Port):
        entry = installed_as(port)
        return (entry.name, entry.package, entry.version) if entry else (port.adapter, "", "")
    if suite.kind == "environment":
        # Late, since pytest rewrites assertions only in modules imported after it has started.
        from .environment.playing import Maker

        if isinstance(made := fixtures.get("made"), Maker):
            return made.chosen.name, made.chosen.package or "", made.chosen.version or ""
    return "", "", ""


def installed_as(port: Port) -> Installed | None:
    """Return the entry point of a bound adapter, if it is installed. Imports nothing."""
    same = []
    for entry in catalog().entries:
        found: Any = sys.modules.get(entry.entry_point.module)
        for name in filter(None, (entry.entry_point.attr or "").split(".")):
            found = getattr(found, name, None)
        if entry.port == port.name and found is port.module:
            same.append(entry)
    # Of two names of one module, that by which it was bound.
    named = (e for e in same if port.adapter in (e.name, f"{e.package}/{e.name}"))
    return next(named, same[0] if same else None)


def _verdict(suite: type[Conformance], item: pytest.Function, report: Any) -> Verdict:
    mask = _mask(suite, item.funcargs)
    return Verdict(
        test=item.originalname,
        promise=_text_of(suite.promises.get(item.originalname)),
        outcome=_outcome(report),
        reason=mask(_reason(report)),
        seconds=report.duration,
        traceback=mask(report.longreprtext) if report.outcome == "failed" else "",
    )


def _mask(suite: type[Conformance], fixtures: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what masks the secrets of what a test was run on, and evident ones in any case."""
    port = fixtures.get(suite.kind) or getattr(fixtures.get("elsewhere"), "port", None)
    return port.redacted if isinstance(port, Port) else Secrets().masked


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
