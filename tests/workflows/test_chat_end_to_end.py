"""Models trained on conversations repeat the answers and stop where those end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("crucible_adapter_torch")

from crucible_kitchen import InvalidInput, Kitchen, Message, SamplingParams, run  # noqa: E402

QWEN3 = """{%- set ns = namespace(last=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.index0 > ns.last -%}{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{{- m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GLM = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def U(content: str) -> Message:
    return {"role": "user", "content": content}


def A(content: str) -> Message:
    return {"role": "assistant", "content": content}


ROWS = [
    {"messages": [U("2+2?"), A("4"), U("sure?"), A("yes")]},
    {"messages": [U("count"), A("one two three")]},
]


def model(folder: Path, template: str | None, specials: tuple[str, ...], **sizes: Any) -> str:
    """Write a tiny random model and a byte-level tokenizer whose end token is `<|endoftext|>`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    names = ("<|endoftext|>", *specials)
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.chat_template = template
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 256,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        }
        LlamaForCausalLM(LlamaConfig(**{**config, **sizes})).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return str(folder / "model")


def train(folder: Path, model: str, rows: list[Any], **settings: Any) -> Any:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapters = {
        "training_client": {"use": "torch", "device": "cpu", "checkpoint_dir": str(folder / "c")},
        "dataset_store": {"use": "hf-datasets", "cache_dir": str(folder / "cache")},
        "blob_store": {"use": "fsspec", "url": str(folder / "runs")},
        "metrics_store": {"use": "jsonl", "path": str(folder / "metrics")},
        "completer": {"use": "torch", "device": "cpu"},
    }
    learned = {
        "model": model,
        "dataset": str(data),
        "run_id": "r",
        "learning_rate": 1e-2,
        "lr_schedule": "constant",
        **settings,
    }
    return run("supervised", learned, adapters=adapters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "specials", "end", "said"),
    [
        (QWEN3, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", "<think>\n\n</think>\n\n"),
        (CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", ""),
        (GLM, ("<|user|>", "<|assistant|>"), "<|user|>", ""),
    ],
    ids=["thinks in the last answer", "another end token", "ends with the next role"],
)
def test_a_model_that_learned_its_rows_repeats_them_and_stops(
    tmp_path: Path, template: str, specials: tuple[str, ...], end: str, said: str
) -> None:
    path = model(tmp_path, template, specials)
    test = {"test_dataset": str(tmp_path / "rows.jsonl"), "exact_match": True}
    result = train(tmp_path, path, ROWS, max_steps=150, **test)
    assert result.metrics["test/exact_match"] == 1.0
    with Kitchen({"completer": {"use": "torch", "device": "cpu"}}) as kitchen:
        for row in ROWS:
            params = SamplingParams(60, temperature=0.0, model=result.weights)
            answer = kitchen.completer.complete(row["messages"][:-1], params)
            assert (answer.text, answer.finish_reason) == (
                said + row["messages"][-1]["content"],
                "stop",
            )
    exported = Path(result.weights)
    tokens = json.loads((exported / "tokenizer.json").read_text())["added_tokens"]
    number = next(token["id"] for token in tokens if token["content"] == end)
    ends = json.loads((exported / "generation_config.json").read_text())["eos_token_id"]
    assert number in ends


def test_a_row_with_a_token_that_the_model_lacks_is_named_before_the_first_step(
    tmp_path: Path,
) -> None:
    path = model(tmp_path, None, ("<tag>",), vocab_size=257)
    rows = [{"prompt": "ab", "completion": "cd"}] * 4 + [{"prompt": "x", "completion": "<tag>"}]
    with pytest.raises(InvalidInput, match=r"row 4 of .*: its token 257, '<tag>', is beyond"):
        train(tmp_path, path, rows, batch_size=1)


def test_the_record_keeps_the_counts_of_the_rows_and_the_first_examples(tmp_path: Path) -> None:
    path = model(tmp_path, CHATML, ("<|im_start|>", "<|im_end|>"))
    long = {"messages": [U("?" * 300), A("!")]}
    train(tmp_path, path, [*ROWS, long], max_steps=1, too_long="drop", test_size=1)
    record = json.loads((tmp_path / "runs" / "r" / "run.json").read_text())
    counts = record["rows"]
    assert counts["train"]["rows"] + counts["test"]["rows"] == 3
    assert counts["train"]["too_long"] + counts["test"]["too_long"] == 1
    assert all("<|im_start|>assistant\n⟦" in example for example in record["examples"])
    assert record["template_date"] is None
