"""A data set of problems and a reward for each answer, as an environment of one turn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...chat.messages import conversation, is_conversation_text, is_list, tools_of
from ...configuration.chosen import ChosenReward
from ...environments import Observation, Step
from ...environments.final_answer import final_answer
from ...errors import AdapterError, InvalidInput
from ...types import Completion
from ..rows.examples import PromptCompletion, Row, prompt_completion
from ..rows.judge import BadRows
from ..rows.stored import NumberedRow, StoredRows

KEPT = 1024
"""Rows that are kept in memory: a group of samples asks for one again and again."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a row becomes what the model is asked, and how its answers are rewarded.

    Args:
        prompt: template of the prompt; None is the field `prompt`, a text or messages.
        messages_field: the field of a conversation, which is asked without the answer at its end.
        as_chat: whether a text is asked as a user's message.
        answer_field: the field of the right answer.
        reward: what is called with a completion and its row; None rewards nothing.
    """

    prompt: str | None
    messages_field: str | None
    as_chat: bool
    answer_field: str
    reward: ChosenReward | None

    def observation(self, row: Row) -> Observation:
        """Return what the model is asked.

        Raises:
            InvalidInput: the row lacks a field, or has something in it that cannot be asked.
        """
        row = {name: value for name, value in row.items() if value is not None}
        if row.get("chat_template_kwargs"):
            raise InvalidInput(
                "it has chat_template_kwargs of its own, which a problem cannot have; set them for "
                "all rows in workflow.chat_template_kwargs"
            )
        if self.messages_field is not None:
            value = _field(row, self.messages_field, "messages_field")
        elif self.prompt is not None:
            filled = prompt_completion(row, self.prompt, "")
            assert isinstance(filled, PromptCompletion)
            value = filled.prompt
        else:
            value = _field(row, "prompt", "prompt, unless it is a template of other fields")
        if self.messages_field is not None or is_list(value) or is_conversation_text(value):
            messages = conversation(value)
            while messages and messages[-1]["role"] == "assistant":
                messages.pop()
            if not messages:
                raise InvalidInput("its conversation has nothing that the model is asked")
            return messages
        if not isinstance(value, str):
            raise InvalidInput(f"its prompt is a {type(value).__name__}, not text or messages")
        if not value:
            raise InvalidInput("its prompt is empty")
        return [{"role": "user", "content": value}] if self.as_chat else value

    def rewarded(self, completion: Completion, row: Row) -> Step:
        """Return what follows a completion: the end, with its reward.

        Raises:
            InvalidInput: the row lacks the right answer, or the reward asks for another turn.
        """
        if self.reward is None:
            return Step(reward=0.0)
        if self.reward.function is final_answer:
            return final_answer(completion, row, self.answer_field)
        result = self.reward.function(completion, row)
        if not isinstance(result, Step):
            return Step(reward=result)
        if not result.done:
            raise InvalidInput(
                f"the reward {self.reward.name} asks for another turn; a problem of a data set "
                "has one, an environment may have several"
            )
        return result

    def check(self, rows: StoredRows, what: str) -> None:
        """Read every row, so that one that cannot be asked is found before the first step.

        Raises:
            InvalidInput: names the rows.
        """
        bad = BadRows()
        for name, row in rows:
            try:
                self.observation(row)
                if self.reward is not None and self.reward.function is final_answer:
                    final_answer(_NOTHING, row, self.answer_field)
            except AdapterError as error:
                bad.add(name, error.reason)
        if bad.count:
            raise InvalidInput(bad.named(what))


_NOTHING = Completion("", None, None, "stop")


class RewardedRows:
    """Rows of a data set as problems: the seed is the place of the row among them.

    Args:
        read: returns the row of a place, with its name.
        size: how many there are.
        asking: how a row becomes a problem.
    """

    def __init__(self, read: Callable[[int], NumberedRow], size: int, asking: Asking) -> None:
        self._read, self.size, self._asking = read, size, asking
        self.problem_name: str | None = None
        self.answer: str | None = None
        self.tools: list[dict[str, Any]] | None = None
        self._row: Mapping[str, Any] = {}

    def reset(self, seed: int) -> Observation:
        self.problem_name, self._row = self._read(seed)
        self.tools = tools_of(self._row.get("tools"))
        answer = self._row.get(self._asking.answer_field)
        self.answer = None if answer is None else str(answer)
        return self._asking.observation(self._row)

    def step(self, completion: Completion) -> Step:
        return self._asking.rewarded(completion, self._row)


def reader(rows: StoredRows) -> Callable[[int], NumberedRow]:
    """Return a function that reads one row, and keeps the last `KEPT`. Safe to use from threads."""

    @functools.lru_cache(KEPT)
    def read(place: int) -> NumberedRow:
        return rows.read([place])[0]

    return read


def _field(row: Row, name: str, setting: str) -> Any:
    if name not in row:
        raise InvalidInput(
            f"it has no field {name!r} ({setting}); it has {', '.join(map(repr, row)) or 'nothing'}"
        )
    return row[name]
