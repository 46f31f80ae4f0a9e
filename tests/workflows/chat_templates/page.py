"""Write docs/use/chat-templates.md from what is found.

python -m tests.workflows.chat_templates.page            # fail where the page says something else
python -m tests.workflows.chat_templates.page --write
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .checks import check, outcome
from .conversations import KINDS, Kind
from .families import FAMILIES, MARKED, TRL, Family

PAGE = Path(__file__).parents[3] / "docs" / "use" / "chat-templates.md"
INTRODUCTION = """\
# Chat templates

What is trained on with {count} chat templates of the model families in use.
`tests/workflows/test_chat_templates.py` renders conversations with each of them and compares the
trained tokens with the text; this page is made by
`python -m tests.workflows.chat_templates.page --write`, and CI compares the two. The
templates are the real ones, as TRL's wheel ships them; those with a star are small equivalents of
our own.

What is trained on is an answer, all of it and nothing else: its text, its thoughts and its tool
calls, with the token that ends the turn. What a template writes behind that token, such as a line
break, is read and not trained on: a model stops before it. What comes before an answer is, token
for token, the prompt that a model is given in use; the exceptions are listed below. Where a
template writes earlier turns differently later on, because it leaves out their thoughts, say, or
where a token would join the prompt and the answer, each answer has a sequence of its own. What a
template cannot show is refused, with the number of the row, instead of left out.

| column | the conversation |
| --- | --- |
| one turn | a question and its answer |
| several turns | two of each |
| system | the same, after a system message |
| tools | a question, a tool call, the tool's result, an answer |
| think | two turns, thoughts in the content, between `<think>` and `</think>` |
| reasoning | two turns, thoughts in the field `reasoning_content` |
| last answer only | three turns, `train_on = "last_assistant_message"` |
| all answers | three turns, `train_on = "all_assistant_messages"` |

*yes*: one sequence, in which each answer is trained on; *yes, 2*: two sequences, each answer
trained on in one of them; *refused*: for the reason below the tables.

## The templates of models
"""
MARKED_INTRODUCTION = """\
## Templates with marks

TRL trains many models with a template of its own, in which `{% generation %}` marks what is trained
on. Marks are followed, also where they cover the end of the prompt, such as the header of the turn,
but not behind the end of a turn.
"""
EXCEPTIONS = """\
## Where the prompt is longer

These prompts open a think block, or write an empty one, that an answer without thoughts (or, where
the block is empty, one with thoughts) does not have. The template writes such an answer behind a
shorter prompt, and so it is trained on. Give such a model answers with thoughts, or turn thinking
off with `chat_template_kwargs` where the template has a switch for it.

| family | what the prompt has in addition |
| --- | --- |
"""


def page() -> str:
    """Return the page.

    Raises:
        AssertionError: something else is trained on than answers.
    """
    reasons: dict[str, str] = {}
    lines = [INTRODUCTION.format(count=len(FAMILIES)), *_table(FAMILIES, reasons), ""]
    lines += [MARKED_INTRODUCTION, *_table(MARKED, reasons), "", "## Reasons", ""]
    lines += [f"- {sign}: `{reason}`" for reason, sign in reasons.items()]
    lines += ["", EXCEPTIONS + "\n".join(_exceptions()), ""]
    return "\n".join(lines)


def _table(families: Sequence[Family], reasons: dict[str, str]) -> Iterator[str]:
    yield f"| family | {' | '.join(kind.name for kind in KINDS)} |"
    yield f"| --- |{' --- |' * len(KINDS)}"
    for family in sorted(families, key=lambda family: family.name.lower()):
        cells = [_cell(family, kind, reasons) for kind in KINDS]
        ours = "" if family.file.parent == TRL else " \\*"
        yield f"| {family.name}{ours} | {' | '.join(cells)} |"


def _cell(family: Family, kind: Kind, reasons: dict[str, str]) -> str:
    found = outcome(family, kind)
    if isinstance(found, str):
        return f"refused {reasons.setdefault(found, chr(ord('a') + len(reasons)))}"
    check(family, kind, found)
    return "yes" if len(found) == 1 else f"yes, {len(found)}"


def _exceptions() -> Iterator[str]:
    for family in sorted(FAMILIES, key=lambda family: family.name.lower()):
        if texts := dict.fromkeys(filter(None, family.unasked.values())):
            shown = ", ".join(f"`{text!r}`" for text in texts)
            yield f"| {family.name} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    text = page()
    if parser.parse_args().write:
        PAGE.write_text(text, encoding="utf-8")
    elif (known := PAGE.read_text("utf-8")) != text:
        lines = known.splitlines(True), text.splitlines(True)
        sys.stdout.writelines(difflib.unified_diff(*lines, PAGE.name, "this run"))
        raise SystemExit(f"{PAGE.name} is not what was found; make it again with --write")


if __name__ == "__main__":
    main()
