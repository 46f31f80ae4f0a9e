"""Where the answers are in conversations of a kind, so that each need be rendered only once.

To find an answer exactly, a conversation is rendered up to it, twice: what the model is asked, and
the same with the answer. That costs the square of the turns. With most templates these renderings
are beginnings of that of the whole conversation, and what the template writes is the same in all
conversations of the same roles: their layout. It is taken from conversations of made-up texts that
are rendered exactly and that their tokens give back, and it holds for another one if

- its rendering is what the template writes with the messages' texts in between, to the character;
- its tokens are the layout's own between the texts, up to where each answer begins: no token joins
  a prompt and its answer;
- its texts have nothing that a template may look for: a tag or mark that the template mentions, or
  white space at an end.

Everything else is rendered exactly: tool calls, thoughts, messages with other fields, tools and
settings of a row, and all conversations of a template that writes earlier turns differently later.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from ...chat import ChatMessage, ChatTemplate, in_common
from ...errors import AdapterError

Kind: TypeAlias = tuple[tuple[str, bool], ...]
"""Of each message the role, and whether it is trained on."""

Exact: TypeAlias = Callable[[list[ChatMessage], list[int]], "list[Placed]"]
"""Renders a conversation exactly, the messages in some places being trained on."""

RARE = 3
"""Conversations of a kind that are rendered exactly, since finding their layout costs as much."""

_FIELDS = frozenset({"role", "content", "weight"})
_NO_WORD = re.compile(r"[^\w\s]")
_THOUGHTS = ("<think>", "</think>")
_SAID = ("crucible {}.", "(Crucible\n\n{}): 12, äß 中文! \N{WAVING HAND SIGN} a.b", "x{}x")
"""Texts that differ in their length, in how they begin and end, and in what they have."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of a layout. Places are counted in special tokens, 0 being the beginning.

    Args:
        opens: the last special token before it.
        asked: the ids between that one and the answer.
        trained: how far behind `opens` begins what is trained on; it may lie before it.
        closes: the special token that ends it, the last one that is trained on.
    """

    opens: int
    asked: list[int]
    trained: int
    closes: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A sequence to learn from, and the answers in it.

    Args:
        ids: its token ids.
        trained: for each of `ids`, whether it is trained on.
        prompt_length: how many of them come before the last answer of its conversation; None if
            that is not in this sequence.
        end_token: what ends that answer.
    """

    ids: list[int]
    trained: list[bool]
    prompt_length: int | None = None
    end_token: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What all plain conversations of a kind have in common.

    Args:
        frames: the texts around those of the messages, one more than messages.
        special: the special tokens, in order.
        between: the ids behind the beginning and behind each special token; None where a message's
            text is among them.
        answers: those that are trained on.
        behind: how many ids behind the last special token are learned from; None for all.
        suffix: ids that come last, which the template does not write.
    """

    frames: list[str]
    special: list[int]
    between: list[list[int] | None]
    answers: list[Answered]
    behind: int | None
    suffix: list[int]

    def fits(self, text: str, messages: Sequence[ChatMessage]) -> bool:
        """Whether a rendering is what the template writes, with the texts of messages between."""
        said = (message["content"] for message in messages)
        parts = [part for pair in zip(self.frames, said, strict=False) for part in pair]
        return text == "".join([*parts, self.frames[-1]])

    def place(self, ids: list[int], special: Set[int]) -> Placed | None:
        """Find the answers in the ids of a rendering; None if these are not the layout's.

        Args:
            ids: of the rendering.
            special: all ids among them that are special, for a message may say one that the
                template does not write.
        """
        marks = [-1, *(place for place, token in enumerate(ids) if token in special)]
        if [ids[mark] for mark in marks[1:]] != self.special:
            return None
        for mark, following, own in zip(marks, [*marks[1:], len(ids)], self.between, strict=True):
            if own is not None and ids[mark + 1 : following] != own:
                return None
        kept = None if self.behind is None else marks[-1] + 1 + self.behind
        learned = [*ids[:kept], *self.suffix]
        trained = [False] * len(learned)
        start = end = 0
        for answer in self.answers:
            first = marks[answer.opens] + 1
            start = first + len(answer.asked)
            if ids[first:start] != answer.asked:
                return None
            end = marks[answer.closes] if answer.closes < len(marks) else len(learned) - 1
            begin = first + answer.trained
            trained[begin : end + 1] = [True] * (end + 1 - begin)
        return Placed(learned, trained, start, learned[end])


class Layouts:
    """The layouts of a template, found when they are needed.

    Args:
        template: the model's, without tools.
        exact: renders a conversation exactly.
    """

    def __init__(self, template: ChatTemplate, exact: Exact) -> None:
        self._template, self._exact = template, exact
        self._found: dict[Kind, Layout | None] = {}
        self._seen: dict[Kind, int] = {}

    def of(self, messages: Sequence[ChatMessage], trained: Sequence[int]) -> Layout | None:
        """Return the layout of a conversation, None if it has to be rendered exactly.

        Args:
            messages: the turns.
            trained: the places of those that are trained on.
        """
        if not trained or not all(map(self._is_plain, messages)):
            return None
        kind = tuple((m["role"], place in trained) for place, m in enumerate(messages))
        if kind not in self._found:
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen <= RARE:
                return None
            self._found[kind] = self._find(kind)
        return self._found[kind]

    def _is_plain(self, message: ChatMessage) -> bool:
        said = message["content"]
        return (
            message.keys() <= _FIELDS
            and said != ""
            and said == said.strip()
            # A mark of Transformers that ends with a character of several tokens has the first of
            # them alone (measured, 5.23), for which such a row is refused.
            and (said[-1].isascii() or not self._template.marked)
            and self._looked_for.search(said) is None
        )

    @cached_property
    def _looked_for(self) -> re.Pattern[str]:
        """What a template may look for in a text: its own texts, except words, which are names of
        roles and fields, and what is shorter than a tag.
        """
        marks = {
            text for text in self._template.constants if len(text) > 2 and _NO_WORD.search(text)
        }
        return re.compile("|".join(map(re.escape, sorted({*marks, *_THOUGHTS}))))

    def _find(self, kind: Kind) -> Layout | None:
        found = [self._of_probe(kind, turn) for turn in range(len(_SAID))]
        probes = [probe for probe in found if probe is not None]
        first = probes[0] if probes else None
        if first is None or len(probes) < len(found):
            return None
        # What differs between them is what the messages say.
        between = [
            parts[0] if all(part == parts[0] for part in parts) else None
            for parts in zip(*(probe.between for probe in probes), strict=False)
        ]
        said = [place for place, own in enumerate(between) if own is None]
        if len(said) != len(kind):
            return None
        layouts = [probe.layout(kind, between, said) for probe in probes]
        layout = layouts[0]
        if layout is None or any(other != layout for other in layouts):
            return None
        fits = all(layout.place(probe.ids, {*layout.special}) == probe.exact for probe in probes)
        return layout if fits else None

    def _of_probe(self, kind: Kind, turn: int) -> _Probe | None:
        """Render a made-up conversation exactly; None if it has no layout."""
        template, tokens = self._template, self._template.tokens
        said = [_SAID[(turn + place) % len(_SAID)].format(place) for place in range(len(kind))]
        messages: list[ChatMessage] = [
            {"role": role, "content": text} for (role, _), text in zip(kind, said, strict=True)
        ]
        answers = [place for place, (_, trained) in enumerate(kind) if trained]
        try:
            text = template.text(messages)
            if text is None or template.render(messages).ids != tokens.encode(text):
                return None
            asked = [template.render(messages[:place], generate=True).ids for place in answers]
            exact = self._exact(messages, answers)
        except AdapterError:
            return None
        ids, frames, rest = tokens.encode(text), [], text
        for one in said:
            frame, found, rest = rest.partition(one)
            if not found or text.count(one) > 1:
                return None
            frames.append(frame)
        begun = all(ids[: len(prompt)] == prompt for prompt in asked)
        if len(exact) > 1 or not begun or tokens.decode(ids) != text:
            return None
        marks = [place for place, token in enumerate(ids) if tokens.is_special(token)]
        return _Probe([*frames, rest], ids, [-1, *marks], [*map(len, asked)], exact[0])


@dataclass(frozen=True, slots=True)
class _Probe:
    """A conversation of made-up texts.

    Args:
        frames: see `Layout`.
        ids: of its rendering.
        marks: the places of the special tokens, -1 for the beginning.
        asked: for each answer how many of `ids` are the prompt for it.
        exact: what is learned from.
    """

    frames: list[str]
    ids: list[int]
    marks: list[int]
    asked: list[int]
    exact: Placed

    @property
    def between(self) -> list[list[int]]:
        ends = [*self.marks[1:], len(self.ids)]
        return [self.ids[a + 1 : b] for a, b in zip(self.marks, ends, strict=True)]

    def layout(self, kind: Kind, between: list[list[int] | None], said: list[int]) -> Layout | None:
        """Return the layout that it has.

        Args:
            kind: its kind.
            between: see `Layout`.
            said: which of them have a message's text, for each message.
        """
        learned, marks = self.exact.ids, self.marks
        shared = in_common(learned, self.ids)
        runs = _runs(self.exact.trained)
        opening = [opens for opens, (_, trained) in zip(said, kind, strict=True) if trained]
        if shared <= marks[-1] or len(runs) != len(opening):
            return None
        answers, ends = [], [*marks[1:], len(self.ids)]
        for opens, asked, (begin, end) in zip(opening, self.asked, runs, strict=True):
            first = marks[opens] + 1
            closes = marks.index(end) if end in marks else len(marks)
            if not first <= asked <= ends[opens] or begin > asked:
                return None
            if closes <= opens or (closes == len(marks) and end < len(learned) - 1):
                return None
            answers.append(Answered(opens, self.ids[first:asked], begin - first, closes))
        special = [self.ids[mark] for mark in marks[1:]]
        behind, suffix = (
            None if shared == len(self.ids) else shared - marks[-1] - 1,
            learned[shared:],
        )
        if between[-1] is None and behind is not None:  # where to stop depends on the text
            return None
        return Layout(self.frames, special, between, answers, behind, suffix)


def _runs(trained: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the first and the last place of each run of what is trained on."""
    runs, place = [], 0
    for is_trained, run in itertools.groupby(trained):
        length = len(list(run))
        if is_trained:
            runs.append((place, place + length - 1))
        place += length
    return runs
