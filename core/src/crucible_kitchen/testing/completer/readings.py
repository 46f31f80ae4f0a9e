"""The whole prompt is read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import Completer
from ...types import EncodedTextChunk, ImageChunk, ModelInput, SamplingParams
from ..conformance import since, unless_synthetic
from ..images import PNG
from ..refusal import refuses
from .comparison import completions, same, token_ids
from .fixtures import CompleterFixtures


class Readings(CompleterFixtures):
    """Chunks, images, vocabulary, messages."""

    @since("1.5")
    def test_tokens_in_several_chunks_are_one_prompt(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """Token ids that come in several chunks, an empty one among them, are read as one, from
        every callback.

        Usually broken by taking the first chunk, and by a separator between them.
        """
        given = token_ids(ids)
        cuts = [given[:1], [], given[1:3], given[3:]]
        chunks = ModelInput(tuple(EncodedTextChunk(np.array(cut, np.int64)) for cut in cuts))
        whole = completer.complete(given, greedy)
        same(completer.complete(chunks, greedy), whole, self.tolerance)
        [in_batch] = completions(completer.complete_batch([chunks], greedy))
        same(in_batch, whole, self.tolerance)
        if completer.supports("score"):
            one, many = completer.score([given, chunks], greedy.model)
            np.testing.assert_allclose(many, one, atol=self.tolerance)

    @since("1.5")
    def test_an_image_counts_or_is_refused(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """A prompt with an image is `InvalidInput` or `Unsupported`, or its positions are counted.

        Usually broken by skipping what is not text: the model answers what it was not asked.
        """
        given = token_ids(ids)
        seen = ModelInput((ImageChunk(PNG, "png", 2), EncodedTextChunk(np.array(given))))
        with contextlib.suppress(InvalidInput, Unsupported):
            found = completer.complete(seen, greedy)
            assert found.usage is None or found.usage.prompt_tokens == 2 + len(given)

    @since("1.5")
    @unless_synthetic
    def test_a_token_of_no_vocabulary_is_refused(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """A token id beyond every vocabulary is `InvalidInput`, wherever it stands.

        Usually broken by a table that wraps around, and by a substitute such as "unknown".
        """
        given = token_ids(ids)
        for bad in ([*given, 2**40], [2**40, *given]):
            refuses(InvalidInput, completer.complete, bad, greedy)
            if completer.supports("score"):
                refuses(InvalidInput, completer.score, [given, bad], greedy.model)

    @since("1.5")
    def test_every_message_is_read(
        self,
        completer: Completer,
        conversation: Sequence[Any] | None,
        greedy: SamplingParams,
    ) -> None:
        """A message before the last one, whatever its role, and every character of it, makes the
        prompt longer. A role that the model's template does not take is `InvalidInput`.

        Usually broken by sending the last message alone, and by an encoding that drops characters.
        """
        if conversation is None:
            pytest.skip("the adapter takes no messages")
        short = replace(greedy, max_tokens=1)

        def size(messages: Sequence[Any]) -> int:
            usage = completer.complete(messages, short).usage
            if usage is None:
                pytest.skip("the adapter gives no usage, so nobody can count")
            return usage.prompt_tokens

        plain = size(conversation)
        turn = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
        assert size([*turn, *conversation]) > plain, "an earlier turn is not read"
        with contextlib.suppress(InvalidInput, Unsupported):
            system = [{"role": "system", "content": "hello"}]
            assert size([*system, *conversation]) > plain, "the system's message is not read"
        [*before, last] = conversation
        for text in ("\u00fc\u6570\u636e\U0001f642" * 4, "hello " * 8):
            longer = [*before, {**last, "content": f"{text}{last['content']}"}]
            assert size(longer) > plain, f"{text!r} is not read"
