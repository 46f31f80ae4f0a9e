"""How completions are made comparable, and compared."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ...errors import AdapterError, Unsupported
from ...types import Completion

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")


def variants(prompt: Any, count: int) -> list[Any]:
    """Return the prompt, and others like it, each longer than the one before."""
    if not isinstance(prompt[0], Mapping):
        return [[*prompt, *itertools.islice(itertools.cycle(prompt), i)] for i in range(count)]
    content = prompt[-1]["content"]
    return [
        [*prompt[:-1], {**prompt[-1], "content": content + " Again." * index}]
        for index in range(count)
    ]


def completions(results: Sequence[Completion | AdapterError]) -> list[Completion]:
    """Return the results of a batch, or raise the first error among them."""
    for result in results:
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Completion), result
    return [*results]  # type: ignore[list-item]


def tokens(completion: Completion) -> list[int]:
    assert completion.tokens is not None, "token ids in, token ids out"
    return [int(token) for token in completion.tokens]


def count(completion: Completion) -> int:
    """Return how many tokens were generated, or skip the test if that is unknown."""
    if completion.tokens is not None:
        return len(completion.tokens)
    if completion.usage is not None:
        return completion.usage.completion_tokens
    pytest.skip("the adapter gives neither token ids nor usage, so nobody can count")


def key(completion: Completion) -> Any:
    """Return what distinguishes completions from each other."""
    if completion.tokens is not None:
        return tuple(completion.tokens.tolist())
    return completion.text, completion.finish_reason


def same(found: Completion, expected: Completion, tolerance: float = 1e-3) -> None:
    """Check that two completions are equal, log probabilities within the tolerance."""
    assert found.text == expected.text
    assert (found.reasoning or "") == (expected.reasoning or "")
    assert found.finish_reason == expected.finish_reason
    assert _listed(found.tokens) == _listed(expected.tokens)
    assert (found.logprobs is None) == (expected.logprobs is None)
    if found.logprobs is not None and expected.logprobs is not None:
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=tolerance)


def _listed(array: Any) -> list[Any] | None:
    return None if array is None else list(array.tolist())


def late_part(text: str) -> str:
    """Return up to three characters of a text whose first occurrence is as late as possible."""
    parts = [text[i : i + size] for i in range(len(text)) for size in (3, 2, 1)]
    whole = [part for part in parts if "\ufffd" not in part]  # half a character may become one
    if not whole:
        pytest.skip("the model says nothing at which it could be stopped")
    return max(whole, key=lambda part: (text.index(part), len(part)))


def early_part(text: str) -> str:
    """Return two characters from the first half of a text, and not from its very beginning."""
    for start in range(max(1, len(text) // 4), len(text) // 2):
        part = text[start : start + 2]
        if "\ufffd" not in part and text.index(part) == start:
            return part
    pytest.skip("the model says too little to stop at two places")


def almost_met(text: str) -> str:
    """Return a string that is not in a text, though its beginning is the end of the text."""
    begun = text[-2:].strip("\ufffd")
    end = next(c for c in "abcdefghijklmnopqrstuvwxyz" if begun + c not in text)
    return begun + end


def token_ids(ids: list[int] | None) -> list[int]:
    """Return the prompt of token ids; skip the test if the adapter takes none."""
    if ids is None:
        pytest.skip("the adapter takes no token ids")
    return ids


@contextlib.contextmanager
def offered(what: str) -> Iterator[None]:
    """Skip the test where an adapter says that it does not offer this."""
    try:
        yield
    except Unsupported as error:
        pytest.skip(f"{what} is not offered: {error.reason}")
