"""Where a completion stops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import Completer
from ...types import SamplingParams
from ..conformance import since
from ..refusal import refuses
from .comparison import almost_met, completions, count, early_part, late_part, offered, same
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

    @since("1.5")
    def test_the_first_stop_string_in_the_text_ends_it(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """Of several stop strings the one that comes first in the text counts, whatever their order
        in `stop`. More of them than a server takes are `InvalidInput` or `Unsupported`.

        Usually broken by a loop over the strings that ends with the first it finds, and by a list
        that is cut to the four that some servers take.
        """
        whole = completer.complete(asked, greedy)
        early, late = early_part(whole.text), late_part(whole.text)
        first = whole.text.index(early)
        if whole.text.index(late) < first + len(early):
            pytest.skip("the model says too little to stop at two places")
        for stop in ((late, early), (early, late)):
            found = completer.complete(asked, replace(greedy, stop=stop))
            assert (found.text, found.finish_reason) == (whole.text[:first], "stop")
        many = (*(f"never there {number}" for number in range(8)), early)
        try:
            found = completer.complete(asked, replace(greedy, stop=many))
        except (InvalidInput, Unsupported):
            return
        assert (found.text, found.finish_reason) == (whole.text[:first], "stop")

    @since("1.5")
    def test_a_stop_string_is_met_in_the_answer_and_letter_by_letter(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """A stop string that is in the prompt alone, or in the answer with letters of the other
        case, stops nothing.

        Usually broken by looking for it in all that the model has read, and by folding the case.
        """
        whole = completer.complete(asked, greedy)
        shown = asked[-1]["content"] if isinstance(asked[-1], dict) else "".join(map(str, asked))
        words = [word for word in shown.split() if word not in whole.text]
        letters = [c.swapcase() for c in whole.text if c.swapcase().swapcase() == c != c.swapcase()]
        words += [letter for letter in letters if letter not in whole.text][:1]
        for word in words:
            same(completer.complete(asked, replace(greedy, stop=(word,))), whole)

    @since("1.5")
    def test_a_stop_at_the_last_token_is_a_stop(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """A completion that has just as many tokens as it may have, the end token or the one that
        completed a stop string among them, has ended by itself: the finish reason is "stop".

        Usually broken by looking at the number of tokens first, and by an end token that is counted
        and not returned: a whole answer then looks like one that was cut.
        """
        whole = completer.complete(asked, long)
        stopping = replace(long, stop=(late_part(whole.text),))
        for params in (long, stopping):
            ended = completer.complete(asked, params)
            if ended.finish_reason == "stop":
                exact = replace(params, max_tokens=count(ended))
                same(completer.complete(asked, exact), ended, self.tolerance)

    @since("1.5")
    def test_white_space_before_a_stop_string_stays(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """Text is what was generated: spaces and line breaks at its beginning and its end are kept.

        Usually broken by `text.strip()`, after which the text is not that of its tokens.
        """
        text = completer.complete(asked, long).text
        for place in range(1, len(text) - 1):
            stop = text[place : place + 2]
            if text[place - 1].isspace() and text.index(stop) == place and "\ufffd" not in stop:
                found = completer.complete(asked, replace(long, stop=(stop,)))
                assert found.text == text[:place]
                return
        pytest.skip("the model says no white space at which it could be looked for")
