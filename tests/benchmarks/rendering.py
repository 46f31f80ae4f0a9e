"""From a file of rows to the first step: read, rendered as tokens with masks, and checked.

Against the script that people write: `datasets.load_dataset`, and a batched `map` with the
tokenizer, which is given a template with `{% generation %}` marks for the masks. Ours reads the
template that models come with. Tokens and masks are compared, all of them.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Clock, Growth, Row, at_least, at_most
from .settings import Settings, Skipped

BATCH = 16
TURNS = 4
"""Questions with their answers, in a conversation."""
AGAINST = "datasets.map with the tokenizer, batched"


def rows(settings: Settings) -> Iterator[Row]:
    with fixture() as made:
        count = 200 if settings.small else 10_000
        file = made.prompts(count)
        contest = settings.contest().run(
            ours=lambda: made.ours(file), theirs=lambda: made.of_prompts(file)
        )
        _assert_same(**contest.results)
        yield contest.row(
            "ours",
            "theirs",
            what=f"{count:,} rows of prompt and completion, to the first step",
            against=AGAINST,
            goal=at_least(0.95),
            work=count,
            unit="rows/s",
        )
        count = 200 if settings.small else 20_000
        file = made.conversations(count, TURNS)
        contest = settings.contest().run(
            ours=lambda: made.ours(file), theirs=lambda: made.of_conversations(file)
        )
        _assert_same(**contest.results)
        yield contest.row(
            "ours",
            "theirs",
            what=f"{count:,} conversations of {TURNS} turns, to the first step",
            against=AGAINST,
            goal=at_least(0.95),
            work=count,
            unit="rows/s",
        )
        yield _second_start(made, file, count, settings.contest().clock)


def growth(settings: Settings) -> Iterator[Growth]:
    with fixture() as made:
        counts = [100, 200, 400, 800] if settings.small else [1250, 2500, 5000, 10_000]
        yield _grown(
            settings,
            "Conversations of 4 turns to the first step",
            "conversations",
            counts,
            lambda count: (count, made.conversations(count, TURNS)),
            made,
        )
        turns = [1, 2, 4, 8] if settings.small else [2, 4, 8, 16, 32]
        count = 50 if settings.small else 1000
        yield _grown(
            settings,
            f"{count:,} conversations to the first step",
            "turns in a conversation",
            turns,
            lambda turns: (count, made.conversations(count, turns)),
            made,
        )


def _grown(
    settings: Settings,
    what: str,
    variable: str,
    values: Sequence[int],
    file_of: Callable[[int], tuple[int, Path]],
    made: Fixture,
) -> Growth:
    curves: dict[str, list[float]] = {"ours": [], "datasets.map": []}
    for value in values:
        count, file = file_of(value)
        contest = settings.contest().run(
            ours=partial(made.ours, file), theirs=partial(made.of_conversations, file)
        )
        _assert_same(**contest.results)
        for name, way in zip(curves, ("ours", "theirs"), strict=True):
            curves[name].append(count / float(np.median(contest.seconds[way])))
    return Growth(what, variable, "rows/s", values, {**curves})


def _second_start(made: Fixture, file: Path, count: int, clock: Clock) -> Row:
    """Start again, as a second run on the same rows does, of which only the file is read anew."""
    with tempfile.TemporaryDirectory() as cache:
        made.ours(file, cache)
        started = clock()
        made.ours(file, cache)
        seconds = clock() - started
    limit = 3.0  # seconds
    return Row(
        f"{count:,} conversations of {TURNS} turns, the second start",
        "3 s",
        at_most(1.0),
        seconds / limit,
        seconds,
        limit,
        "s",
    )


Found = tuple[Any, Any]
"""All sequences, and the first batch."""


@dataclass(frozen=True)
class Fixture:
    """A model's tokenizer, texts, and both ways to the first step.

    Args:
        folder: where files are written.
        kitchen: with a training client and a dataset store.
        session: a training client's.
        tokenizer: Transformers' own, with a template that has marks.
        sentences: of English.
    """

    folder: Path
    kitchen: Any
    session: Any
    tokenizer: Any
    sentences: Sequence[str]

    def prompts(self, count: int) -> Path:
        said = self._said()
        return self._written(
            f"{count} prompts",
            ({"prompt": said(), "completion": f" {said()}"} for _ in range(count)),
        )

    def conversations(self, count: int, turns: int) -> Path:
        said = self._said()
        return self._written(
            f"{count} conversations of {turns}",
            (
                {
                    "messages": [
                        {"role": role, "content": said()}
                        for _ in range(turns)
                        for role in ("user", "assistant")
                    ]
                }
                for _ in range(count)
            ),
        )

    def _said(self) -> Callable[[], str]:
        source = random.Random(0)
        return lambda: " ".join(source.choices(self.sentences, k=2))

    def _written(self, name: str, made: Iterator[dict[str, Any]]) -> Path:
        file = self.folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
        return file

    def ours(self, file: Path, cache: str | None = None) -> Found:
        from crucible_kitchen.workflows.batches import in_batches
        from crucible_kitchen.workflows.rows.prepare import prepare_rows
        from crucible_kitchen.workflows.supervised import SupervisedConfig

        with tempfile.TemporaryDirectory() as empty:
            os.environ["CRUCIBLE_CACHE"] = cache or empty
            config = SupervisedConfig(
                model="any", dataset=str(file), batch_size=BATCH, max_steps=1, max_length=4096
            )
            prepared = prepare_rows(self.kitchen, self.session, config, BATCH)
            batches = in_batches(prepared.train, BATCH, seed=0)
            _, _, first = next(iter(batches.between(0, 1)))
            return prepared.train, [example.datum() for example in first]

    def of_prompts(self, file: Path) -> Found:
        tokenizer, end = self.tokenizer, self.tokenizer.eos_token_id

        def render(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            prompts, completions = (
                tokenizer(batch[name], add_special_tokens=False, return_attention_mask=False)[
                    "input_ids"
                ]
                for name in ("prompt", "completion")
            )
            pairs = list(zip(prompts, completions, strict=True))
            return {
                "input_ids": [[*prompt, *completion, end] for prompt, completion in pairs],
                "mask": [[0] * len(p) + [1] * (len(c) + 1) for p, c in pairs],
            }

        return self._mapped(file, render)

    def of_conversations(self, file: Path) -> Found:
        def render(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
            found = self.tokenizer.apply_chat_template(
                batch["messages"], return_dict=True, return_assistant_tokens_mask=True
            )
            return {"input_ids": found["input_ids"], "mask": found["assistant_masks"]}

        return self._mapped(file, render)

    def _mapped(self, file: Path, render: Callable[..., Any]) -> Found:
        import datasets
        import torch

        with tempfile.TemporaryDirectory() as cache:
            stored = datasets.load_dataset(
                "json", data_files=str(file), split="train", cache_dir=cache
            )
            mapped = stored.map(render, batched=True, remove_columns=stored.column_names)
            first = []
            for row in mapped.shuffle(seed=0)[:BATCH]["input_ids"]:
                first.append(torch.tensor(row))
            return mapped, first


@contextmanager
def fixture() -> Iterator[Fixture]:
    """Make a small model with a tokenizer of 8,192 tokens, trained on Python's documentation."""
    try:
        from pydoc_data.topics import topics

        import datasets
        import trl  # noqa: F401  # whose wheel has the templates
        from crucible_kitchen import Kitchen, SessionConfig
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise Skipped(f"it needs torch, transformers, trl and datasets: {error}") from error
    datasets.disable_progress_bars()
    text = "\n".join(topics.values())
    sentences = [
        " ".join(part.split()) for part in text.replace("\n\n", ". ").split(". ") if part.strip()
    ]
    sentences = [s if s.endswith(".") else f"{s}." for s in sentences if 40 < len(s) < 160]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = _tokenizer(text)
        tokenizer.chat_template = _template("qwen2_5")
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        adapters = {
            "training_client": {"use": "torch", "checkpoint_dir": str(folder / "checkpoints")},
            "dataset_store": {"use": "hf-datasets", "cache_dir": str(folder / "cache")},
        }
        with Kitchen(adapters) as kitchen:
            session = kitchen.training_client.start_session(SessionConfig(str(folder / "model")))
            tokenizer.chat_template = _marked()
            yield Fixture(folder, kitchen, session, tokenizer, sentences)


def _template(name: str) -> str:
    from importlib.metadata import distribution

    return Path(str(distribution("trl").locate_file(f"trl/chat_templates/{name}.jinja"))).read_text(
        "utf-8"
    )


def _marked() -> str:
    """Return TRL's template for training, whose marks include both line breaks, without these."""
    source = _template("qwen2_5_training")
    for old, new in {
        "{{- '<|im_start|>assistant' }}\n        {%- generation %}\n": (
            "{{- '<|im_start|>assistant\\n' }}\n        {%- generation %}\n"
        ),
        "{{- '\\n' + message.content + '<|im_end|>\\n' }}": "{{- message.content + '<|im_end|>' }}",
        "{%- endgeneration %}": "{%- endgeneration %}\n        {{- '\\n' }}",
    }.items():
        assert old in source, old
        source = source.replace(old, new)
    return source


def _tokenizer(text: str) -> Any:
    """Train a byte-level BPE with the pattern of Qwen 2.5 and its special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([text], trainer)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _assert_same(ours: Found, theirs: Found) -> None:
    sequences, mapped = ours[0], theirs[0].with_format("numpy")[:]
    assert len(sequences) == len(mapped["input_ids"]), "not as many sequences"
    for mine, ids, mask in zip(sequences, mapped["input_ids"], mapped["mask"], strict=True):
        assert np.array_equal(mine.tokens, ids), "other tokens"
        assert np.array_equal(mine.weights, mask), "another mask"
    assert len(ours[1]) == len(theirs[1]), "another batch size"
