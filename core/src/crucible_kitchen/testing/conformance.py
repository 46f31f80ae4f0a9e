"""What the suites share: composition, the guard, levels, and excuses."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn, TypeAlias, TypeVar

import hypothesis
import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from packaging.version import Version

from ..adapters.kit import LEVEL as LEVEL  # public here
from ..calls.port import Port
from ..calls.synthetic import synthetic
from ..kitchen import Kitchen
from ..ports import PORTS
from .processes import Elsewhere, Interpreters

Test = TypeVar("Test", bound=Callable[..., None])
Value = TypeVar("Value")
AnyPort = TypeVar("AnyPort", bound=Port)

_INTERPRETERS = pytest.StashKey[Interpreters]()

Reopen: TypeAlias = Callable[[], contextlib.AbstractContextManager[AnyPort]]
"""Binds the adapter once more; see the fixture `reopen`."""


def needs(*callbacks: str) -> Callable[[Test], Test]:
    """Mark a test of optional callbacks: skipped if the adapter leaves one out."""

    def mark(test: Test) -> Test:
        test.crucible_needs = callbacks  # type: ignore[attr-defined]
        return test

    return mark


def since(level: str) -> Callable[[Test], Test]:
    """Mark a test with the level that introduced it; without the mark it is as old as the kit."""

    def mark(test: Test) -> Test:
        test.crucible_since = level  # type: ignore[attr-defined]
        return test

    return mark


def unless_synthetic(test: Test) -> Test:
    """Mark a test from which adapters that make their results up are excused.

    Such an adapter declares a helper, whose answer every report card repeats; "" excuses nothing:

        @helper
        def synthetic(opts: Options) -> str:
            return "blobs are gone with the process"
    """
    test.crucible_unless_synthetic = True  # type: ignore[attr-defined]
    return test


@contextlib.contextmanager
def bound(port: str, adapter: Any, **options: Any) -> Iterator[Any]:
    """Bind an adapter as a kitchen does, and close it after the `with` block.

    Args:
        port: the port's name.
        adapter: the name of an installed adapter, a module, or an object.
        options: the adapter's options.

    Yields:
        The port: a `BlobStore`, a `TrainingClient`, ...
    """
    with Kitchen(adapters={port: {"use": adapter, **options}}) as kitchen:
        yield kitchen.port(PORTS[port])


class Conformance:
    """The base of the suites. Subclass one of them, not this.

    A suite is composed of sections, classes with tests of one subject. The class that sets `port`,
    or `kind` where there is no port, is the suite; classes derived from it belong to packages, and
    are guarded.
    """

    port: ClassVar[type[Port]]
    """The port whose promises these are."""
    kind: ClassVar[str]
    """What is tested: the port's name, or `environment`. The required fixture has this name."""
    yields: ClassVar[str] = "the adapter to be tested; crucible_kitchen.testing.bound makes one"
    """What that fixture yields, for messages."""
    level: ClassVar[str] = f"{Version(LEVEL).major}.0"
    """The level to pass. Failures of newer tests are expected failures that say so; raise it, as
    in `level = "1.2"`, to hold an adapter to them."""
    variant: ClassVar[str] = ""
    """Which backend of the adapter is tested, if it has several, such as "S3"."""
    ephemeral: ClassVar[str] = ""
    """Why nothing outlives the process, where the backend is its memory, such as "the blobs are in
    memory". It excuses the suite from promises of other processes, as every report card repeats."""
    max_examples: ClassVar[int] = 20
    """How many examples, or sequences of operations, each property is tried with."""
    promises: ClassVar[Mapping[str, Callable[..., None]]] = {}
    """The tests of the suite, by name."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "port" in vars(cls):
            cls.kind = cls.port.name
        if why := unfit_level(cls.level):
            raise TypeError(f"{cls.__qualname__}.level: {why}")
        if "kind" in vars(cls):
            cls._compose()
            return
        if problems := list(_changed(cls)):
            # Here, and not in a test, which could be removed like any other.
            raise TypeError(
                f"{cls.__qualname__} changes the conformance suite of {cls.kind}: "
                + "; ".join(problems)
                + ". If the adapter breaks a promise, mark that test with "
                '@pytest.mark.xfail(reason="...") and call super() in it.'
            )
        for name, promise in cls.promises.items():
            test = getattr(cls, name)
            if test is not promise and not hasattr(test, "crucible_expected"):
                setattr(cls, name, _expected(name, test))

    @classmethod
    def _compose(cls) -> None:
        """Collect the promises of the sections, in their order, and judge each as its marks say."""
        if not hasattr(cls, cls.kind):
            setattr(cls, cls.kind, _required(cls.kind, cls.yields))
        tests = {
            name: _judged(test)
            for section in cls.__mro__
            for name, test in vars(section).items()
            if name.startswith("test_") and (section is cls or name not in cls.promises)
        }
        for name, test in tests.items():
            setattr(cls, name, test)
        cls.promises = {**cls.promises, **tests}

    @pytest.fixture
    def reopen(self) -> Reopen[Any] | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    @pytest.fixture
    def elsewhere(
        self, request: pytest.FixtureRequest, _interpreters: Interpreters
    ) -> Iterator[Elsewhere]:
        """The same adapter in another process, under equal options: `elsewhere.run(function,
        *arguments)` calls `function(port, *arguments)` there. The process is started when it is
        first needed. Not to be overridden.
        """
        elsewhere = Elsewhere(request.getfixturevalue(self.kind), _interpreters)
        try:
            yield elsewhere
        finally:
            elsewhere.close()

    @pytest.fixture(scope="class")
    @classmethod
    def _interpreters(cls, request: pytest.FixtureRequest) -> Iterator[Interpreters]:
        """The other processes, which the suites of a run share."""
        stash = request.config.stash
        if _INTERPRETERS not in stash:
            stash[_INTERPRETERS] = Interpreters()
            request.config.add_cleanup(stash[_INTERPRETERS].close)
        try:
            yield stash[_INTERPRETERS]
        finally:
            stash[_INTERPRETERS].rest()

    @staticmethod
    def given(value: Value | None, name: str) -> Value:
        """Return the value of an optional fixture; skip the test if the fixture is not given."""
        if value is None:
            pytest.skip(f"the fixture `{name}` is not given")
        return value

    def _adapter(self, fixtures: Mapping[str, Any]) -> Port | None:
        """Return the adapter under test, from the fixtures of a test; None if it is not one."""
        adapter = fixtures[self.kind] if self.kind in fixtures else fixtures["elsewhere"].port
        return adapter if isinstance(adapter, Port) else None

    @classmethod
    def hypothesis_settings(cls, **others: Any) -> hypothesis.settings:
        """Return how properties are tried: the same examples each time, without a deadline."""
        return hypothesis.settings(
            max_examples=cls.max_examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            **others,
        )

    @classmethod
    def run_machine(
        cls, machine: Callable[[], RuleBasedStateMachine], steps: int, **others: Any
    ) -> None:
        """Try sequences of up to `steps` calls, drawn from the rules of a state machine."""
        settings = cls.hypothesis_settings(stateful_step_count=steps, **others)
        # Any factory will do, says its documentation.
        run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type]

    _kept: frozenset[str] = frozenset()
    """Which promises were kept so far in a test, of which each has an instance of its own."""
    _passed: ClassVar[int] = 0
    _ran: ClassVar[set[str]] = set()

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _something_passed(cls) -> Iterator[None]:
        """Fail a suite whose tests were all skipped: that proves nothing."""
        cls._passed, cls._ran = 0, set()
        yield
        # Not what was collected: pytest-xdist has each of several processes run a part of it.
        if cls._ran >= set(cls.promises) and not cls._passed:
            pytest.fail(f"no test of {cls.__name__} passed: nothing is known about the adapter")

    @pytest.fixture(autouse=True)
    def _noted(self, request: pytest.FixtureRequest) -> None:
        self._ran.add(getattr(request.node, "originalname", ""))


def _required(kind: str, yields: str) -> Any:
    """Return the fixture of what is tested, which every class of a package overrides."""

    def subject(self: Conformance) -> NoReturn:
        raise NotImplementedError(f"give the fixture `{kind}`, which yields {yields}")

    subject.__doc__ = f"Required: {yields}."
    return pytest.fixture(subject)


def _judged(test: Callable[..., None]) -> Callable[..., None]:
    """Return a test that skips, warns or fails as the marks of a promise say, and counts passes."""
    required: tuple[str, ...] = getattr(test, "crucible_needs", ())
    level: str = getattr(test, "crucible_since", "1.0")

    names = [*inspect.signature(test).parameters][1:]

    @functools.wraps(test)
    def judged(self: Conformance, *given: Any, **fixtures: Any) -> None:
        # pytest passes them by name; a call of super() in an expected failure may not.
        fixtures |= dict(zip(names, given, strict=False))
        if (port := self._adapter(fixtures)) is not None:
            if missing := [name for name in required if not port.supports(name)]:
                pytest.skip(f"does not implement {', '.join(missing)}, which is optional")
            if hasattr(test, "crucible_unless_synthetic"):
                alone = self.ephemeral if "elsewhere" in names else ""
                if reason := synthetic(port) or alone:
                    pytest.skip(f"{EXCUSED}{reason}")
        try:
            test(self, **fixtures)
        except Exception as error:
            if Version(level) > Version(self.level):
                major = Version(level).major + 1
                pytest.xfail(f"{WARNED}{level}, required from level {major}.0: {error}")
            raise
        type(self)._passed += 1
        self._kept |= {test.__name__}

    assert test.__doc__, f"{test.__qualname__} does not say what is promised"
    return judged


def _expected(name: str, test: Callable[..., None]) -> Callable[..., None]:
    """Return a test in place of a promise, which passes only where the promise is kept.

    Its body may leave the promise out, or catch its failure: then it is an expected failure, for
    nothing is known that is better.
    """

    @functools.wraps(test)
    def expected(self: Conformance, *given: Any, **fixtures: Any) -> None:
        test(self, *given, **fixtures)
        if name not in self._kept:
            pytest.fail(f"the promise was not tried: {name} does not call super(), or hides it")

    expected.crucible_expected = True  # type: ignore[attr-defined]
    return expected


def unfit_level(level: str) -> str:
    """Say why an adapter cannot be held to a level; "" if it can, if perhaps not yet.

    Below the first level of this major version no promise would count, so that whatever is broken
    would only be warned of.
    """
    if not re.fullmatch(r"\d+\.\d+", level):
        return f"expected a level of the kit such as 1.0, got {level!r}"
    oldest = f"{Version(LEVEL).major}.0"
    return f"the oldest level is {oldest}, not {level}" if Version(level) < Version(oldest) else ""


EXCUSED = "excused, for the adapter is synthetic: "
WARNED = "a warning: promised since level "


def _changed(cls: type[Conformance]) -> Iterator[str]:
    """Yield how a class differs from its suite."""
    for name, promise in cls.promises.items():
        test = getattr(cls, name, None)
        if test is promise:
            continue
        if test is None:
            yield f"{name} is gone"
        elif not any(m.name == "xfail" and m.kwargs.get("reason") for m in _marks(test)):
            yield f"{name} is replaced"
    for mark in _marks(cls):
        if mark.name in ("skip", "skipif", "xfail"):
            yield f"all of it is marked {mark.name}"
    if getattr(cls, "__test__", True) is False:
        yield "__test__ is False"


def _marks(thing: Any) -> list[pytest.Mark]:
    marks = getattr(thing, "pytestmark", [])
    listed: list[Any] = marks if isinstance(marks, list) else [marks]
    return [mark if isinstance(mark, pytest.Mark) else mark.mark for mark in listed]
