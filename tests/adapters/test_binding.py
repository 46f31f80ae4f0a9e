"""What an adapter must look like: each mistake is found when it is bound, and named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Crucible, path_with

Mistake = Callable[..., str]


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("missing", "it does not implement exists, which every blob_store must"),
        ("a_class", "it is the class Store; give an instance, or a module"),
        ("unmarked", "exists lacks @hookimpl"),
        ("unknown_callback", "blob_store has no callback 'exits'; did you mean 'exists'?"),
        ("unknown_argument", "read has no argument 'pth'; did you mean 'path'?"),
        ("left_out", "read leaves out the argument 'path', which has no default"),
        ("star_args", "read: *args would swallow arguments"),
        ("star_kwargs", "read: **kwargs would swallow arguments"),
        ("keyword_only", "read: 'path' is keyword-only"),
        ("coroutine", "read is async; callbacks are plain functions"),
        ("marked_value", "exists is marked @hookimpl but is a Exists, not a function"),
        ("impl_options", "read: @hookimpl takes no options here"),
        ("bad_options", "Options must be a class derived from"),
    ],
)
def test_a_mistake_is_named_when_the_adapter_is_bound(
    mistake: Mistake, adapter: str, message: str
) -> None:
    said = mistake("config", f"adapters.blob_store={adapter}")
    assert message in said
    assert f"'{adapter}'" in said
    assert "(from argument adapters.blob_store=)" in said
    assert said.count("\n") == 1 or said.count("  - ") > 1  # one mistake, one line


def test_a_run_stops_at_a_mistake_before_any_work(mistake: Mistake, tmp_path: Path) -> None:
    said = mistake(
        "run",
        *(f"adapters.{port}=noop" for port in ("training_client", "dataset_store")),
        "adapters.metrics_store=noop",
        "adapters.blob_store=missing",
        *("workflow.use=supervised", "workflow.model=tiny", "workflow.dataset=rows"),
    )
    assert "it does not implement exists" in said
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_the_adapter_leaves_out_is_never_ignored(site: Path) -> None:
    program = """
from crucible_kitchen import Kitchen, Unsupported
store = Kitchen({"blob_store": "partial"}).blob_store
store.write("a", b"1")
assert list(store.stream("a")) == [b"1"]
assert list(store.stream("a", chunk_size=1 << 20)) == [b"1"]
try:
    store.stream("a", chunk_size=5)
except Unsupported as error:
    assert str(error) == "blob_store.partial.stream: takes no 'chunk_size'", error
else:
    raise AssertionError("the argument was ignored")
"""
    _run(site, program)


def test_an_adapter_composes_another_by_its_option_inner(site: Path) -> None:
    program = """
from crucible_kitchen import Kitchen
with Kitchen({"blob_store": {"use": "counting", "inner": {"use": "acme", "bucket": "b"}}}) as k:
    assert not k.blob_store.supports("list")
    k.blob_store.write("a", b"1")
    assert k.blob_store.read("a") == b"1"
    assert k.blob_store.inner.options.bucket == "b"
"""
    _run(site, program)


def test_a_mistake_in_an_inner_adapter_is_named_with_its_full_path(mistake: Mistake) -> None:
    said = mistake(
        "config", "adapters.blob_store=counting", "adapters.blob_store.inner.use=missing"
    )
    assert "adapters.blob_store.inner: 'missing' is not a blob_store adapter" in said


def _run(site: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path_with(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_doctor_says_of_every_broken_adapter_what_is_broken(crucible: Crucible) -> None:
    failing = [line for line in crucible("doctor").out.splitlines() if " FAIL " in line]
    assert sum(line.startswith("blob_store.") for line in failing) >= 14
