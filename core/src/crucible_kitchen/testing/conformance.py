"""What the six suites share: the guard, the levels, and what an adapter is excused from."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import hypothesis
import pytest
from packaging.version import Version

from ..dispatch import Port
from ..errors import Unsupported
from ..kitchen import Kitchen
from ..ports import PORTS

LEVEL = "1.2"
"""The newest level of the kit. A test that is added raises the minor number, and only warns until
the next major, so that a new core never breaks the CI of an adapter that has not changed."""

Test = TypeVar("Test", bound=Callable[..., None])


def needs(*callbacks: str) -> Callable[[Test], Test]:
    """Mark a test of optional callbacks: skipped where the adapter leaves one out."""

    def mark(test: Test) -> Test:
        test.crucible_needs = callbacks  # type: ignore[attr-defined]
        return test

    return mark


def since(level: str) -> Callable[[Test], Test]:
    """Mark a test by the level that it came with; without the mark it is as old as the kit."""

    def mark(test: Test) -> Test:
        test.crucible_since = level  # type: ignore[attr-defined]
        return test

    return mark


def unless_synthetic(test: Test) -> Test:
    """Mark a test that an adapter with nothing real behind it cannot pass, and is excused from.

    Such an adapter declares it by a helper, which every report card repeats:

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
    """The base of the six suites. Subclass one of them, not this."""

    port: ClassVar[type[Port]]
    """The port whose promises these are."""
    level: ClassVar[str] = f"{Version(LEVEL).major}.0"
    """The level to pass. Failures of newer tests are expected failures that say so; raise it, as
    in `level = "1.2"`, to hold an adapter to them."""
    variant: ClassVar[str] = ""
    """What of the adapter is tested where it has several backends, such as "S3"."""
    max_examples: ClassVar[int] = 20
    """How many examples, or sequences of operations, each property is tried with."""
    promises: ClassVar[Mapping[str, Callable[..., None]]] = {}
    """The tests of the suite, by name."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "port" in vars(cls):
            for name, test in list(vars(cls).items()):
                if name.startswith("test_"):
                    setattr(cls, name, _judged(test))
            own = {name: test for name, test in vars(cls).items() if name.startswith("test_")}
            cls.promises = {**cls.promises, **own}
        elif problems := list(_changed(cls)):
            # Here, and not in a test, which could be removed like any other.
            raise TypeError(
                f"{cls.__qualname__} changes the conformance suite of {cls.port.name}: "
                + "; ".join(problems)
                + ". If the adapter breaks a promise, mark that test with "
                '@pytest.mark.xfail(reason="...") and call super() in it.'
            )

    @classmethod
    def hypothesis_settings(cls, **others: Any) -> hypothesis.settings:
        """Return how properties are tried: the same examples each time, and as long as it takes."""
        return hypothesis.settings(
            max_examples=cls.max_examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            **others,
        )

    _passed: ClassVar[int] = 0

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _something_passed(cls, request: pytest.FixtureRequest) -> Iterator[None]:
        """Fail a suite of which every test was skipped: that proves nothing."""
        cls._passed = 0
        yield
        mine = [item for item in request.session.items if getattr(item, "cls", None) is cls]
        whole = {getattr(item, "originalname", None) for item in mine} >= set(cls.promises)
        if whole and not cls._passed:
            pytest.fail(f"no test of {cls.__name__} passed: nothing is known about the adapter")


def _judged(test: Callable[..., None]) -> Callable[..., None]:
    """Run a promise as the marks say; count it if it is kept."""
    required: tuple[str, ...] = getattr(test, "crucible_needs", ())
    level: str = getattr(test, "crucible_since", "1.0")

    names = [*inspect.signature(test).parameters][1:]

    @functools.wraps(test)
    def judged(self: Conformance, *given: Any, **fixtures: Any) -> None:
        # pytest names them; whoever calls super() in an expected failure may not.
        fixtures |= dict(zip(names, given, strict=False))
        port: Port = fixtures[self.port.name]
        if missing := [name for name in required if not port.supports(name)]:
            pytest.skip(f"does not implement {', '.join(missing)}, which is optional")
        if hasattr(test, "crucible_unless_synthetic") and (reason := synthetic(port)):
            pytest.skip(f"{EXCUSED}{reason}")
        try:
            test(self, **fixtures)
        except Exception as error:
            if Version(level) > Version(self.level):
                major = Version(level).major + 1
                pytest.xfail(f"{WARNED}{level}, required from level {major}.0: {error}")
            raise
        type(self)._passed += 1

    assert test.__doc__, f"{test.__qualname__} does not say what is promised"
    return judged


EXCUSED = "excused, for the adapter is synthetic: "
WARNED = "a warning: promised since level "


def synthetic(port: Port) -> str | None:
    """Return why an adapter's results are not real, if it declares that they are not."""
    try:
        reason = port.helper("synthetic")
    except Unsupported:
        return None
    return str(reason())


def _changed(cls: type[Conformance]) -> Iterator[str]:
    """Say how a class differs from the suite that it is made of."""
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
