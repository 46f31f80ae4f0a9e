"""What may differ from run to run is a part of a text, and what looks like a mask is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_compose.cassette as cassettes
import pytest
from crucible_adapter_compose.cassette.missing import NotOnCassette
from crucible_kitchen import PORTS, AdapterOptions, BlobStore, Kitchen, SamplingParams, helper

NOOP = {"use": "noop", "latency_scale": 0}
STARS = "**********"


class Says:
    """A blob store with a helper that says how long texts are."""

    class Options(AdapterOptions):
        inner: BlobStore

    @helper
    def length(self, opts: Any, *texts: str) -> int:
        return sum(map(len, texts))


@pytest.fixture
def taped(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Bind the recording of an adapter at first, then its replay: `taped(port, ...)`."""
    kitchens: list[Kitchen] = []
    file = tmp_path / "cassette.jsonl"

    def bound(port: str, inner: Any = NOOP, **options: Any) -> Any:
        for kitchen in kitchens:
            kitchen.close()
        mode = "replay" if kitchens else "record"
        table = {"use": getattr(cassettes, port), "file": file, "mode": mode, "inner": inner}
        kitchens.append(Kitchen({port: {**table, **options}}))
        return kitchens[-1].port(PORTS[port])

    yield bound
    for kitchen in kitchens:
        kitchen.close()


@pytest.mark.parametrize("varying", ["tmp/.*", r"tmp/\S+", "[0-9a-f]{6,}", "sha256", r"\d+"])
def test_what_varies_does_not_reach_beyond_its_text(
    varying: str, taped: Callable[..., Any]
) -> None:
    taped("blob_store").write("tmp/000000", b"one")
    replayed = taped("blob_store", varying=[varying])
    with pytest.raises(NotOnCassette, match="data is 3 bytes"):
        replayed.write("tmp/000000", b"two")


@pytest.mark.parametrize("varying", ["[a-z]+", "read|exists"])
def test_what_varies_is_not_the_name_of_a_call(varying: str, taped: Callable[..., Any]) -> None:
    store = taped("blob_store")
    store.write("a", b"1")
    assert store.exists("a")
    with pytest.raises(NotOnCassette, match="has no call of read"):
        taped("blob_store", varying=[varying]).read("a")


def test_what_varies_is_not_a_number(taped: Callable[..., Any]) -> None:
    taped("completer").complete([1, 2], SamplingParams(2, seed=1))
    with pytest.raises(NotOnCassette, match="seed is 1, and not 7"):
        taped("completer", varying=[r"\d+"]).complete([1, 2], SamplingParams(2, seed=7))


def test_what_varies_is_not_a_name(taped: Callable[..., Any]) -> None:
    taped("metrics_store").record_many("run", {"job-17": 1.0})
    with pytest.raises(NotOnCassette):
        taped("metrics_store", varying=[r"job-\d+"]).record_many("run", {"job-4": 1.0})


@pytest.mark.parametrize("rest", ["", "\u00fc", '"', "\\", "\n", "\0"])
def test_what_varies_may_be_in_any_text(rest: str, taped: Callable[..., Any]) -> None:
    prompt = [{"role": "user", "content": f"{rest}job-17{rest} {rest}job-18"}]
    other = [{"role": "user", "content": f"{rest}job-4{rest} {rest}job-5"}]
    params = SamplingParams(2, seed=1)
    recorded = taped("completer").complete(prompt, params)
    assert taped("completer", varying=[r"job-\d+"]).complete(other, params).text == recorded.text


def test_what_varies_may_be_a_text_in_which_json_writes_a_backslash(
    taped: Callable[..., Any],
) -> None:
    store = taped("blob_store")
    store.exists('job "1"/a')
    store.exists('job "2"/a')
    replayed = taped("blob_store", varying=[r'job "\d"'])
    replayed.exists('job "3"/a')
    with pytest.raises(NotOnCassette):  # it was taken for the first one
        replayed.exists('job "3"/a')
    replayed.exists('job "2"/a')


def test_asterisks_in_a_text_hide_nothing(taped: Callable[..., Any]) -> None:
    def prompt(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    params = SamplingParams(4, seed=0)
    one = taped("completer").complete(prompt(f"a {STARS} b"), params)
    replayed = taped("completer")
    with pytest.raises(NotOnCassette, match="does not have this call of complete"):
        replayed.complete(prompt("a other b"), params)
    assert replayed.complete(prompt(f"a {STARS} b"), params).text == one.text


def test_asterisks_in_what_a_helper_is_asked_hide_nothing(taped: Callable[..., Any]) -> None:
    length = taped("blob_store", {"use": Says(), "inner": NOOP}).helper("length")
    assert length(f"a {STARS} b") == 14
    replayed = taped("blob_store").helper("length")
    with pytest.raises(NotOnCassette):
        replayed("a other b")
    assert replayed(f"a {STARS} b") == 14


def test_asterisks_next_to_a_secret_leave_it_hidden(taped: Callable[..., Any]) -> None:
    def prompt(key: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{STARS} api_key={key}"}]

    params = SamplingParams(4, seed=0)
    recorded = taped("completer").complete(prompt("sk-aaaaaaaaaaaa1"), params)
    assert taped("completer").complete(prompt("another"), params).text == recorded.text


def test_asterisks_next_to_a_secret_of_a_helper_leave_it_hidden(taped: Callable[..., Any]) -> None:
    length = taped("blob_store", {"use": Says(), "inner": NOOP}).helper("length")
    assert length(STARS, "api_key=sk-aaaaaaaaaaaa1") == 34
    assert taped("blob_store").helper("length")(STARS, "api_key=another") == 34
