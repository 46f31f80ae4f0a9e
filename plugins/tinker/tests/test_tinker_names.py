"""Names on the server hold their labels."""

from __future__ import annotations

import re

import pytest
from crucible_adapter_tinker.names import Clock, Name, Path, new_name, parsed_name, parsed_path

LABELS = ["", "run/step-10", "a b", "naïve-🙂", "nul\0\n", "x" * 1000, "ü" * 300, "\ud800", "__-"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_becomes_a_name_that_servers_take(label: str) -> None:
    name = new_name("c", label, Clock())
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,255}", name)
    assert name != new_name("c", label, Clock())
    parsed = parsed_name(name)
    assert parsed is not None
    assert parsed.kind == "c"
    assert parsed.begins_with(label[:10])
    assert parsed.begins_with(label) is not parsed.cut


def test_a_name_is_found_by_the_beginning_of_its_label_alone() -> None:
    name = parsed_name(new_name("w", "run/1", Clock()))
    assert isinstance(name, Name)
    found = [
        prefix
        for prefix in ("", "r", "run/1", "run/10", "Run", "run_", "un")
        if name.begins_with(prefix)
    ]
    assert found == ["", "r", "run/1"]


@pytest.mark.parametrize("clock", [Clock(), Clock(3, 3), Clock(7, 2), Clock(2, 0), None])
def test_a_name_says_how_the_steps_are_counted_if_that_is_known(clock: Clock | None) -> None:
    parsed = parsed_name(new_name("c", "x", clock))
    assert parsed is not None
    assert parsed.clock == clock


@pytest.mark.parametrize("name", ["", "mine", "c-x", "c-x__12", "d-x__0123456789abcdef"])
def test_the_names_of_others_are_not_read(name: str) -> None:
    assert parsed_name(name) is None


def test_a_path_has_three_parts() -> None:
    assert parsed_path("tinker://s:train:0/weights/a-b") == Path("s:train:0", True, "a-b")
    assert parsed_path("tinker://run/sampler_weights/x") == Path("run", False, "x")
    for other in ("", "x", "tinker://run/x", "tinker://run/logs/x", "tinker://../weights/x/y"):
        assert parsed_path(other) is None
