"""Supervised steps on rows of real lengths, GSM8K's, against TRL's `SFTTrainer`.

Both train the same Llama with random weights on the same token ids, 32 rows to an optimizer step.
The learning rate is 0, which costs as much as any other and makes the mean loss of a trained token
the same whatever the order of the rows: that both ways found the same one is asserted.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .comparison import Row, at_least
from .settings import Settings, Skipped
from .training_steps import new_session

DATA = Path(__file__).resolve().parents[3] / "shared/data/gsm8k/train.jsonl"
VOCABULARY = 8192
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "max_position_embeddings": 2048,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.1,  # so that losses differ between tokens
}
ROWS_A_STEP, CLIP = 32, 1.0
MICRO_BATCH = 8  # TRL's default
WAYS: dict[str, tuple[dict[str, Any], float]] = {
    "default": ({"gradient_checkpointing": True}, 3.0),
    "without gradient checkpointing": ({"gradient_checkpointing": False}, 2.3),
    "packing 2048": (
        {
            "gradient_checkpointing": False,
            "packing": True,
            "max_length": 2048,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 3,  # as many tokens as 32 rows have
        },
        2.0,
    ),
}


class Tokens(NamedTuple):
    """A row: its token ids, and how many of them are its prompt's."""

    ids: NDArray[np.int64]
    prompt: int


def rows(settings: Settings) -> Iterator[Row]:
    count = ROWS_A_STEP if settings.small else 2 * ROWS_A_STEP
    tokenizer, data = _data(count)
    tokens = sum(len(row.ids) for row in data)
    with contextlib.ExitStack() as stack:
        ours, model = stack.enter_context(_adapter(settings, data))
        weights = copy.deepcopy(model.state_dict())
        for name, (options, goal) in WAYS.items():
            theirs = _trl(settings, tokenizer, data, options, weights)
            found = settings.contest().run(ours=ours, theirs=theirs)
            mine, other = found.results["ours"], found.results["theirs"]
            # With packing, the first token of a row that is not the first is predicted as well.
            near = 0.02 if options.get("packing") else 1e-3
            assert math.isclose(mine, other, rel_tol=near), f"{name}: losses {mine} and {other}"
            yield found.row(
                "ours",
                "theirs",
                what="supervised on GSM8K's lengths",
                against=f"TRL SFTTrainer, {name}",
                goal=at_least(goal),
                work=tokens,
                unit="tokens/s",
            )


def _data(count: int) -> tuple[Any, list[Tokens]]:
    """Return a tokenizer of GSM8K's texts, and the first rows as token ids."""
    if not DATA.exists():
        raise Skipped(f"the data set GSM8K is not in {DATA.parent}")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    read = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{row['question']}\n{row['answer']}" for row in read)
    backend.train_from_iterator(texts, trainer)
    end = backend.token_to_id("<|end|>")
    made = []
    for row in read[:count]:
        prompt = backend.encode(f"{row['question']}\n").ids
        answer = backend.encode(row["answer"]).ids
        made.append(Tokens(np.array([*prompt, *answer, end]), len(prompt)))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>"
    )
    return fast, made


@contextlib.contextmanager
def _adapter(
    settings: Settings, data: Sequence[Tokens]
) -> Iterator[tuple[Callable[[], float], Any]]:
    """Open a session; the way to train on all rows once returns the mean loss of a token. With it
    comes the model.
    """
    import torch
    from crucible_kitchen import AdamParams, Datum, ModelInput

    torch.set_num_threads(1)
    adam = AdamParams(beta2=0.999, grad_clip_norm=CLIP)
    with new_session(settings, SIZES) as (client, session):

        def train() -> float:
            losses, trained = [], 0
            for start in range(0, len(data), ROWS_A_STEP):
                batch = data[start : start + ROWS_A_STEP]
                count = sum(len(row.ids) - row.prompt for row in batch)
                datums = []
                for row in batch:
                    weights = np.zeros(len(row.ids) - 1, np.float32)
                    weights[row.prompt - 1 :] = 1 / count
                    read = ModelInput.from_ints(row.ids[:-1])
                    datums.append(Datum(read, {"target_tokens": row.ids[1:], "weights": weights}))
                loss = client.forward_backward(session, datums)
                client.await_(client.optim_step(session, 0.0, adam))
                losses.append(client.await_(loss).loss * count)
                trained += count
            return sum(losses) / trained

        yield train, session.engine.model


def _trl(
    settings: Settings,
    tokenizer: Any,
    data: Sequence[Tokens],
    options: dict[str, Any],
    weights: Any,
) -> Callable[[], float]:
    """Return a way to train on all rows once that returns the mean loss of a token."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, LlamaConfig
    from trl import SFTConfig, SFTTrainer

    logging.getLogger("trl").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
    model.load_state_dict(weights)
    masks = [[0] * row.prompt + [1] * (len(row.ids) - row.prompt) for row in data]
    columns = {"input_ids": [row.ids.tolist() for row in data], "completion_mask": masks}
    folder = tempfile.mkdtemp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = SFTConfig(
            **{
                "output_dir": folder,
                "per_device_train_batch_size": MICRO_BATCH,
                "gradient_accumulation_steps": ROWS_A_STEP // MICRO_BATCH,
                "num_train_epochs": 1,
                "learning_rate": 0.0,
                "max_grad_norm": CLIP,
                "completion_only_loss": True,
                "use_cpu": settings.device == "cpu",
                "bf16": False,
                "report_to": "none",
                "save_strategy": "no",
                "logging_steps": 1,
                "disable_tqdm": True,
                "dataloader_pin_memory": False,
                **options,
            }
        )
        trainer = SFTTrainer(
            model, config, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer
        )

    def train() -> float:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            return float(trainer.train().training_loss)

    return train
