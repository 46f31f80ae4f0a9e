"""Render the report cards of this repository's adapters as docs/reference/report-cards.md.

python docs/report_cards.py CARDS            # fail unless the page is that of a folder of cards
python docs/report_cards.py CARDS --write    # write the page
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from crucible_kitchen import PORTS
from crucible_kitchen.testing import suite_of
from crucible_kitchen.testing.report import ReportCard, sentence

PAGE = Path(__file__).parent / "reference" / "report-cards.md"
OF_WORDS = (
    "test_the_first_stop_string_in_the_text_ends_it",
    "test_white_space_before_a_stop_string_stays",
)
"""Promises that not every text can show. What a tiny model says differs between machines, whose
sums are rounded in different ways.
"""
SIGNS = {
    "passed": "✓",
    "failed": "**✗ failed**",
    "warning": "⚠ warning",
    "xfailed": "✗ known",
    "excused": "excused",
    "skipped": "–",
}
INTRODUCTION = """\
# Report cards

What `crucible check` and the tests of each adapter find, promise by promise. The
[conformance kit](../adapters/testing.md) explains them. `docs/report_cards.py` makes this page
from a test run, and CI compares the two.

✓ kept; **✗ failed** broken; ✗ known: broken, for the reason below the table; ⚠ broken, but newer
than the level that the adapter is held to; – an optional callback that the adapter does not
implement, or a test that needs information that the backend does not give, or a longer text than
the model wrote; *excused*: the adapter declares that its results are made up.
"""


AROUND = """\
## Inside wrappers

The same promises, for each adapter inside the nested wrappers of `crucible-adapter-compose`
(`tests/support/around.py`), and for noops that fail: how many are kept, and how many are broken.
"""


def page(cards: Sequence[ReportCard]) -> str:
    """Return the page: a table for each port, a row for each promise, a column for each adapter.

    Below is a table of the adapters inside wrappers.
    """
    alone = [card for card in cards if not card.variant.startswith("around ")]
    wrapped = [card for card in cards if card not in alone]
    return "\n".join(
        [
            INTRODUCTION,
            *(line for port in PORTS for line in _section(port, alone)),
            AROUND,
            *_wrapped(wrapped),
            "",
        ]
    )


def _order(card: ReportCard) -> tuple[str, str]:
    return card.adapter, card.variant


def _wrapped(cards: Sequence[ReportCard]) -> Iterator[str]:
    """Yield a row for each adapter: its wrappers, and the outcome of the promises."""
    if not cards:
        raise SystemExit("no report card of an adapter inside a wrapper was found")
    yield "| port | adapter | inside | promises |"
    yield "| --- | --- | --- | --- |"
    for port in PORTS:
        for card in sorted((card for card in cards if card.port == port), key=_order):
            *inner, adapter = card.variant.removeprefix("around ").split(", ")
            inside = "(".join([card.adapter, *inner])
            yield f"| {port} | {adapter} | `{inside}(...{')' * len(inner)})` | {_counts(card)} |"


def _counts(card: ReportCard) -> str:
    count = Counter(verdict.outcome for verdict in card.verdicts)
    kept = [f"✓ {count['passed']}"]
    broken = [f"{SIGNS[o]} {count[o]}" for o in ("failed", "warning", "xfailed") if count[o]]
    missing = [f"**not run** {len(card.not_run)}"] if card.partial else []
    return ", ".join(kept + broken + missing)


def _section(port: str, cards: Sequence[ReportCard]) -> Iterator[str]:
    mine = sorted((card for card in cards if card.port == port), key=_order)
    yield from (f"## {port}", "")
    if not mine:
        raise SystemExit(f"no report card of a {port} was found")
    names = [" ".join(filter(None, [card.adapter, card.variant])) for card in mine]
    yield f"| promise | {' | '.join(names)} |"
    yield f"| --- |{' --- |' * len(mine)}"
    found = [{verdict.test: verdict for verdict in card.verdicts} for card in mine]
    for test in suite_of(port).promises:
        # One that was not run, or not with all of its parameters, is not better than broken.
        signs = [
            "**not run**" if test in card.not_run or test not in v else SIGNS[v[test].outcome]
            for card, v in zip(mine, found, strict=True)
        ]
        yield f"| {sentence(test)} | {' | '.join(signs)} |"
    yield ""
    for name, verdicts in zip(names, found, strict=True):
        for verdict in verdicts.values():
            if verdict.outcome in ("failed", "warning", "xfailed"):
                yield f"- {name}, *{verdict.sentence}*: {' '.join(verdict.reason.split())}"
    yield ""


def _comparable(text: str) -> str:
    """Return a page without what differs between machines."""
    rows = tuple(f"| {sentence(test)} |" for test in OF_WORDS)
    lines = text.splitlines(keepends=True)
    return "".join(x.replace("| – ", "| ✓ ") if x.startswith(rows) else x for x in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cards", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    found = sorted(arguments.cards.glob("*.json"))
    cards = [ReportCard.from_json(path.read_text("utf-8")) for path in found]
    cards = [card for card in cards if card.package]  # not those of examples
    text = page(cards)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    elif _comparable(known := PAGE.read_text("utf-8")) != _comparable(text):
        sys.stdout.writelines(
            difflib.unified_diff(
                known.splitlines(True), text.splitlines(True), PAGE.name, "this run"
            )
        )
        raise SystemExit(f"{PAGE.name} differs from this run; rebuild it with --write")
    print("\n".join(f"{card.title}: {card.summary}" for card in cards))


if __name__ == "__main__":
    main()
