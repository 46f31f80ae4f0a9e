"""What samples: a process around the completer of the `torch` package."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from crucible_adapter_torch import completer
from crucible_adapter_torch.options import CompleterOptions as TorchOptions
from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    FloatArray,
    Prompt,
    SamplingParams,
    Tokenizer,
)

from .replicas import Replicas
from .wanted import Wanted


class SamplingActor:
    """One process's models. Its calls run one after the other, so that weights change between
    answers alone.

    Args:
        opts: those of the adapter, most of which are those of the `torch` package.
        folder: the working directory of the driver: relative paths mean the same here, where every
            node sees it.
    """

    def __init__(self, opts: TorchOptions, folder: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._opts = opts
        self._replicas = Replicas(opts)

    def ready(self) -> int:
        """Return the id of the process, once it runs."""
        return os.getpid()

    def complete(self, wanted: Wanted, prompt: Prompt, params: SamplingParams) -> Completion:
        return completer.complete(self._opts, prompt, self._of(wanted, params))

    def complete_batch(
        self, wanted: Wanted, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        return completer.complete_batch(self._opts, prompts, self._of(wanted, params))

    def stream(
        self, wanted: Wanted, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        yield from completer.stream_complete(self._opts, prompt, self._of(wanted, params))

    def score(self, wanted: Wanted, sequences: Sequence[Prompt]) -> list[FloatArray]:
        return completer.score(self._opts, sequences, self._name(wanted))

    def tokenizer(self, wanted: Wanted) -> Tokenizer:
        return completer.get_tokenizer(self._opts, self._name(wanted))

    def _of(self, wanted: Wanted, params: SamplingParams) -> SamplingParams:
        return replace(params, model=self._name(wanted))

    def _name(self, wanted: Wanted) -> str | None:
        self._replicas.keep(wanted.published)
        return wanted.name if wanted.live is None else self._replicas.name_of(wanted.live)
