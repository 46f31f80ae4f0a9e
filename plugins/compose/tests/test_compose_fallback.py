"""Whom `fallback` asks, and about what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from crucible_adapter_compose import fallback
from crucible_kitchen import (
    AdapterTimeout,
    Completer,
    Completion,
    ConfigurationError,
    InvalidInput,
    NotFound,
    RateLimited,
    SamplingParams,
    Unauthorized,
    Unavailable,
    Unsupported,
    helper,
    hookimpl,
)

import kitchen_noop

Bind = Callable[..., Any]
MANY = 99


def away(times: int = MANY) -> list[Exception]:
    return [Unavailable("the server restarts") for _ in range(times)]


def over(bind: Bind, port: str, *inner: Any) -> Any:
    return bind(port, getattr(fallback, port), inner=[one.table for one in inner])


def test_the_first_is_asked_alone_while_it_answers(bind: Bind, scripted: Any) -> None:
    first, second = scripted("blob_store"), scripted("blob_store")
    store = over(bind, "blob_store", first, second)
    store.write("a", b"1")
    assert store.read("a") == b"1"
    assert second.calls == []


@pytest.mark.parametrize(
    "failure",
    [Unavailable("down"), AdapterTimeout("no answer"), RateLimited("slow down")],
    ids=repr,
)
def test_the_next_is_asked_where_one_does_not_serve_now(
    bind: Bind, scripted: Any, failure: Exception
) -> None:
    first, second, third = (scripted("hub_client", failure, failure) for _ in range(3))
    third.failures.clear()
    hub = over(bind, "hub_client", first, second, third)
    assert "config.json" in hub.list_files("a/b")
    assert [len(one.calls) for one in (first, second, third)] == [1, 1, 1]


@pytest.mark.parametrize(
    "failure", [NotFound("no file"), Unauthorized("no"), InvalidInput("bad"), Unsupported("no")]
)
def test_whatever_else_an_adapter_answers_is_the_answer(
    bind: Bind, scripted: Any, failure: Exception
) -> None:
    first, second = scripted("hub_client", failure), scripted("hub_client")
    with pytest.raises(type(failure)):
        over(bind, "hub_client", first, second).list_files("a/b")
    assert second.calls == []


def test_where_none_can_be_reached_the_error_names_each(bind: Bind, scripted: Any) -> None:
    first, second = scripted("blob_store", *away()), scripted("blob_store", AdapterTimeout("slow"))
    with pytest.raises(Unavailable) as caught:
        over(bind, "blob_store", first, second).read("a")
    assert "Scripted: the server restarts; Scripted: slow" in str(caught.value)
    assert caught.value.adapter == "fallback"
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, AdapterTimeout)


def test_the_error_of_a_single_adapter_passes_as_it_is(bind: Bind, scripted: Any) -> None:
    with pytest.raises(RateLimited) as caught:
        over(bind, "blob_store", scripted("blob_store", RateLimited("r", retry_after=3))).read("a")
    assert caught.value.retry_after == 3


def test_at_least_one_adapter_is_needed(bind: Bind) -> None:
    with pytest.raises(ConfigurationError, match=r"adapters\.blob_store\.inner: "):
        bind("blob_store", fallback.blob_store, inner=[])


# --- what is not found elsewhere ---


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.read("a"),
        lambda store: list(store.stream("a")),
        lambda store: store.exists("a"),
    ],
)
def test_while_the_first_is_away_a_missing_blob_is_unavailable(
    bind: Bind, scripted: Any, ask: Callable[[Any], Any]
) -> None:
    stores = scripted("blob_store", *away()), scripted("blob_store"), scripted("blob_store")
    store = over(bind, "blob_store", *stores)
    with pytest.raises(Unavailable, match="none could answer: Scripted: the server restarts; "):
        ask(store)
    assert [len(one.calls) for one in stores] == [1, 1, 1]
    store.options.inner[2].write("a", b"1")
    assert ask(store) in (b"1", [b"1"], True)


def test_what_the_first_does_not_find_is_not_there(bind: Bind, scripted: Any) -> None:
    first, second = scripted("blob_store"), scripted("blob_store")
    store = over(bind, "blob_store", first, second)
    store.options.inner[1].write("a", b"1")
    assert not store.exists("a")
    with pytest.raises(NotFound):
        store.read("a")
    with pytest.raises(NotFound):
        list(store.stream("a"))


# --- what changes something ---


@pytest.mark.parametrize(
    ("port", "call"),
    [
        ("blob_store", lambda store: store.write("a", b"1")),
        ("blob_store", lambda store: store.delete("a")),
        ("hub_client", lambda hub: hub.upload("a/b", __file__)),
    ],
)
def test_what_changes_something_goes_to_the_first_alone(
    bind: Bind, scripted: Any, port: str, call: Callable[[Any], Any]
) -> None:
    first, second = scripted(port, *away()), scripted(port)
    with pytest.raises(Unavailable):
        call(over(bind, port, first, second))
    assert second.calls == []


# --- what the whole supports ---


class Lean:
    """A completer without optional callbacks, that can be reached or not."""

    def __init__(self, reachable: bool) -> None:
        self._reachable = reachable

    @hookimpl
    def complete(self, prompt: Any, params: Any) -> Completion:
        if not self._reachable:
            raise Unavailable("down")
        return Completion("lean", None, None, "stop")

    @hookimpl
    def complete_batch(self, prompts: Any, params: Any) -> list[Any]:
        return [self.complete(prompt, params) for prompt in prompts]

    @helper
    def language(self, opts: Any) -> str:
        return "latin"


def test_the_whole_supports_what_the_first_does(bind: Bind) -> None:
    lean, full = {"use": Lean(True)}, {"use": kitchen_noop.completer, "latency_scale": 0}
    one = bind("completer", fallback.completer, inner=[lean, full])
    other = bind("completer", fallback.completer, inner=[full, lean])
    assert not one.supports("score")
    assert other.supports("score")
    assert one.helper("language")() == "latin"
    with pytest.raises(Unsupported):
        other.helper("language")


def test_an_adapter_without_the_callback_is_passed_over(bind: Bind, scripted: Any) -> None:
    first, third = scripted("completer", *away()), scripted("completer")
    inner = [first.table, {"use": Lean(True)}, third.table]
    completer = bind("completer", fallback.completer, inner=inner)
    [scores] = completer.score([[1, 2, 3]])
    assert scores.shape == (2,)
    assert completer.complete([1], SamplingParams(1)).text == "lean"


def test_it_can_be_reached_if_one_can(bind: Bind) -> None:
    class Pings(Lean):
        @hookimpl
        def ping(self) -> None:
            if not self._reachable:
                raise Unavailable("down")

    def stack(*reachable: bool) -> Any:
        return bind("completer", fallback.completer, inner=[{"use": Pings(r)} for r in reachable])

    stack(False, True).ping()
    with pytest.raises(Unavailable):
        stack(False, False).ping()


# --- streams, batches, data sets ---


def test_a_stream_that_fails_before_its_first_item_comes_from_the_next(
    bind: Bind, scripted: Any
) -> None:
    from crucible_adapter_compose import faulty

    class Late:
        Options = faulty.FaultyOptions[Completer]

        def __init__(self, after: int) -> None:
            self.after = after
            self.closed = False

        @hookimpl
        def stream_complete(self, opts: Any, prompt: Any, params: Any) -> Any:
            try:
                yield from list(opts.inner.stream_complete(prompt, params))[: self.after]
                raise Unavailable("cut")
            finally:
                self.closed = True

    params, noop = SamplingParams(30, seed=3), {"use": kitchen_noop.completer, "latency_scale": 0}
    second = scripted("completer")
    for after in (0, 1):
        late = Late(after)
        inner = [{"use": late, "inner": noop}, second.table]
        completer = bind("completer", fallback.completer, inner=inner)
        stream = completer.stream_complete([1, 2], params)
        if after:
            next(stream)
            with pytest.raises(Unavailable, match="cut"):
                next(stream)
        else:
            text = "".join(piece.text for piece in stream)
            assert text == completer.complete([1, 2], params).text
        assert late.closed
    assert second.calls == ["stream_complete"]


def test_a_stream_that_none_can_begin_fails_with_all_of_their_errors(
    bind: Bind, scripted: Any
) -> None:
    first, second = scripted("blob_store", *away()), scripted("blob_store", *away())
    with pytest.raises(Unavailable, match="none could answer"):
        list(over(bind, "blob_store", first, second).stream("a"))


def test_of_a_batch_the_items_that_failed_come_from_the_next(bind: Bind, scripted: Any) -> None:
    first = scripted("completer", failure_rate=0.5)
    second, reliable = scripted("completer"), scripted("completer")
    prompts, params = [[n] for n in range(1, 21)], SamplingParams(6, n=2, seed=9)
    found = over(bind, "completer", first, second).complete_batch(prompts, params)
    expected = over(bind, "completer", reliable).complete_batch(prompts, params)
    assert [r.text for r in found] == [r.text for r in expected]
    assert 0 < sum(len(a["prompts"]) for a in second.arguments) < 40


def test_a_batch_that_none_can_serve_holds_the_errors(bind: Bind, scripted: Any) -> None:
    inner = [scripted("completer", failure_rate=1.0) for _ in range(2)]
    results = over(bind, "completer", *inner).complete_batch([[1], [2]], SamplingParams(4))
    assert [type(r) for r in results] == [Unavailable, Unavailable]


def test_a_data_set_goes_back_to_the_adapter_that_loaded_it(bind: Bind, scripted: Any) -> None:
    first = scripted("dataset_store", *away(1), rows={"train": 3})
    second = scripted("dataset_store", rows={"train": 5, "test": 4})
    store = over(bind, "dataset_store", first, second)
    elsewhere = store.load_dataset("a", split="train")
    here = store.load_dataset("a", split="train")
    assert len(store.to_list(here)) == 3
    for handle in (elsewhere, store.shuffle(elsewhere, seed=1), store.select(elsewhere, range(5))):
        assert len(store.to_list(handle)) == 5
    assert len(store.to_list(store.take(store.skip(elsewhere, 1), 3))) == 3
    assert [len(rows) for rows in store.stream(elsewhere, batch_size=2)] == [2, 2, 1]
    assert len(store.to_list(store.get_split(elsewhere, "test"))) == 4
    assert first.calls == ["load_dataset", "load_dataset", "to_list"]


def test_a_data_set_whose_adapter_goes_away_is_not_found_elsewhere(
    bind: Bind, scripted: Any
) -> None:
    first, second = scripted("dataset_store", None, *away()), scripted("dataset_store")
    store = over(bind, "dataset_store", first, second)
    handle = store.load_dataset("a", split="train")
    with pytest.raises(Unavailable):
        store.to_list(handle)
    assert second.calls == []


def test_a_data_set_stays_with_its_adapter_in_a_fallback_inside_a_fallback(
    bind: Bind, scripted: Any
) -> None:
    first, second = scripted("dataset_store", *away(1)), scripted("dataset_store")
    other = scripted("dataset_store")
    inner = {"use": fallback.dataset_store, "inner": [first.table, second.table]}
    store = bind("dataset_store", fallback.dataset_store, inner=[inner, other.table])
    rows = store.to_list(store.take(store.get_split(store.load_dataset("a/b"), "train"), 2))
    assert len(rows) == 2
    assert second.calls == ["load_dataset", "get_split", "take", "to_list"]
    assert other.calls == []
