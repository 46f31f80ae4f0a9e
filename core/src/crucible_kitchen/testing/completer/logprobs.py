"""Log probabilities of sampled tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import Unsupported
from ...ports import Completer, TrainingClient
from ...types import Completion, Datum, ModelInput, SamplingParams
from ..conformance import needs
from ..refusal import refuses
from .comparison import completions, count, offered, token_ids, tokens
from .fixtures import CompleterFixtures


class Logprobs(CompleterFixtures):
    """`logprobs`."""

    def test_logprobs_are_given_or_refused(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """A caller that asks for `logprobs` gets them or `Unsupported`, from every callback; one
        that does not gets None.

        Usually broken by a server that ignores the field, as `transformers serve` 5.23.0 does: the
        algorithm that needs them finds None, or worse, zeros.
        """
        asking = replace(sampling, logprobs=True)
        [in_batch] = completer.complete_batch([asked], asking)
        refused = isinstance(in_batch, Unsupported)
        if not refused:
            assert isinstance(in_batch, Completion), in_batch
            assert in_batch.logprobs is not None
            assert completer.complete(asked, asking).logprobs is not None
        else:
            refuses(Unsupported, completer.complete, asked, asking)
        if completer.supports("stream_complete"):
            if refused:
                refuses(Unsupported, completer.stream_complete, asked, asking)
            else:
                chunks = list(completer.stream_complete(asked, asking))
                assert all(chunk.logprobs is not None for chunk in chunks)
        [unasked] = completions(completer.complete_batch([asked], sampling))
        assert unasked.logprobs is None
        assert completer.complete(asked, sampling).logprobs is None

    def test_there_is_one_logprob_for_each_token(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """`logprobs` is float32, as long as `tokens`, the end token included; each is finite and
        no probability is above 1.

        Usually broken by servers that leave out the end token's, or the first one's.
        """
        asking = replace(long, logprobs=True, temperature=1.0)
        with offered("logprobs"):
            results = completions(completer.complete_batch([asked], replace(asking, n=4)))
            results.append(completer.complete(asked, replace(asking, max_tokens=1)))
        for completion in results:
            logprobs = completion.logprobs
            assert logprobs is not None
            assert logprobs.dtype == np.float32
            assert logprobs.shape == (count(completion),)
            assert np.isfinite(logprobs).all()
            assert (logprobs <= 1e-5).all()  # rounding

    @needs("score")
    def test_logprobs_are_what_score_returns(
        self, completer: Completer, ids: list[int] | None, sampling: SamplingParams
    ) -> None:
        """At temperature 1, top_p 1 and top_k -1 the log probability of each sampled token is that
        which `score` gives to it in its place.

        Usually broken by the log probabilities of the token before or after, or of a distribution
        that was cut or scaled.
        """
        given = token_ids(ids)
        with offered("logprobs"):
            asking = replace(sampling, logprobs=True, n=3)
            results = completions(completer.complete_batch([given], asking))
        sequences = [[*given, *tokens(each)] for each in results]
        for result, score in zip(results, completer.score(sequences, sampling.model), strict=True):
            assert result.logprobs is not None
            found = score[len(given) - 1 :]
            np.testing.assert_allclose(result.logprobs, found, atol=self.tolerance)

    def test_logprobs_are_those_of_the_trainer(
        self,
        completer: Completer,
        ids: list[int] | None,
        sampling: SamplingParams,
        trainer: tuple[TrainingClient, Any] | None,
    ) -> None:
        """With weights that the paired training client published, the log probabilities are those
        of its `forward`, in `complete` and in `score`.

        Usually broken by another precision, by dropout, or by weights of an earlier step: the
        ratio of new to old policy, which starts at 1, is then wrong from the start.
        """
        client, session = self.given(trainer, "trainer")
        given = token_ids(ids)
        reference = client.save_weights_for_sampler(session)
        with offered("logprobs"):
            asking = replace(sampling, logprobs=True, model=reference)
            result = completer.complete(given, asking)
        sequence = np.asarray([*given, *tokens(result)])
        datum = Datum(ModelInput.from_ints(sequence[:-1]), {"target_tokens": sequence[1:]})
        forward = client.await_(client.forward(session, [datum])).outputs[0]["logprobs"]
        assert result.logprobs is not None
        expected = forward[len(given) - 1 :]
        np.testing.assert_allclose(result.logprobs, expected, atol=self.tolerance)
        if completer.supports("score"):
            [score] = completer.score([sequence.tolist()], reference)
            np.testing.assert_allclose(score, forward, atol=self.tolerance)
