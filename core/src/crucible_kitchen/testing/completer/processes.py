"""Several processes ask one completer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InvalidInput, Unsupported
from ...ports import Completer
from ...types import Completion, FloatArray, SamplingParams
from ..conformance import needs, since
from ..processes import Elsewhere
from ..processes.places import absolute
from ..processes.state import left_alone
from .comparison import completions, offered, same, token_ids, variants
from .fixtures import CompleterFixtures

SEEDS = (0, 1, 7, 2**31 - 1, 2**32 + 1, -3)
"""Seeds, some of which an adapter may refuse."""


class Processes(CompleterFixtures):
    """What is the same in every process."""

    @since("1.5")
    def test_another_process_completes_alike(
        self, completer: Completer, asked: Any, sampling: SamplingParams, elsewhere: Elsewhere
    ) -> None:
        """A prompt with a seed, and at temperature 0, has the same completion in every process; a
        seed that cannot be used is refused in every process.

        Usually broken by a seed that is mixed with `hash` of the prompt, with the process id or the
        time, and by a generator that was used before.
        """
        with offered("a seed"):
            completer.complete(asked, replace(sampling, seed=1))
        params = [replace(sampling, temperature=0.0)]
        params += [replace(sampling, seed=seed) for seed in SEEDS]
        mine = _completed(completer, asked, params)
        theirs = elsewhere.run(_completed, asked, [_located(each) for each in params])
        for found, expected, each in zip(theirs, mine, params, strict=True):
            if isinstance(expected, str) or isinstance(found, str):
                assert found == expected, f"seed {each.seed}"
            else:
                same(found, expected, self.tolerance)

    @since("1.5")
    def test_another_process_completes_a_batch_alike(
        self, completer: Completer, asked: Any, sampling: SamplingParams, elsewhere: Elsewhere
    ) -> None:
        """A batch with a seed has the same completions in the same order in every process, and
        when two processes ask at once.

        Usually broken by results in the order in which they arrive, and by one generator for all
        that is in flight.
        """
        params = replace(sampling, n=2, seed=5)
        with offered("a seed"):
            mine = completions(completer.complete_batch(variants(asked, 3), params))
        batch = variants(asked, 3), _located(params)
        both = elsewhere.submit_together(_batch, [batch, batch])
        for theirs in (each.result() for each in both):
            for found, expected in zip(theirs, mine, strict=True):
                same(found, expected, self.tolerance)

    @since("1.5")
    @needs("score")
    def test_another_process_scores_alike(
        self, completer: Completer, ids: list[int] | None, model: str | None, elsewhere: Elsewhere
    ) -> None:
        """A sequence has the same score in every process.

        Usually broken by weights that are drawn anew where the model is loaded, such as those of a
        head that a checkpoint lacks.
        """
        sequences = variants(token_ids(ids), 2)
        mine = completer.score(sequences, model)
        theirs = elsewhere.run(_scores, sequences, model and absolute(model))
        for found, expected in zip(theirs, mine, strict=True):
            np.testing.assert_allclose(found, expected, atol=self.tolerance)

    @since("1.5")
    def test_the_process_stays_as_it_was(
        self, completer: Completer, asked: Any, sampling: SamplingParams, elsewhere: Elsewhere
    ) -> None:
        """No call changes the umask or the working directory, or seeds the generators of `random`
        and NumPy, which all threads share.

        Usually broken by `random.seed(params.seed)`: everything that the program draws after a
        completion is then the same.
        """
        with offered("a seed"):
            completer.complete(asked, replace(sampling, seed=1))
        changed = elsewhere.run(_changed, asked, _located(replace(sampling, seed=1)))
        assert not changed, "what the calls have changed"


def _located(params: SamplingParams) -> SamplingParams:
    """Return parameters whose model is found from another working directory."""
    return params if params.model is None else replace(params, model=absolute(params.model))


# --- in any process ---


def _completed(
    completer: Completer, prompt: Any, params: Sequence[SamplingParams]
) -> list[Completion | str]:
    """Return a completion for each of the parameters, or the name of the error."""
    found: list[Completion | str] = []
    for each in params:
        try:
            found.append(completer.complete(prompt, each))
        except (InvalidInput, Unsupported) as error:
            found.append(type(error).__name__)
    return found


def _batch(
    completer: Completer, prompts: Sequence[Any], params: SamplingParams
) -> list[Completion]:
    return completions(completer.complete_batch(prompts, params))


def _scores(
    completer: Completer, sequences: Sequence[Sequence[int]], model: str | None
) -> list[FloatArray]:
    return [*completer.score(sequences, model)]


def _changed(completer: Completer, prompt: Any, params: SamplingParams) -> dict[str, Any]:
    return left_alone(completer.complete, prompt, params)
