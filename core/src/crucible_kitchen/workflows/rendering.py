"""Rows of a data set become token sequences, with a weight for each token.

A row is a prompt and its completion (strings, or lists of messages), a conversation, or plain
text. Nothing is guessed while training: every row is rendered before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeGuard, cast

import numpy as np

from ..errors import InvalidInput
from ..types import Datum, FloatArray, IntArray, Message, ModelInput, Tokenizer

TrainOn: TypeAlias = Literal["last_assistant_message", "all_assistant_messages", "all_tokens"]
TooLong: TypeAlias = Literal["error", "truncate", "drop"]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A rendered row.

    Args:
        tokens: int64 `(n,)`, the whole sequence, at least 2.
        weights: float32 `(n,)`, 1 where the token is trained on, else 0. The first token is never
            predicted, so its weight says nothing.
        prompt_length: how many tokens come before the last answer; None where there is none.
        answer: the text of the last answer, if there is one.
    """

    tokens: IntArray
    weights: FloatArray
    prompt_length: int | None
    answer: str | None

    def datum(self, scale: float = 1.0) -> Datum:
        """Return it shifted for next-token prediction, weights multiplied by `scale`."""
        return Datum(
            ModelInput.from_ints(self.tokens[:-1]),
            {"target_tokens": self.tokens[1:], "weights": self.weights[1:] * np.float32(scale)},
        )

    @property
    def weight(self) -> float:
        """The sum of the weights of the predicted tokens."""
        return float(self.weights[1:].sum())


@dataclass(frozen=True, slots=True)
class Renderer:
    """How rows are read and tokenized; see `SupervisedConfig` for the fields."""

    tokenizer: Tokenizer
    prompt: str
    completion: str
    messages_field: str
    text_field: str
    train_on: TrainOn
    max_length: int | None  # the model's own, where the configuration has none
    too_long: TooLong

    def render(self, rows: Sequence[Mapping[str, Any]], what: str) -> list[Example]:
        """Render every row of a data set that is called `what` in errors.

        Raises:
            InvalidInput: a row without the fields, too long, or with nothing to train on. The
                message says which.
        """
        examples = []
        for index, row in enumerate(rows):
            where = f"row {index} of {what}"
            example = self._fit(self._example(row, where), where)
            if example is not None:
                if example.weight == 0:
                    raise InvalidInput(f"{where} has no token to train on")
                examples.append(example)
        if not examples:
            reason = "every row is too long" if rows else "it has no rows"
            raise InvalidInput(f"nothing to learn from {what}: {reason}")
        return examples

    def _example(self, row: Mapping[str, Any], where: str) -> Example:
        # A field without a value is a field that is not there: stores fill up uneven rows.
        row = {name: value for name, value in row.items() if value is not None}
        messages = row.get(self.messages_field)
        if _is_list(messages):
            return self._conversation(_messages(messages, where), 0, where)
        prompt, completion = row.get("prompt"), row.get("completion")
        if _is_list(prompt) and _is_list(completion):
            whole = _messages([*prompt, *completion], where)
            return self._conversation(whole, len(prompt), where)
        try:
            texts = self.prompt.format_map(row), self.completion.format_map(row)
        except KeyError as missing:
            if isinstance(text := row.get(self.text_field), str):
                return self._text(text)
            raise InvalidInput(
                f"{where} has no field {missing}, no {self.messages_field!r} and no "
                f"{self.text_field!r}; it has {', '.join(map(repr, row))}. Set prompt and "
                "completion to templates of its fields, or messages_field, or text_field"
            ) from None
        except (IndexError, ValueError, AttributeError, TypeError) as error:
            raise InvalidInput(
                f"{where}: the template {self.prompt!r} or {self.completion!r} does not fit: "
                f"{error}"
            ) from None
        for name, value, template in (
            ("prompt", prompt, self.prompt),
            ("completion", completion, self.completion),
        ):
            if _is_list(value) and f"{{{name}}}" in template:
                raise InvalidInput(
                    f"{where}: prompt and completion must both be texts, or both lists of "
                    f"messages; only {name} is a list"
                )
        return self._prompt_completion(*texts)

    def _prompt_completion(self, prompt: str, completion: str) -> Example:
        # Tokenized apart, so that what is trained on is what generation will continue with.
        before = self._encode(prompt, special=True)
        after = [*self._encode(completion), *self._eos()]
        return self._pieces([(before, False), (after, True)], len(before), completion)

    def _text(self, text: str) -> Example:
        return self._pieces([([*self._encode(text, special=True), *self._eos()], True)], None, None)

    def _conversation(self, messages: Sequence[Message], first: int, where: str) -> Example:
        """Render a conversation whose messages before `first` are never trained on."""
        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant" and i >= first]
        if not answers and self.train_on != "all_tokens":
            raise InvalidInput(f"{where} has no assistant message to train on")
        whole = chat_tokens(self.tokenizer, messages)
        answer = messages[answers[-1]]["content"] if answers else None
        if self.train_on == "all_tokens":
            if answers:
                before = chat_tokens(self.tokenizer, messages[: answers[-1]], generate=True)
                if whole[: len(before)] == before:
                    return self._pieces([(whole, True)], len(before), answer)
            return self._pieces([(whole, True)], None, None)
        trained = answers[-1:] if self.train_on == "last_assistant_message" else answers
        pieces: list[tuple[list[int], bool]] = []
        done: list[int] = []
        prompt_length = None
        for index in answers:
            before = chat_tokens(self.tokenizer, messages[:index], generate=True)
            after = chat_tokens(self.tokenizer, messages[: index + 1])
            if (
                before[: len(done)] != done
                or after[: len(before)] != before
                or whole[: len(after)] != after
            ):
                raise InvalidInput(
                    f"{where}: the tokenizer's chat template writes earlier turns differently "
                    'later on, so answers cannot be told apart; use train_on = "all_tokens"'
                )
            pieces.append((before[len(done) :], False))
            pieces.append((after[len(before) :], index in trained))
            prompt_length, done = len(before), after
        pieces.append((whole[len(done) :], False))
        return self._pieces(pieces, prompt_length, answer)

    def _pieces(
        self,
        pieces: Sequence[tuple[Sequence[int], bool]],
        prompt_length: int | None,
        answer: str | None,
    ) -> Example:
        tokens = np.asarray([token for piece, _ in pieces for token in piece], np.int64)
        weights = np.asarray(
            [trained or self.train_on == "all_tokens" for piece, trained in pieces for _ in piece],
            np.float32,
        )
        return Example(tokens, weights, prompt_length, answer)

    def _fit(self, example: Example, where: str) -> Example | None:
        # The model reads all but the last token.
        length = len(example.tokens) - 1
        if length < 1:
            raise InvalidInput(f"{where} has fewer than two tokens")
        if self.max_length is None or length <= self.max_length:
            return example
        if self.too_long == "drop":
            return None
        if self.too_long == "truncate":
            kept = slice(0, self.max_length + 1)
            return Example(example.tokens[kept], example.weights[kept], None, None)
        raise InvalidInput(
            f"{where} has {length} tokens, the longest input is {self.max_length}; raise "
            'max_length if the model can read more, or set too_long to "truncate" or "drop"'
        )

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=special)

    def _eos(self) -> list[int]:
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]


def chat_tokens(
    tokenizer: Tokenizer, messages: Sequence[Message], *, generate: bool = False
) -> list[int]:
    """Return the token ids of a conversation.

    With the tokenizer's chat template, or, where it has none, as `role: content` lines whose
    assistant ones end with the end-of-sequence token.

    Args:
        tokenizer: the model's.
        messages: the turns.
        generate: whether the assistant is to speak next.
    """
    if getattr(tokenizer, "chat_template", True):
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=generate))
    tokens: list[int] = []
    for index, message in enumerate(messages):
        role = f"\n{message['role']}:" if index else f"{message['role']}:"
        tokens += tokenizer.encode(role, add_special_tokens=False)
        tokens += tokenizer.encode(f" {message['content']}", add_special_tokens=False)
        eos = tokenizer.eos_token_id
        if message["role"] == "assistant" and eos is not None:
            tokens.append(eos)
    if generate:
        tokens += tokenizer.encode("\nassistant:", add_special_tokens=False)
    return tokens


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _messages(values: Sequence[Any], where: str) -> list[Message]:
    """Return the messages of a conversation, each with what it has a value for."""
    messages = []
    for index, value in enumerate(values):
        if not isinstance(value, Mapping):
            raise InvalidInput(
                f"{where}: message {index} is a {type(value).__name__}, not a table of role and "
                "content"
            )
        message = {name: item for name, item in value.items() if item is not None}
        for name in ("role", "content"):
            if not isinstance(message.get(name), str):
                has = f"is a {type(message[name]).__name__}" if name in message else "is missing"
                raise InvalidInput(
                    f"{where}: the {name} of message {index} {has}, it must be a text; the message "
                    f"has {', '.join(map(repr, message)) or 'nothing'}"
                )
        messages.append(message)
    return cast("list[Message]", messages)
