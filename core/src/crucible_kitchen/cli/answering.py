"""A model as a completer serves it: how it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..chat.tokenization import Tokenization
from ..errors import AdapterError, ConfigurationError, Unsupported
from ..ports import Completer
from ..types import Completion, CompletionChunk, Message, Prompt, SamplingParams


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a completer samples from.

    Args:
        completer: the completer.
        params: how to sample; `params.model` names the model.
        system: content of the message that begins each conversation; None for none.
        tokens: makes token ids of text, of a model without a chat template; None if it has one.
    """

    completer: Completer
    params: SamplingParams
    system: str | None = None
    tokens: Tokenization | None = None

    @classmethod
    def of(cls, completer: Completer, params: SamplingParams, system: str | None = None) -> Model:
        """Find out whether the model has a chat template, and return it.

        A completer without the helper `get_tokenizer` is given messages.

        Raises:
            ConfigurationError: a system message for a model without a chat template.
            AdapterError: the completer does not have the model.
        """
        try:
            get_tokenizer = completer.helper("get_tokenizer")
        except Unsupported:
            return cls(completer, params, system)
        tokenizer = get_tokenizer(params.model)
        if getattr(tokenizer, "chat_template", "unknown") is not None:
            return cls(completer, params, system)
        if system is not None:
            raise ConfigurationError(
                "--system: the model has no chat template, so it reads no messages; put the text "
                "before the prompt"
            )
        return cls(completer, params, tokens=Tokenization(tokenizer))

    @property
    def chats(self) -> bool:
        """Whether it reads conversations; else it continues text."""
        return self.tokens is None

    def seeded(self, turn: int) -> Model:
        """Return the model for another turn of a conversation, with a seed of that turn."""
        seed = self.params.seed
        return replace(
            self, params=replace(self.params, seed=None if seed is None else seed + turn)
        )

    def prompt(self, turns: Sequence[Message]) -> Prompt:
        """Return what the model reads of a conversation; of the last turn alone if it has no chat
        template.

        Raises:
            InvalidInput: the text has half of a surrogate pair.
        """
        if self.tokens is not None:
            return self.tokens.begin(turns[-1]["content"])
        first: list[Message] = []
        if self.system is not None:
            first = [{"role": "system", "content": self.system}]
        return [*first, *turns]

    def answers(self, turns: Sequence[Message]) -> list[Completion]:
        """Return `params.n` answers.

        Raises:
            AdapterError: one of them failed.
        """
        found = []
        for answer in self.completer.complete_batch([self.prompt(turns)], self.params):
            if isinstance(answer, AdapterError):
                raise answer
            found.append(answer)
        return found

    def pieces(self, turns: Sequence[Message]) -> Iterator[CompletionChunk]:
        """Yield one answer in pieces, as it is sampled; in one where the completer streams none."""
        if self.completer.supports("stream_complete"):
            with self.completer.stream_complete(self.prompt(turns), self.params) as stream:
                yield from stream
            return
        whole = self.completer.complete(self.prompt(turns), self.params)
        yield CompletionChunk(
            whole.text, finish_reason=whole.finish_reason, reasoning=whole.reasoning
        )


def asked(text: str) -> Message:
    """Return a turn of the user."""
    return {"role": "user", "content": text}
