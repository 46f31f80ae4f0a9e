"""A conversation at a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..errors import AdapterError, described
from ..types import CompletionChunk, Message
from .answering import Model, asked
from .console import fail, note, say, say_piece

RESET = "/reset"


def chat(model: Model, name: str) -> None:
    """Answer line after line, until the input ends.

    An answer that fails is reported, and its question forgotten.

    Args:
        model: which to ask.
        name: what the user calls it.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (so that a line can be edited)
    if model.chats:
        note(f"{name} answers; {RESET} begins a new conversation, Ctrl-D ends")
    else:
        note(f"{name} has no chat template: it continues each line alone; Ctrl-D ends")
    turns: list[Message] = []
    count = 0
    while True:
        try:
            line = input("> ")
        except EOFError:
            say()
            return
        if line.strip() == RESET:
            turns.clear()
            note("a new conversation")
        elif line.strip():
            turns.append(asked(line))
            try:
                text = show(model.seeded(count).pieces(turns if model.chats else turns[-1:]))
            except AdapterError as error:
                say()
                fail(described(error).removeprefix(f"{type(error).__name__}: "))
                turns.pop()
                continue
            count += 1
            turns.append({"role": "assistant", "content": text})


def show(pieces: Iterable[CompletionChunk]) -> str:
    """Print an answer as it arrives, its reasoning on standard error; return its text."""
    text, cut = "", False
    for piece in pieces:
        say_piece(piece.reasoning or "", stderr=True)
        say_piece(piece.text)
        text += piece.text
        cut = piece.finish_reason == "length"
    if not text.endswith("\n"):
        say()
    if cut:
        note("(cut off: it is as long as --max-tokens, or the model's context, allows)")
    return text
