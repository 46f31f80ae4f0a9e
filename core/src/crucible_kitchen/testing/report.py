"""Report cards: what a conformance suite found out about one adapter."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.card_files import in_words

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


def sentence(test: str) -> str:
    """Return what the name of a test says, in words."""
    return test.removeprefix("test_").replace("_", " ")


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
        return sentence(self.test)

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
        not_run: the names of tests that were not run, or not with all of their parameters. A card
            that has some is partial: it says nothing about the whole.
        kit_digest: the digest of the kit's sources.
        files: the hashes of the files of the adapter's distribution, by their paths, as a wheel's
            `RECORD` writes them; of an editable install, of its import package. Empty if it is not
            installed.
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
    not_run: tuple[str, ...] = ()
    kit_digest: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
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
    def partial(self) -> bool:
        """Whether only a part of the suite was run."""
        return bool(self.not_run)

    @property
    def ok(self) -> bool:
        """Whether the whole suite was run, something passed and nothing failed."""
        return not self.partial and self.counts["passed"] > 0 and self.counts["failed"] == 0

    @property
    def summary(self) -> str:
        """The counts, in words."""
        counts = in_words(self.counts)
        if self.partial:
            counts.append(f"{len(self.not_run)} not run: a partial card")
        return ", ".join(counts)

    @property
    def file_name(self) -> str:
        """The name of the card's file."""
        name = ".".join(filter(None, [self.port, self.adapter, self.variant]))
        return re.sub(r"[^\w.,+-]", "-", name).lower() + ".json"

    def write(self, folder: Path) -> Path:
        """Write the card to a folder, which is made if it is missing; return its file."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        path.write_text(self.as_json() + "\n", encoding="utf-8")
        return path

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
        fields |= {"ok": self.ok, "partial": self.partial, "counts": dict(self.counts)}
        for verdict in fields["verdicts"]:
            del verdict["traceback"]
        return json.dumps(fields, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ReportCard:
        """Return the card of what `as_json` returned."""
        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        fields["verdicts"] = tuple(Verdict(**verdict) for verdict in fields["verdicts"])
        fields["not_run"] = tuple(fields.get("not_run", ()))
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
        lines += [f"| not run | {sentence(test)} |  |" for test in self.not_run]
        return "\n".join(lines) + "\n"
