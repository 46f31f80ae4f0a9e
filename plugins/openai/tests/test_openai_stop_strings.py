"""Stop strings, in texts that come in pieces."""

from __future__ import annotations

from crucible_adapter_openai.stop_strings import StopStrings
from hypothesis import given
from hypothesis import strategies as st

texts = st.text("ab", max_size=12)
stop_strings = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def reference(text: str, strings: list[str]) -> str:
    """Stop at each character, as a server does that generates one at a time."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in strings if text[:end].endswith(stop)]
        if found:
            return text[:end].removesuffix(max(found, key=len))
    return text


@given(pieces=st.lists(texts, max_size=6), strings=stop_strings)
def test_the_pieces_do_not_matter(pieces: list[str], strings: list[str]) -> None:
    stops = StopStrings(strings)
    passed = [stops.feed(piece) for piece in pieces] + [stops.flush()]
    whole = "".join(pieces)
    assert "".join(passed) == reference(whole, strings)
    assert stops.found == any(stop in whole for stop in strings)


def test_what_cannot_be_the_start_of_a_stop_string_is_passed_on_at_once() -> None:
    stops = StopStrings(["END"])
    assert [stops.feed(piece) for piece in ("a", "bE", "N", "x", "EN")] == ["a", "b", "", "ENx", ""]
    assert stops.flush() == "EN"
