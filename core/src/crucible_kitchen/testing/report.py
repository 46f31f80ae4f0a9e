"""Report cards: what a conformance suite found out about one adapter."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

OUTCOMES = ("failed", "warning", "xfailed", "excused", "skipped", "passed")
"""What becomes of a promise, the worst first.

- `failed`: it is broken.
- `warning`: it is broken, but newer than the level to which the adapter is held.
- `xfailed`: it is broken, and the adapter's author gives the reason.
- `excused`: the adapter is declared synthetic, so it was not tried.
- `skipped`: it is about an optional callback that is not implemented, or needs an optional
  fixture that was not given.
- `passed`: it is kept.
"""


_TRIED = ("failed", "warning", "xfailed", "passed", "excused", "skipped")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one promise.

    Args:
        test: the name of the test.
        promise: what is promised, why, and what usually breaks it.
        outcome: one of `OUTCOMES`; of a test with parameters, the worst of those tried.
        reason: why it did not pass.
        seconds: how long it took.
        traceback: pytest's account of a failure.
    """

    test: str
    promise: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    traceback: str = ""

    @property
    def sentence(self) -> str:
        """The promise in a few words."""
        return self.test.removeprefix("test_").replace("_", " ")

    def joined(self, other: Verdict) -> Verdict:
        """Join the verdicts of two sets of parameters: the worst of those that were tried."""
        first, second = sorted((self, other), key=lambda verdict: _TRIED.index(verdict.outcome))
        return dataclasses.replace(
            first,
            reason=first.reason or second.reason,
            seconds=self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class ReportCard:
    """The verdicts on an adapter, and the versions for which they hold.

    Args:
        port: the port's name.
        adapter: the adapter's name.
        variant: which of its backends was tested, if it has several.
        package: the adapter's distribution, empty if it is not installed.
        version: the version of that distribution.
        core: the version of crucible-kitchen.
        kit: the level of the kit.
        level: the level to which the adapter was held.
        verdicts: one for each promise, in the suite's order.
    """

    port: str
    adapter: str
    variant: str
    package: str
    version: str
    core: str
    kit: str
    level: str
    verdicts: tuple[Verdict, ...]
    python: str = dataclasses.field(default_factory=platform.python_version)

    def masked(self, mask: Callable[[str], str]) -> ReportCard:
        """Return the card with the texts of failures as `mask` returns them: without secrets."""
        return dataclasses.replace(
            self,
            verdicts=tuple(
                dataclasses.replace(each, reason=mask(each.reason), traceback=mask(each.traceback))
                for each in self.verdicts
            ),
        )

    @property
    def counts(self) -> Mapping[str, int]:
        """How many promises had each outcome."""
        return Counter(verdict.outcome for verdict in self.verdicts)

    @property
    def ok(self) -> bool:
        """Whether something passed and nothing failed."""
        return self.counts["passed"] > 0 and self.counts["failed"] == 0

    @property
    def summary(self) -> str:
        """The counts, in words."""
        return ", ".join(f"{self.counts[o]} {o}" for o in reversed(OUTCOMES) if self.counts[o])

    @property
    def title(self) -> str:
        """The adapter with its versions."""
        variant = f" on {self.variant}" if self.variant else ""
        package = f" ({self.package} {self.version})" if self.package else ""
        return f"{self.port}.{self.adapter}{variant}{package}"

    @property
    def versions(self) -> str:
        """The versions that it was tested with."""
        held = "" if self.level == self.kit else f", held to level {self.level}"
        return f"crucible-kitchen {self.core}, kit level {self.kit}{held}, Python {self.python}"

    def as_json(self) -> str:
        """Return the card as a JSON object."""
        fields: dict[str, Any] = dataclasses.asdict(self)
        fields |= {"ok": self.ok, "counts": dict(self.counts)}
        for verdict in fields["verdicts"]:
            del verdict["traceback"]
        return json.dumps(fields, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ReportCard:
        """Return the card of what `as_json` returned."""
        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        fields["verdicts"] = tuple(Verdict(**verdict) for verdict in fields["verdicts"])
        return cls(**{name: value for name, value in fields.items() if name in names})

    def as_markdown(self) -> str:
        """Return the card as a heading and a table."""
        lines = [
            f"### {self.title}",
            "",
            f"{self.summary}. {self.versions}.",
            "",
            "| outcome | promise | reason |",
            "| --- | --- | --- |",
        ]
        for verdict in self.verdicts:
            reason = " ".join(verdict.reason.split()).replace("|", "\\|")
            lines.append(f"| {verdict.outcome} | {verdict.sentence} | {reason} |")
        return "\n".join(lines) + "\n"
