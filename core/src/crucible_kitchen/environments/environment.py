"""The protocol of environments: one object is one conversation at a time, begun by `reset`.

    class GuessOptions(EnvironmentOptions):
        highest: int = 9
        \"\"\"Largest number to guess.\"\"\"

    class Guess:
        def __init__(self, options: GuessOptions) -> None:
            self._highest = options.highest

        def reset(self, seed: int) -> Observation:
            self._number = random.Random(seed).randint(0, self._highest)
            return [{"role": "user", "content": f"Guess a number up to {self._highest}."}]

        def step(self, completion: Completion) -> Step:
            return Step(reward=float(completion.text.strip() == str(self._number)))

Packages register the class, or a function that makes the object, under the entry-point group
`crucible.environments`. The annotation of its one argument names the class of its options; without
an argument it has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ..options.frozen import Frozen
from ..types import Completion

Observation: TypeAlias = str | Sequence[Mapping[str, Any]] | Sequence[int]
"""What the model is asked: text as it is, messages for its chat template, or token ids."""


class EnvironmentOptions(Frozen):
    """The base of an environment's options: frozen, no unknown keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows a completion.

    Args:
        reward: of this turn, finite. The reward of an episode is the sum over its turns.
        done: whether the episode ends here.
        observation: where it does not, what follows the completion: the new messages alone, the
            text, or token ids.
        metrics: further figures, by name. An episode's are those of its last turn.
        parsed: whether an answer was found in the completion, right or wrong.
    """

    reward: float
    done: bool = True
    observation: Observation = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    parsed: bool = True


@runtime_checkable
class Environment(Protocol):
    """What a model acts in. Two objects share no state, and closing one leaves the others. What
    they return is the caller's, who may change it; a completion is left as it was, and is answered
    whatever its `finish_reason`, with token ids and log probabilities or without.

    An environment may also have

    - `size`, the number of its problems, which have the seeds 0 to size - 1. Without it, or where
      it is None, every seed of 0 to 2**32 - 1 is a problem;
    - `held_together`, a number n where problems belong together, such as a sum in both orders:
      those of the seeds 0 to n - 1, n to 2n - 1, and so on. All of them are held out, or none;
    - `tools`, the JSON schemas of functions, for the model's chat template, and `answer`, the right
      answer as text, for people to see: both of the problem that was begun last;
    - `version`, a text that is another where its problems are others, such as the digest of a file
      or the version of a library: a run is not continued with another one;
    - `close()`, called once when it is not used any more.

    `size`, `held_together` and `version` are equal in all objects, and do not change. Without a
    size, the problems of the seeds from 2**31 on, which are held out, are not the first ones again.
    """

    def reset(self, seed: int) -> Observation:
        """Begin the problem of this seed, leaving another unfinished if need be; return what the
        model is asked first. The same seed is the same problem, in every process.
        """
        ...

    def step(self, completion: Completion) -> Step:
        """Go on after a completion of what was asked."""
        ...
