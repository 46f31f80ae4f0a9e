"""`refuses`: what the kit says about a callback that did not fail as it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crucible_kitchen import Completer, InvalidInput, NotFound, SamplingParams, Unsupported
from crucible_kitchen.testing import bound
from crucible_kitchen.testing.refusal import refuses


@pytest.fixture
def completer() -> Iterator[Completer]:
    with bound("completer", "noop", latency_scale=0) as completer:
        yield completer


def fail(what: object, key: str = "x") -> None:
    raise NotFound("nothing\nthere")


def message(*arguments: object, **named: object) -> str:
    with pytest.raises(AssertionError) as failure:
        refuses(*arguments, **named)  # type: ignore[arg-type]
    return str(failure.value)


def test_a_refusal_is_returned(completer: Completer) -> None:
    params = SamplingParams(1, n=2)
    error = refuses(InvalidInput, completer.complete, [1, 2], params)
    assert "params.n is 2" in error.reason


def test_a_call_that_succeeds_is_named_with_its_arguments(completer: Completer) -> None:
    said = message(InvalidInput, completer.complete, [1, 2], params=SamplingParams(1))
    assert said.startswith("complete did not raise InvalidInput for prompt=[1, 2], params=Sampling")
    assert "max_tokens=1" in said
    assert "; it returned Completion(" in said


def test_a_wrong_error_is_named_with_the_one_that_was_due() -> None:
    said = message((InvalidInput, Unsupported), fail, [1], key="b" * 1000)
    assert said.startswith("fail did not raise InvalidInput or Unsupported for what=[1], key='bbb")
    assert said.endswith("; it raised NotFound: nothing\nthere")
    assert len(said) < 250


def test_a_stream_is_read_to_its_first_error(completer: Completer) -> None:
    refuses(InvalidInput, completer.stream_complete, [], SamplingParams(1))
    assert "stream_complete did not raise" in message(
        InvalidInput, completer.stream_complete, [1], SamplingParams(1)
    )


def test_an_argument_that_cannot_be_written_is_named_by_its_type() -> None:
    class Handle:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    assert "what=<Handle instance at" in message(InvalidInput, fail, Handle())
