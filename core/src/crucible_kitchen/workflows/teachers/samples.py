"""What a teacher said: sampled by a run at its start, and kept under the run's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import ConfigurationError, NotFound
from ...kitchen import Kitchen
from ...types import SamplingParams
from .. import runs
from ..batches import Batches
from ..config import SAMPLES
from ..episodes.play import Episode, Rules, play_all
from ..problems.prepare import Problem
from ..rows.rendering import Example
from .teacher import ScoringTeacher

DIGEST = "teacher_samples"
"""What the record of a run calls their digest, among what its results depend on."""


class TeacherSamples:
    """The teacher's completions of the problems of a run, in the blob
    `<run_id>/samples/teacher.jsonl`: JSON lines, each an episode with its token ids.

    They are sampled once, whole or not at all: a run that is continued reads what is kept. What a
    start that failed has left is not read, since other settings may have made it: it is no run's
    until a record names its digest.

    Args:
        kitchen: its blob store keeps them.
        run_id: the run.
    """

    def __init__(self, kitchen: Kitchen, run_id: str) -> None:
        self._store = kitchen.blob_store
        self.path = f"{run_id}/{SAMPLES}/teacher.jsonl"
        record = runs.read(kitchen, run_id)
        known = record is not None and DIGEST in record.depends_on
        self._content = self._kept() if known else b""

    def _kept(self) -> bytes:
        try:
            return self._store.read(self.path)
        except NotFound:
            return b""

    def sample(
        self,
        teacher: ScoringTeacher,
        problems: Sequence[Problem],
        params: SamplingParams,
        rules: Rules,
        seed: int,
    ) -> None:
        """Sample them, unless they are kept from an earlier start. Nothing is written yet.

        Args:
            teacher: who is asked.
            problems: what it is asked.
            params: how to sample; `params.n` completions of each problem.
            rules: how episodes are played, with the student's tokenizer.
            seed: the run's.

        Raises:
            ConfigurationError: what is kept lacks some of them.
            AdapterError: a completion failed.
        """
        if self._content:
            self._check_complete(problems)
            return
        groups = play_all(teacher.completer, problems, params, rules, seed=seed)
        lines = [
            json.dumps({"problem": problem.seed, **_plain(episode)}, ensure_ascii=False)
            for problem, group in zip(problems, groups, strict=True)
            for episode in group
        ]
        self._content = "".join(f"{line}\n" for line in lines).encode(errors="replace")

    def _check_complete(self, problems: Sequence[Problem]) -> None:
        known = self.examples()
        if missing := [problem for problem in problems if problem.seed not in known]:
            raise ConfigurationError(
                f"the teacher was not asked {missing[0].name}: it was sampled for the steps that "
                "the run was to take at first. Start another run, which may begin from_checkpoint "
                "of this one"
            )

    def keep(self) -> None:
        """Write them, all or nothing."""
        self._store.write(self.path, self._content)

    @property
    def about(self) -> dict[str, Any]:
        """What the results of the run depend on: a digest of the blob."""
        return {"sha256": hashlib.sha256(self._content).hexdigest()}

    def examples(self) -> dict[int, list[Example]]:
        """Return what is learned of each problem, by its seed: each completion as a sequence, of
        which the sampled tokens count.

        Raises:
            ConfigurationError: the blob is damaged.
        """
        found: dict[int, list[Example]] = {}
        try:
            for line in self._content.splitlines():
                kept = json.loads(line)
                tokens, weights = kept["tokens"], kept["sampled"]
                example = Example(np.array(tokens, np.int64), np.array(weights, np.float32))
                found.setdefault(kept["problem"], []).append(example)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"the blob {self.path!r} of the blob store is damaged: {error}. Restore it, or "
                "choose another workflow.run_id"
            ) from error
        return found

    @property
    def truncated(self) -> float:
        """The share of the completions that were cut off."""
        cut = [bool(json.loads(line)["truncated"]) for line in self._content.splitlines()]
        return sum(cut) / len(cut)


@dataclass(frozen=True, slots=True)
class SaidBatches:
    """Batches of problems, with what the teacher said in place of each problem.

    Args:
        batches: of the problems.
        said: the sequences to learn of each problem, by its seed.
    """

    batches: Batches[Problem]
    said: Mapping[int, Sequence[Example]]

    @property
    def per_epoch(self) -> int | None:
        """The batches in an epoch; None where there is no end of problems."""
        return self.batches.per_epoch

    def between(
        self, start: int, stop: int
    ) -> Generator[tuple[int, int, list[Sequence[Example]]], None, None]:
        """Yield the epoch, the step and the sequences of each step from `start` to `stop`."""
        for epoch, step, problems in self.batches.between(start, stop):
            yield epoch, step, [self.said[problem.seed] for problem in problems]


def _plain(episode: Episode) -> dict[str, Any]:
    return {
        **asdict(episode.sample),
        "truncated": episode.truncated,
        "tokens": episode.tokens.tolist(),
        "sampled": episode.sampled.astype(int).tolist(),
    }
