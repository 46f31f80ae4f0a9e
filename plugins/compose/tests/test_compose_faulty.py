"""What `faulty` breaks, how, and that it does so alike each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from crucible_adapter_compose import faulty
from crucible_kitchen import AdapterError, ConfigurationError, Unavailable

Bind = Callable[..., Any]


def outcomes(store: Any, calls: int = 200, name: str = "exists") -> list[str]:
    found = []
    for number in range(calls):
        try:
            getattr(store, name)(f"{number}")
            found.append("ok")
        except Unavailable as error:
            found.append("before" if error.no_effect else "after")
        except AdapterError:
            found.append("ok")  # what the store itself answers
    return found


@pytest.fixture
def broken(bind: Bind, scripted: Any) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        inner = scripted("blob_store")
        store = bind("blob_store", faulty.blob_store, inner=inner.table, **options)
        return store, inner

    return make


def test_without_options_nothing_fails(broken: Any) -> None:
    store, _ = broken()
    assert set(outcomes(store)) == {"ok"}


def test_a_failure_before_the_call_says_that_nothing_was_done_and_it_is_true(broken: Any) -> None:
    store, inner = broken(failure_rate=1.0)
    with pytest.raises(Unavailable) as caught:
        store.exists("a")
    assert caught.value.retryable
    assert outcomes(store, 5) == ["before"] * 5
    assert inner.calls == []


def test_a_lost_answer_comes_after_the_call_took_effect(broken: Any) -> None:
    store, inner = broken(failure_rate=1.0, lost_answers=1.0)
    assert outcomes(store, 5) == ["after"] * 5
    assert inner.calls == ["exists"] * 5


def test_as_many_fail_as_the_rate_says(broken: Any) -> None:
    store, _ = broken(failure_rate=0.2, lost_answers=0.5)
    found = outcomes(store, 2000)
    assert 340 <= 2000 - found.count("ok") <= 460
    assert 0.4 <= found.count("after") / (2000 - found.count("ok")) <= 0.6


def test_the_same_seed_fails_at_the_same_places_and_another_elsewhere(broken: Any) -> None:
    options = {"failure_rate": 0.3, "lost_answers": 0.5}
    first = outcomes(broken(**options, seed=1)[0])
    assert outcomes(broken(**options, seed=1)[0]) == first
    assert outcomes(broken(**options, seed=2)[0]) != first


def test_which_calls_of_a_callback_fail_does_not_depend_on_the_other_callbacks(
    broken: Any,
) -> None:
    plain, mixed = broken(failure_rate=0.3)[0], broken(failure_rate=0.3)[0]
    outcomes(mixed, 17, "delete")
    assert outcomes(mixed) == outcomes(plain)


def test_each_callback_fails_at_places_of_its_own(broken: Any) -> None:
    store, _ = broken(failure_rate=0.3)
    assert outcomes(store) != outcomes(store, name="delete")


def test_which_calls_fail_does_not_depend_on_how(broken: Any) -> None:
    lost = outcomes(broken(failure_rate=0.3, lost_answers=1.0)[0])
    assert [o.replace("after", "before") for o in lost] == outcomes(broken(failure_rate=0.3)[0])


def test_only_the_callbacks_that_are_named_fail(broken: Any) -> None:
    store, _ = broken(failure_rate=1.0, callbacks=("read",))
    store.write("a", b"1")
    assert store.exists("a")
    with pytest.raises(Unavailable):
        store.read("a")


def test_a_callback_that_does_not_exist_is_a_mistake(broken: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no callback 'optim_step'"):
        broken(callbacks=("optim_step",))


def test_a_cut_stream_breaks_off_after_its_first_items(broken: Any) -> None:
    store, _ = broken(cut_streams=1.0)
    store.write("a", b"1234")
    lengths = set()
    for _ in range(30):
        got: list[bytes] = []
        with pytest.raises(Unavailable, match="the stream was cut"):
            got.extend(store.stream("a", chunk_size=1))
        assert b"".join(got) == b"1234"[: len(got)]
        lengths.add(len(got))
    assert lengths == {1, 2, 3}


def test_a_stream_that_is_shorter_than_the_cut_ends(broken: Any) -> None:
    store, _ = broken(cut_streams=1.0)
    store.write("a", b"1")
    assert list(store.stream("a")) == [b"1"]


def test_every_call_takes_longer_by_the_latency(broken: Any) -> None:
    store, _ = broken(latency=0.02)
    began = time.monotonic()
    store.exists("a")
    assert time.monotonic() - began >= 0.02
