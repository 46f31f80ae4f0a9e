"""Streams: left early, they free what is behind them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator

import pytest
from crucible_kitchen import Stream


class Source:
    """An adapter's iterator that holds something until it is closed."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.closed = 0
        self.at = 0
        self.fails_at = fails_at

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.at == self.fails_at:
            raise OSError("cut")
        if self.at == 3:
            raise StopIteration
        self.at += 1
        return self.at

    def close(self) -> None:
        self.closed += 1


class Wrapped(Exception):
    pass


def stream(
    source: Iterable[int], ended: Callable[[Exception | None], None] | None = None
) -> Stream[int]:
    return Stream(source, lambda error: Wrapped(str(error)), ended)


def unchanged(error: BaseException) -> Exception:
    assert isinstance(error, Exception)
    return error


def test_it_gives_what_the_source_gives_and_closes_it_at_the_end() -> None:
    source = Source()
    assert list(stream(source)) == [1, 2, 3]
    assert source.closed


def test_closing_before_the_first_item_closes_the_source() -> None:
    source = Source()
    stream(source).close()
    assert source.closed


def test_leaving_a_with_block_closes_the_source() -> None:
    source = Source()
    with stream(source) as items:
        assert next(items) == 1
    assert source.closed
    assert list(items) == []


def test_a_generator_that_never_started_still_frees_its_source() -> None:
    source = Source()

    def generator() -> Generator[int, None, None]:
        yield from source

    outer = generator()
    stream(outer).close()
    assert inspect.getgeneratorstate(outer) == inspect.GEN_CLOSED


def test_what_the_source_iterates_with_is_closed_not_only_the_source() -> None:
    inside = Source()

    class Response:
        def __iter__(self) -> Iterator[int]:
            return inside

    with stream(Response()) as items:
        next(items)
    assert inside.closed


def test_an_error_inside_is_translated_and_ends_the_stream() -> None:
    source = Source(fails_at=1)
    ends: list[Exception | None] = []
    items = stream(source, ends.append)
    assert next(items) == 1
    with pytest.raises(Wrapped, match="cut") as caught:
        next(items)
    assert isinstance(caught.value.__cause__, OSError)
    assert source.closed
    assert list(items) == []
    assert [type(end) for end in ends] == [Wrapped]


@pytest.mark.parametrize("cause", [None, OSError("cut")])
def test_an_error_that_needs_no_translation_keeps_its_own_cause(cause: Exception | None) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise Wrapped("gone") from cause

    items = Stream(source(), unchanged)
    next(items)
    with pytest.raises(Wrapped) as caught:
        next(items)
    assert caught.value.__cause__ is cause


def test_an_error_on_opening_or_closing_is_not_its_own_cause() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise Wrapped("no iterator")

    class Stuck(Source):
        def close(self) -> None:
            raise Wrapped("stuck")

    with pytest.raises(Wrapped) as opening:
        Stream(Broken(), unchanged)
    with pytest.raises(Wrapped) as closing:
        Stream(Stuck(), unchanged).close()
    assert opening.value.__cause__ is closing.value.__cause__ is None


def test_the_end_is_told_once() -> None:
    ends: list[Exception | None] = []
    items = stream(Source(), ends.append)
    list(items)
    items.close()
    items.close()
    assert ends == [None]
