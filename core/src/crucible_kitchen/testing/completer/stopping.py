"""Where a completion stops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import Unsupported
from ...ports import Completer
from ...types import SamplingParams
from ..refusal import refuses
from .comparison import almost_met, completions, count, late_part, offered, same
from .fixtures import CompleterFixtures


class Stopping(CompleterFixtures):
    """`stop`."""

    def test_a_stop_string_ends_the_completion(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """The text ends before the first of the stop strings, the finish reason is "stop", and the
        tokens end with the one that completed it, however the string is cut into tokens.

        Usually broken by a server that ignores or includes the string, by comparing tokens with
        strings, and by a last token that holds more than the string.
        """
        whole = completer.complete(asked, greedy)
        stop = late_part(whole.text)
        expected = whole.text[: whole.text.index(stop)]
        stopping = replace(greedy, stop=("never there", stop))
        [in_batch] = completions(completer.complete_batch([asked], stopping))
        for found in (completer.complete(asked, stopping), in_batch):
            assert found.text == expected
            assert found.finish_reason == "stop"
            if found.tokens is None or whole.tokens is None:
                continue
            size = len(found.tokens)
            assert found.tokens.tolist() == whole.tokens[:size].tolist()
            cut = [completer.complete(asked, replace(greedy, max_tokens=size)).text]
            if size > 1:
                cut.append(completer.complete(asked, replace(greedy, max_tokens=size - 1)).text)
            assert [stop in text for text in cut] == [True, False][: len(cut)]

    def test_a_stop_string_that_does_not_come_changes_nothing(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """Where no stop string comes, the completion is what it is without, to its end: what looks
        like the beginning of one is not lost, and the model's end token still ends it.

        Usually broken by text that is held back and never given, and by a stop that replaces the
        model's own.
        """
        whole = completer.complete(asked, long)
        stop = (almost_met(whole.text), "never there")
        same(completer.complete(asked, replace(long, stop=stop)), whole)

    def test_a_stop_token_ends_the_completion(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """A token id among `stop` ends the completion: it is the last of the tokens and not in the
        text. An adapter that cannot stop at ids says `Unsupported`.

        Usually broken by ids that are sent as text, or dropped.
        """
        whole = completer.complete(asked, greedy)
        if whole.tokens is None:
            refuses(Unsupported, completer.complete, asked, replace(greedy, stop=(3,)))
            return
        said = whole.tokens.tolist()
        last = max(set(said), key=said.index)  # the one whose first occurrence is latest
        size = said.index(last) + 1
        with offered("a stop token"):
            found = completer.complete(asked, replace(greedy, stop=(last,)))
        assert found.tokens is not None
        assert found.tokens.tolist() == said[:size]
        assert found.finish_reason == "stop"
        shorter = replace(greedy, max_tokens=size - 1) if size > 1 else None
        assert found.text == (completer.complete(asked, shorter).text if shorter else "")

    def test_an_empty_stop_stops_at_nothing(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """With `stop=()` a completion goes on to `max_tokens`, beyond the model's end token. An
        adapter that cannot go on says `Unsupported`.

        Usually broken by `if params.stop:`, for which () and None are the same.
        """
        with offered("stop=()"):
            for temperature in (0.0, 1.0):
                params = replace(long, stop=(), temperature=temperature)
                found = completer.complete(asked, params)
                assert found.finish_reason == "length"
                assert count(found) == params.max_tokens
