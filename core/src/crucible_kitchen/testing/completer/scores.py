"""Scores of sequences."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ...errors import InvalidInput
from ...ports import Completer
from ...types import ModelInput
from ..conformance import needs
from ..refusal import refuses
from .bad_prompts import BAD_PROMPTS
from .comparison import token_ids, variants
from .fixtures import CompleterFixtures


class Scores(CompleterFixtures):
    """`score`."""

    @needs("score")
    def test_a_score_is_a_logprob_for_each_token_after_the_first(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """For a sequence of n tokens `score` returns n - 1 log probabilities in nats, float32,
        finite, none above 0; of no sequences it is an empty list.

        Usually broken by a first entry for the token that nothing comes before.
        """
        sequences: list[Any] = [*variants(token_ids(ids), 3), token_ids(ids)[:1]]
        sequences.append(ModelInput.from_ints(sequences[0]))
        scores = completer.score(sequences, model)
        assert isinstance(scores, list)
        lengths = [each.length if isinstance(each, ModelInput) else len(each) for each in sequences]
        assert [score.shape for score in scores] == [(length - 1,) for length in lengths]
        for score in scores:
            assert score.dtype == np.float32
            assert np.isfinite(score).all()
            assert (score <= 1e-5).all()  # rounding
        np.testing.assert_allclose(scores[-1], scores[0], atol=self.tolerance)
        assert completer.score([], model) == []

    @needs("score")
    def test_a_score_does_not_depend_on_its_batch(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """Scores come in the order of the sequences, and each is what it is alone, whatever else
        is scored with it, of whatever length.

        Usually broken by padding, and by sorting by length without sorting back.
        """
        given = token_ids(ids)
        lengths = st.lists(st.integers(1, 2 * len(given)), min_size=1, max_size=5)

        @self.hypothesis_settings()
        @hypothesis.given(lengths=lengths, start=st.integers(0, len(given)))
        def check(lengths: list[int], start: int) -> None:
            endless = [*given[start:], *given, *given, *given]
            sequences = [endless[index : index + size] for index, size in enumerate(lengths)]
            together = completer.score(sequences, model)
            assert len(together) == len(sequences)
            for sequence, score in zip(sequences, together, strict=True):
                [alone] = completer.score([sequence], model)
                np.testing.assert_allclose(score, alone, atol=self.tolerance)

        check()

    @needs("score")
    def test_a_score_depends_on_what_comes_before(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """The scores of a sequence begin with those of its beginning: what follows a token does
        not change its probability.

        Usually broken by an offset of one, or a mask that lets the model see ahead.
        """
        given = token_ids(ids)
        [whole] = completer.score([given], model)
        for size in range(1, len(given)):
            [score] = completer.score([given[:size]], model)
            np.testing.assert_allclose(score, whole[: size - 1], atol=self.tolerance)

    @needs("score")
    def test_what_cannot_be_scored_is_refused(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """What is not a sequence is `InvalidInput`, even among good ones.

        Usually broken by leaving it out, which shifts all others.
        """
        given = token_ids(ids)
        for kind, bad in copy.deepcopy(dict(BAD_PROMPTS)).values():
            if kind != "messages":
                refuses(InvalidInput, completer.score, [given, bad, given], model)
