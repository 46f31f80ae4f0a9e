"""How to continue a run that ended early: the command, with its secrets masked."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ..kitchen import Kitchen
from ..masking.data import shown
from ..masking.mask import MASK
from ..masking.names import says_secret


@dataclass(frozen=True, slots=True)
class Continuation:
    """Words for the end of a run that was started with these arguments.

    Args:
        kitchen: knows the secrets.
        arguments: those of `crucible run`.
        profile: its profile.
        run_id: the run; None if it did not begin.
        saved: steps in its last checkpoint; 0 if there is none.
    """

    kitchen: Kitchen
    arguments: Sequence[str]
    profile: str | None
    run_id: str | None
    saved: int

    def after_interruption(self) -> str:
        """Return how to continue after Ctrl-C."""
        if self.run_id is None:
            return "interrupted before the run began"
        begins = (
            f"continue after step {self.saved}"
            if self.saved
            else "there is no checkpoint yet, so begin again"
        )
        return f"interrupted; {begins} with{self._command()}"

    def after_failure(self) -> str:
        """Return how to continue after a failure; "" if no checkpoint was saved."""
        return f"to continue after step {self.saved}:{self._command()}" if self.saved else ""

    def _command(self) -> str:
        """Return the command, on lines of its own."""
        chosen = [] if self.profile is None else ["--profile", self.profile]
        given = [a for a in self.arguments if not a.startswith("workflow.run_id=")]
        masked = [self.masked(argument) for argument in given]
        words = ["crucible", "run", *chosen, *masked, f"workflow.run_id={self.run_id}"]
        command = f"\n\n    {shlex.join(words)}"
        if masked != given:
            command += f"\n\nand the secrets in place of {MASK}, better kept in the environment"
        return command

    def masked(self, argument: str) -> str:
        """Return an argument without secrets, since what is printed may be kept in a log."""
        key, equals, value = argument.partition("=")
        table, _, path = key.partition(".")
        port, _, option = path.partition(".")
        unknown = table == "adapters" and port not in self.kitchen.describe()
        if unknown and (option or value[:1] in "[{"):  # which of it is secret is not known
            return f"{key}={MASK}"
        if not equals:
            return self._redacted(argument)
        if any(map(says_secret, path.split("."))):
            return f"{key}={MASK}"
        if value[:1] in ("[", "{"):
            with contextlib.suppress(ValueError, RecursionError):
                plain = json.loads(value)
                without = shown(plain, known=self._redacted)
                return argument if without == plain else f"{key}={json.dumps(without)}"
        return f"{key}={self._redacted(value)}"

    def _redacted(self, value: str) -> str:
        return self.kitchen.redacted(value, whole=True)
