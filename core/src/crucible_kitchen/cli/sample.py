"""`crucible sample`: what the weights of a run, or any model, answer."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..calls.synthetic import synthetic
from ..errors import ConfigurationError, NotFound
from ..history import stored
from ..kitchen import Kitchen
from ..messages.spelling import nearest
from ..settings import gather
from ..types import Completion, SamplingParams
from ..workflows import runs
from ..workflows.config import check_run_id
from ..workflows.runs import RunRecord
from .answering import Model, asked
from .arguments import PROFILE, opened, read
from .chat import chat, show
from .console import JSON, note, say, say_json
from .runs.words import split

WORDS: Any = typer.Argument(
    metavar="RUN|MODEL|FOLDER [PROMPT] [FILE.toml] [KEY=VALUE]...",
    help="Id of a run, a model that the completer knows, or a folder of weights; then what to ask. "
    "Without a PROMPT it is read from standard input, or, at a terminal, a conversation begins.",
    show_default=False,
)


def sample(
    words: Annotated[list[str], WORDS],
    profile: Annotated[str | None, PROFILE] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of the tokens to choose from.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Makes answers repeatable; of a conversation, the first's.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Answers to one prompt.")] = 1,
    system: Annotated[
        str | None, typer.Option(help="Message that begins the conversation, as the system's.")
    ] = None,
    model: Annotated[
        bool, typer.Option("--model", help="Take the name for a model's, even if it is a run's.")
    ] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Ask the weights of a run, or any model that the configured completer has.

    A prompt is put into the model's chat template; a model that has none continues the text.
    """
    named, arguments = _split(words)
    settings = read(arguments, profile, gather)
    with opened(settings) as kitchen:
        kitchen.bind(["completer", *({"blob_store"} & {*kitchen.configured})])
        reference = named[0] if model else _reference(kitchen, named[0])
        params = SamplingParams(
            max_tokens, temperature=temperature, top_p=top_p, seed=seed, n=n, model=reference
        )
        _note_of_made_up(kitchen)
        with _explained(kitchen, named[0], reference):
            asked_of = Model.of(kitchen.completer, params, system)
            if named[1:]:
                _once(asked_of, named[1], as_json)
            elif not sys.stdin.isatty():
                _once(asked_of, sys.stdin.read().removesuffix("\n"), as_json)
            elif as_json or n > 1:
                wanted = "--json" if as_json else "--n"
                raise ConfigurationError(f"{wanted} is for one prompt; give it, or pipe it in")
            else:
                chat(asked_of, named[0])


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    _, arguments = split(words)
    named = words[: len(words) - len(arguments)]  # `split` leaves out what is there twice
    if len(named) > 2:
        raise ConfigurationError(
            f"one prompt, not {len(named) - 1}; put it in quotes: {' '.join(named[1:])!r}"
        )
    return named, arguments


def _reference(kitchen: Kitchen, name: str) -> str:
    """Return the model reference of a run's weights, or the name itself if it is a model's."""
    if "blob_store" not in kitchen.configured:
        return name
    with contextlib.suppress(ValueError):
        check_run_id(name)
        if (record := runs.read(kitchen, name)) is not None:
            if record.weights is not None:
                return record.weights
            raise ConfigurationError(_without_weights(name, record))
    known: list[str] = []
    with contextlib.suppress(ConfigurationError):
        known = stored.ids(kitchen)
    slashes = name.count("/")  # ME/RUN is not a misspelt RUN
    alike = [each for each in known if each.count("/") == slashes]
    if (near := nearest(name, alike)) and not os.path.isdir(name):
        raise ConfigurationError(
            f"there is no run {name!r}; did you mean {near!r}? With --model, {name!r} is taken for "
            "the name of a model"
        )
    return name


def _without_weights(name: str, record: RunRecord) -> str:
    text = f"the run {name!r}, which is {record.status}, has no weights to sample from"
    if record.state.checkpoint is None:
        return text
    return (
        f"{text}, but a checkpoint of step {record.state.step}; `crucible export {name} --to "
        "FOLDER`, then `crucible sample FOLDER`"
    )


def _note_of_made_up(kitchen: Kitchen) -> None:
    """Warn of a completer that is not a model, such as a noop."""
    if synthetic(kitchen.completer):
        note(f"the completer {kitchen.completer.adapter!r} makes its answers up, for rehearsals")


@contextlib.contextmanager
def _explained(kitchen: Kitchen, name: str, reference: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        of = "" if name == reference else f", the weights of the run {name!r}"
        error.add_note(
            f"the completer {kitchen.completer.adapter!r} was asked for {reference!r}{of}; it must "
            "be one that can load what the training client saves, or a server that has it"
        )
        raise


def _once(model: Model, prompt: str, as_json: bool) -> None:
    if not prompt:
        raise ConfigurationError("the prompt is empty")
    turns = [asked(prompt)]
    if as_json:
        answers = [_plain(answer) for answer in model.answers(turns)]
        say_json({"model": model.params.model, "prompt": prompt, "answers": answers})
    elif model.params.n == 1:
        show(model.pieces(turns))
    else:
        for number, answer in enumerate(model.answers(turns), 1):
            note(f"answer {number} of {model.params.n}")
            say(answer.text)


def _plain(answer: Completion) -> dict[str, Any]:
    usage = answer.usage
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
    }
