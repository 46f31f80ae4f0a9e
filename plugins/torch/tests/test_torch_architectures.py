"""What works with each architecture that Transformers has a causal language model of.

The list is Transformers' own. A dozen that stand for the kinds are tried in every run, all of them
by `tox -e architectures`; what is found is what docs/reference/architectures.md says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import crucible_adapter_torch.completer as torch_completer
import crucible_adapter_torch.training_client as torch_training_client
import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    Completion,
    Datum,
    IntArray,
    InvalidInput,
    Kitchen,
    LoraConfig,
    ModelInput,
    SamplingParams,
    SessionConfig,
    Unsupported,
)

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "architectures.md"
COLUMNS = ("full", "LoRA", "alone", "batch", "score", "resume", "export")

KINDS = (
    "llama",  # the plain decoder
    "gpt2",  # learned positions, transposed projections
    "gemma3_text",  # layers of two kinds of attention
    "bert",  # an encoder that can be a decoder
    "roberta",  # positions that begin behind the padding
    "bart",  # half of an encoder-decoder
    "mixtral",  # experts
    "deepseek_v3",  # shared experts, latent attention
    "gpt_oss",  # transposed experts, sinks
    "mamba",  # a state, no attention
    "jamba",  # layers with a state, and with attention
    "openai-gpt",  # no cache
)

SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "pad_token_id": 1,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    # width and depth
    "hidden_size": 32,
    "d_model": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_hidden_layers": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    # attention
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "head_dim": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # states
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
    "chunk_size": 8,
    "n_groups": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # images
    "image_size": 16,
    "patch_size": 8,
}
"""Sizes by the names that configurations give them; each takes those that it has."""

IMAGES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
LATENT = {"head_dim": 4, "num_key_value_heads": 4, "index_head_dim": 8, "index_n_heads": 2}
TEXT_MODEL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
PER_LAYER = {
    "vocab_size_per_layer_input": 260,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
}

EXTRAS: dict[str, dict[str, Any]] = {
    "axk2": LATENT,
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), ROPE),
    },
    "codegen": {"rotary_dim": 4},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "n_heads": 4,
        "n_layers": 2,
    },
    "deepseek_v32": LATENT,
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "fuyu": {"text_config": {"model_type": "persimmon", **TEXT_MODEL}},
    "gemma3": {"vision_config": {"model_type": "siglip_vision_model", **IMAGES}},
    "gemma3n_text": {**PER_LAYER, "laurel_rank": 8, "activation_sparsity_pattern": [0.0, 0.0]},
    "gemma4": {"text_config": PER_LAYER, "vision_config": {"position_embedding_size": 16}},
    "gemma4_text": PER_LAYER,
    "glm4_moe_lite": {"head_dim": 4, "num_key_value_heads": 4},
    "glm_moe_dsa": LATENT,
    "got_ocr2": {"text_config": {"model_type": "qwen2", **TEXT_MODEL}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {
        "num_layers": 1,
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 16,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "head_dim": 4,
    },
    "mamba2": {"num_heads": 4, "head_dim": 16, "expand": 2},
    "moshi": {"audio_vocab_size": 32},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8},
    "roc_bert": {
        "pronunciation_vocab_size": 260,
        "pronunciation_embed_dim": 8,
        "shape_vocab_size": 260,
        "shape_embed_dim": 8,
    },
    "xlnet": {"n_head": 4, "d_inner": 48, "d_head": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "use_mamba_kernels": False,
        "num_key_value_heads": 4,
        "attention_head_dim": 16,
        "n_mamba_heads": 2,
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"],
        "use_mamba_kernels": False,
        "n_mamba_heads": 4,
        "num_key_value_heads": 4,
        "adapter_rank": 4,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
}
"""What an architecture needs in addition, or instead."""

NOT_TINY: dict[str, str] = {
    "blt": "its four parts want sizes that fit each other",
    "dots3_note": "it is dots3_note_text with parts for images and sound",
    "reformer": "it trains on rows of a multiple of its chunk length alone",
    "gemma3n": "its vision tower needs the package timm",
    "gemma4_assistant": "it drafts for another model, whose states it reads",
    "gemma4_unified_assistant": "it drafts for another model, whose states it reads",
    "gemma4_unified": "its smallest vision part has 15 million weights",
    "moss_transcribe_diarize": "it transcribes speech; its text model is a qwen3",
    "musicgen": "its configuration has no text model, but one that writes sound",
    "musicgen_melody": "its configuration has no text model, but one that writes sound",
    "phi4_multimodal": "its smallest audio part has 6 million weights",
}
"""Architectures that are not tried, and why."""


def architectures() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def sizes_of(model_type: str) -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return _merged(_sizes(CONFIG_MAPPING[model_type]), EXTRAS.get(model_type, {}))


def _sizes(kind: Any) -> dict[str, Any]:
    known = {*kind.__dataclass_fields__, *kind.attribute_map}
    sizes: dict[str, Any] = {}
    for name, size in SIZES.items():
        if name in known and kind.attribute_map.get(name, name) not in sizes:
            sizes[name] = size
    for name, part in (kind.sub_configs or {}).items():
        if hasattr(part, "__dataclass_fields__"):
            sizes[name] = _sizes(part)
    return sizes


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    sizes = dict(base)
    for key, value in more.items():
        nested = isinstance(value, dict) and isinstance(sizes.get(key), dict)
        sizes[key] = _merged(sizes[key], value) if nested else value
    return {key: value for key, value in sizes.items() if value != "-"}


# --- one architecture ---

TEXT = np.random.default_rng(0).integers(2, 250, (4, 20))
PROMPTS = [TEXT[0, :6].tolist(), TEXT[1, :3].tolist(), TEXT[2, :9].tolist()]
EXACT, ROUNDED = 1e-5, 1e-3


class Wrong(Exception):
    """A result that is not what it should be, with no error."""


def datum(ids: Any) -> Datum:
    ids = np.asarray(ids)
    weights = np.ones(len(ids) - 1, np.float32)
    return Datum(ModelInput.from_ints(ids[:-1]), {"target_tokens": ids[1:], "weights": weights})


class Trial:
    """Everything that is done with a model of one architecture."""

    def __init__(self, kitchen: Kitchen, lora: LoraConfig | None) -> None:
        self.client, self.completer = kitchen.training_client, kitchen.completer
        self.lora = lora
        self.session = self.client.start_session(SessionConfig("tiny", lora=lora))

    def forward(self, ids: Any, session: Any = None) -> Any:
        done = self.client.await_(self.client.forward(session or self.session, [datum(ids)]))
        return done.outputs[0]["logprobs"]

    def step(self, session: Any = None) -> None:
        session = session or self.session
        self.client.forward_backward(session, [datum(row) for row in (*TEXT, TEXT[0, :7])])
        self.client.await_(self.client.optim_step(session, 3e-3))

    def train(self) -> None:
        before = self.forward(TEXT[0])
        for _ in range(4):
            self.step()
        after = self.forward(TEXT[0])
        if not after.sum() > before.sum():
            raise Wrong(f"the loss did not fall: {-before.sum():g} to {-after.sum():g}")
        other = TEXT[0].copy()
        other[12:] = TEXT[1, 12:]
        _equal(self.forward(other)[:11], after[:11], "a later token changes an earlier logprob")
        rows = [TEXT[0, :7], TEXT[1], TEXT[2, :13]]
        together = self.client.await_(self.client.forward(self.session, [datum(r) for r in rows]))
        for row, found in zip(rows, together.outputs, strict=True):
            _equal(found["logprobs"], self.forward(row), "another row changes a logprob")

    def sample(self, prompts: list[list[int]]) -> None:
        live = self.client.save_weights_for_sampler(self.session)
        params = SamplingParams(8, temperature=0, stop=(), logprobs=True, model=live)
        for prompt, answer in zip(
            prompts, self.completer.complete_batch(prompts, params), strict=True
        ):
            if isinstance(answer, AdapterError):
                raise answer
            true = self.forward([*prompt, *_tokens(answer)])[len(prompt) - 1 :]
            _equal(answer.logprobs, true, "a sampled logprob is not that of the forward pass")

    def score(self) -> None:
        live = self.client.save_weights_for_sampler(self.session)
        rows = [TEXT[0, :7], TEXT[1]]
        for row, found in zip(rows, self.completer.score(rows, live), strict=True):
            _equal(found, self.forward(row), "a score is not that of the forward pass")

    def resume(self) -> None:
        reference = self.client.save_checkpoint(self.session, "x")
        self.step()
        expected = self.forward(TEXT[0])
        config = SessionConfig(
            "tiny", lora=self.lora, from_checkpoint=reference, with_optimizer=True
        )
        again = self.client.start_session(config)
        self.step(again)
        if not np.array_equal(self.forward(TEXT[0], again), expected):
            raise Wrong("a resumed session continues differently")
        self.client.close_session(again)

    def export(self) -> None:
        folder = self.client.save_weights_for_sampler(self.session, "exported")
        expected = self.forward(TEXT[0])
        [found] = self.completer.score([TEXT[0]], folder)
        _equal(found, expected, "the exported weights are others")
        again = self.client.start_session(SessionConfig(folder))
        _equal(self.forward(TEXT[0], again), expected, "a session from them has others")
        self.client.close_session(again)


def _tokens(answer: Completion) -> IntArray:
    assert answer.tokens is not None
    return answer.tokens


def _equal(found: Any, expected: Any, otherwise: str) -> None:
    apart = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
    if not apart < ROUNDED:
        raise Wrong(f"{otherwise}, by {apart:.2g}")


def row_of(model_type: str, folder: Path) -> dict[str, str]:
    """Return what is found, by column: "yes", "refused: ...", "wrong: ..." or "-"."""
    shared = {
        "device": "cpu",
        "models": {"tiny": {"model_type": model_type, **sizes_of(model_type)}},
    }
    client = {"use": torch_training_client, "checkpoint_dir": folder, **shared}
    completer = {"use": torch_completer, **shared}
    row = dict.fromkeys(COLUMNS, "-")

    with Kitchen(adapters={"training_client": client, "completer": completer}) as kitchen:

        def whole() -> Trial:
            trial = Trial(kitchen, None)
            trial.train()
            return trial

        row["full"], trial = _cell(whole)
        if trial is None:
            return row
        row["alone"], _ = _cell(lambda: trial.sample(PROMPTS[:1]))
        row["batch"], _ = _cell(lambda: trial.sample(PROMPTS))
        row["score"], _ = _cell(trial.score)
        row["resume"], _ = _cell(trial.resume)
        row["export"], _ = _cell(trial.export)

        def low_rank() -> None:
            trial = Trial(kitchen, LoraConfig(rank=4))
            trial.train()
            trial.score()
            trial.resume()
            if row["export"] == "yes":
                trial.export()

        row["LoRA"], _ = _cell(low_rank)
    return row


def _cell(run: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "yes", run()
    except (Unsupported, InvalidInput) as error:
        return f"refused: {_plain(error.reason)}", None
    except Wrong as error:
        return f"wrong: {error}", None
    except AdapterError as error:
        return f"failed: {type(error.__cause__ or error).__name__}: {_plain(error.reason)}", None


def _plain(reason: str) -> str:
    """Return a reason without names and numbers of the trial, in one line that a table can hold."""
    reason = re.sub(r"model '[^']*'", "the model", reason)
    reason = re.sub(r" \(log probabilities .*\)$", "", reason)
    return re.sub(r"[|<>\s]+", " ", reason)


# --- the page ---

INTRODUCTION = """\
# Architectures

What the adapter `torch` does with each architecture for which Transformers {version} has a causal
language model: a tiny model with random weights for each, {tried} of {there}. This page is made by
`tox -e architectures -- --architectures write`, and `tox -e architectures` fails if it finds
something else. A dozen of them, one of each kind, are tried whenever the tests of the adapter run.

- **full**: every weight is trained. The loss falls, no logprob depends on a later token or on
  another row.
- **LoRA**: the same with `lora` and its default targets, and everything below except sampling.
- **alone**, **batch**: the logprobs of sampled tokens are those of the trainer's `forward`, of one
  prompt and of several lengths.
- **score**: so are those of `score`.
- **resume**: a session from a checkpoint continues to the bit.
- **export**: weights that are saved with a name, loaded by both ports, are the same.

✓ right; a number: refused with an error, for the reason below the table; – not tried, because
the model was refused.
"""


def page_of(rows: dict[str, dict[str, str]]) -> str:
    notes: dict[str, int] = {}

    def sign(cell: str) -> str:
        if cell == "yes":
            return "✓"
        return "–" if cell == "-" else f"[{notes.setdefault(cell, len(notes) + 1)}]"

    lines = [
        f"| {name} | " + " | ".join(sign(row[column]) for column in COLUMNS) + " |"
        for name, row in sorted(rows.items())
    ]
    head = INTRODUCTION.format(
        version=version("transformers"), tried=len(rows), there=len(rows) + len(NOT_TINY)
    )
    return "\n".join(
        [
            head,
            "| `model_type` | " + " | ".join(COLUMNS) + " |",
            "| --- " * (len(COLUMNS) + 1) + "|",
            *lines,
            "",
            "## Reasons",
            "",
            *(f"- [{number}] {reason}" for reason, number in notes.items()),
            "",
            "## Not tried",
            "",
            *(f"- {name}: {reason}" for name, reason in sorted(NOT_TINY.items())),
            "",
        ]
    )


@cache
def page() -> tuple[str, dict[str, dict[str, str]]]:
    """Return the text of the page and the rows that it shows."""
    text = PAGE.read_text(encoding="utf-8")
    reasons = dict(re.findall(r"^- (\[\d+\]) (.*)$", text, flags=re.MULTILINE))
    cells = {"✓": "yes", "–": "-", **reasons}
    rows = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"\| (\w[\w-]*) \| (.*) \|", line):
            found = [cells[cell] for cell in match[2].split(" | ")]
            rows[match[1]] = dict(zip(COLUMNS, found, strict=True))
    return text, rows


FOUND: dict[str, dict[str, str]] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--architectures")
        known = [name for name in architectures() if name not in NOT_TINY]
        metafunc.parametrize("architecture", known if everything else KINDS)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str | None:
    mode: str | None = request.config.getoption("--architectures")
    return mode


@pytest.mark.filterwarnings("ignore")  # each architecture has its own
def test_an_architecture_does_what_the_page_says(
    architecture: str, tmp_path: Path, mode: str | None
) -> None:
    row = FOUND[architecture] = row_of(architecture, tmp_path)
    bad = {column: cell for column, cell in row.items() if cell.startswith(("wrong", "failed"))}
    assert bad == {}
    if mode != "write":
        assert row == page()[1].get(architecture)


def test_the_page_says_what_was_found(mode: str | None) -> None:
    if mode is None:
        text, rows = page()
        assert set(rows) | set(NOT_TINY) == set(architectures())
        assert page_of(rows) == text
    elif mode == "write":
        PAGE.write_text(page_of(FOUND), encoding="utf-8")
    else:
        assert page_of(FOUND) == page()[0]
