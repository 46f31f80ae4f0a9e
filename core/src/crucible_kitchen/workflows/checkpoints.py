"""The checkpoints of a training loop: saved while the next steps run, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import RunConfig
from .evaluator import Evaluator
from .runs import Run, Saving


class Checkpoints:
    """Saves the checkpoints of a run, and commits each when it is durable.

    Args:
        run: the run.
        evaluator: its evaluations, which learn of the checkpoint of the best one.
    """

    def __init__(self, run: Run[Any], evaluator: Evaluator) -> None:
        self._run, self._evaluator = run, evaluator
        self._config: RunConfig = run.config
        self._saving: Saving | None = None

    @property
    def saving(self) -> int | None:
        """How many steps the checkpoint holds that is not committed yet; None if there is none."""
        return None if self._saving is None else self._saving.step

    def save(self, session: Any, step: int, metrics: Mapping[str, float]) -> None:
        """Save after `step` steps, unless that is done and the evaluations show nothing new. It is
        committed by a later `settle`, or here if it is durable at once.
        """
        self.settle()
        standing = self._evaluator.standing
        if self._run.step < step or (step and standing != self._run.record.state.standing):
            keep = self._config.keep_checkpoints
            self._saving = self._run.save(session, step, keep, metrics, standing)
            self.settle(wait=False)

    def settle(self, wait: bool = True) -> None:
        """Commit the checkpoint that is being saved, if one is.

        Args:
            wait: until it is durable; otherwise leave one alone that is not.

        Raises:
            AdapterError: it cannot be saved, or not be committed. It is given up.
            ConfigurationError: another process has taken the run.
        """
        saving = self._saving
        if saving is None or not (wait or saving.reference.done()):
            return
        try:
            reference = self._run.commit(saving)
        except Exception:
            self._saving = None
            raise
        # Not before: after a KeyboardInterrupt it is committed again, which changes nothing.
        self._evaluator.saved(saving.step, reference)
        self._saving = None
