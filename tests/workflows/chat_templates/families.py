"""Model families: their chat templates, and what has to be known of each to check a rendering.

Most templates are the real ones, which the wheel of TRL ships; those that it lacks are small
equivalents in this folder. Everything else here was written by hand, from reading the templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from crucible_adapter_torch.models.tokenizer import HuggingFaceTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TRL = Path(str(distribution("trl").locate_file("trl/chat_templates")))
OURS = Path(__file__).parent

_SPECIAL = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>|<\|[a-z_\"]+>|<[a-z_\"]+\|>"
    r"|<(?:start_of_turn|end_of_turn|end_of_utterance|sop)>"
    r"|\[(?:gMASK|/?AVAILABLE_TOOLS|TOOL_CALLS|/?TOOL_RESULTS)\]"
)
_PLAIN = re.compile(r"</?(?:think|tool_call|tool_response)>")


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models.

    Args:
        name: as people call it.
        file: of its template.
        end: what ends an answer.
        call_end: what ends an answer that calls a tool, where that is something else.
        bos, eos: the tokens of the tokenizer.
        special: further special tokens, which the template does not write.
        refuses: the kinds of conversation that it cannot show, and why: a part of the error.
        parts: whether content must be a list of parts.
        call_content: what the template needs as the content of a message that calls a tool.
        arguments_as_text: whether those of a tool call must be JSON text.
        thoughts_apart: whether a think block must be in a field of its own, not in the content.
        unasked: the end of the prompt that an answer has not, by kind; "" is any kind.
        given: what an answer begins with behind the prompt, and is not trained on, by kind.
        sentencepiece: whether the tokenizer puts a space before every text.
    """

    name: str
    file: Path
    end: str
    call_end: str | None = None
    bos: str = "<s>"
    eos: str = "</s>"
    special: tuple[str, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)
    parts: bool = False
    call_content: str | None = ""
    arguments_as_text: bool = False
    thoughts_apart: bool = False
    unasked: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    sentencepiece: bool = False

    @property
    def marked(self) -> bool:
        """Whether the template itself marks what is trained on."""
        return re.search(r"\{%-?\s*generation\b", self.source) is not None

    @cached_property
    def source(self) -> str:
        return self.file.read_text("utf-8")

    @cached_property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """A small tokenizer of the family's kind, with its special tokens and its template."""
        tokenizer = _sentencepiece() if self.sentencepiece else _byte_level()
        written = _SPECIAL.findall(self.source) if not self.sentencepiece else []
        special = dict.fromkeys([self.bos, self.eos, self.end, *self.special, *written])
        if self.call_end:
            special[self.call_end] = None
        tokenizer.add_special_tokens(
            [AddedToken(text, special=True, normalized=False) for text in special]
        )
        plain = dict.fromkeys(_PLAIN.findall(self.source))
        tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=self.bos,
            eos_token=self.eos,
            clean_up_tokenization_spaces=False,
        )
        fast.chat_template = self.source
        return HuggingFaceTokenizer(fast)


def _byte_level() -> Tokenizer:
    """Bytes, some of which join: across the border of a prompt and its answer, too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Ċ is a line break, Ġ a space.
    merges = [("Ċ", "Ċ"), (">", "Ċ"), ("Ġ", "B"), (":", "Ġ"), ("a", "n"), ("Ġ", "an"), ("e", "r")]
    vocab = {token: place for place, token in enumerate([*alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece() -> Tokenizer:
    """Characters, with a space before every text, as tokenizers of SentencePiece have it."""
    letters = ["<unk>", "▁", "\n", *map(chr, range(33, 127))]
    vocab = {token: place for place, token in enumerate([*letters, "▁▁"])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=[("▁", "▁")], unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _trl(name: str, file: str, end: str, **known: Any) -> Family:
    return Family(name, TRL / f"{file}.jinja", end, **known)


def _ours(name: str, file: str, end: str, **known: Any) -> Family:
    return Family(name, OURS / f"{file}.jinja", end, **known)


_NO_CALLS = {"tools": "leaves out a tool call"}
_NO_REASONING = {"reasoning": "leaves out reasoning_content"}
_NEITHER = {**_NO_CALLS, **_NO_REASONING}

_QWEN = {"eos": "<|im_end|>", "bos": "<|endoftext|>", "end": "<|im_end|>"}
_GEMMA = {"eos": "<eos>", "bos": "<bos>"}
_LLAMA = {"eos": "<|eot_id|>", "bos": "<|begin_of_text|>", "end": "<|eot_id|>"}

_INST = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")

# Prompts that open a think block, or write an empty one, which an answer may not have.
_THOUGHTFUL = {"": "<think>\n", "think": "", "reasoning": ""}
_DEEPSEEK = {"eos": "<｜end▁of▁sentence｜>", "bos": "<｜begin▁of▁sentence｜>"}

FAMILIES = (
    _trl(
        "Cohere Aya",
        "cohere",
        "<|END_OF_TURN_TOKEN|>",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        refuses=_NEITHER,
    ),
    _trl(
        "Cohere 2",
        "cohere2",
        "<|END_OF_TURN_TOKEN|>",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        refuses=_NEITHER,
    ),
    _trl(
        "DeepSeek R1 Distill",
        "deepseek_r1_distill",
        "<｜end▁of▁sentence｜>",
        **_DEEPSEEK,
        unasked=_THOUGHTFUL,
        refuses=_NO_CALLS,
    ),
    _trl(
        "DeepSeek V3",
        "deepseekv3",
        "<｜end▁of▁sentence｜>",
        **_DEEPSEEK,
        unasked=_THOUGHTFUL,
        arguments_as_text=True,
    ),
    _trl("DiffusionGemma", "diffusion_gemma", "<turn|>", call_end="<|tool_response>", **_GEMMA),
    _trl(
        "Gemma, Gemma 2",
        "gemma",
        "<end_of_turn>",
        **_GEMMA,
        refuses={**_NEITHER, "system": "System role not supported"},
    ),
    _trl("Gemma 3", "gemma3", "<end_of_turn>", **_GEMMA, refuses=_NEITHER),
    _trl(
        "Gemma 4", "gemma4", "<turn|>", call_end="<|tool_response>", **_GEMMA, refuses=_NO_REASONING
    ),
    _trl("Gemma 4, v2", "gemma4_v2", "<turn|>", **_GEMMA, refuses=_NO_REASONING),
    _trl(
        "Gemma 4, v3",
        "gemma4_v3",
        "<turn|>",
        call_end="<|tool_response>",
        **_GEMMA,
        refuses=_NO_REASONING,
    ),
    _trl(
        "Gemma 4, v4",
        "gemma4_v4",
        "<turn|>",
        call_end="<|tool_response>",
        **_GEMMA,
        refuses=_NO_REASONING,
    ),
    _trl("Gemma 4, v5", "gemma4_v5", "<turn|>", call_end="<|tool_response>", **_GEMMA),
    _trl("GLM-4.5", "glm4moe", "<|user|>", call_end="<|observation|>", eos="<|endoftext|>"),
    _trl(
        "gpt-oss",
        "gptoss",
        "<|return|>",
        call_end="<|call|>",
        eos="<|return|>",
        bos="<|startoftext|>",
    ),
    _trl("Idefics 3", "idefics3", "<end_of_utterance>", parts=True, refuses=_NEITHER),
    _trl("LFM 2", "lfm2", "<|im_end|>", bos="<|startoftext|>", eos="<|im_end|>", refuses=_NEITHER),
    _trl(
        "LFM 2, v2",
        "lfm2_v2",
        "<|im_end|>",
        bos="<|startoftext|>",
        eos="<|im_end|>",
        refuses=_NO_REASONING,
    ),
    _trl("LFM 2.5", "lfm2_2_5", "<|im_end|>", bos="<|startoftext|>", eos="<|im_end|>"),
    _trl("LFM 2.5, v2", "lfm2_2_5_v2", "<|im_end|>", bos="<|startoftext|>", eos="<|im_end|>"),
    _trl("LFM 2.5 VL", "lfm2_2_5_vl", "<|im_end|>", bos="<|startoftext|>", eos="<|im_end|>"),
    _trl("Llama 3", "llama3", **_LLAMA, refuses=_NEITHER),
    _trl("Llama 3.1", "llama3_1", **_LLAMA, refuses=_NO_REASONING),
    _trl("Llama 3.2", "llama3_2", **_LLAMA, refuses=_NO_REASONING),
    _trl("LLaVA-NeXT", "llava_next", "</s>", parts=True, refuses=_NEITHER),
    _trl("Muse Glimmer", "muse_glimmer", "<|eot|>", eos="<|eot|>", bos="<|begin_of_text|>"),
    _trl(
        "Nemotron 3 Nano",
        "nemotron_3_nano",
        **_QWEN,
        unasked={"": "\n", "think": "", "reasoning": ""},
    ),
    _trl(
        "Nemotron 3 Super",
        "nemotron_3_super",
        **_QWEN,
        unasked={"": "\n", "think": "", "reasoning": ""},
    ),
    _trl(
        "Nemotron 3 Ultra",
        "nemotron_3_ultra",
        **_QWEN,
        unasked={"": "\n", "think": "", "reasoning": ""},
    ),
    _trl(
        "Nemotron 3.5 Lightning",
        "nemotron_3_5_lightning",
        **_QWEN,
        unasked={"": "\n", "think": "", "reasoning": ""},
    ),
    _trl("Phi-3", "phi3", "<|end|>", eos="<|endoftext|>", refuses=_NEITHER),
    _trl("Phi-3.5", "phi3_5", "<|end|>", eos="<|endoftext|>", refuses=_NEITHER),
    _trl("Qwen 2.5", "qwen2_5", **_QWEN, refuses=_NO_REASONING),
    _trl(
        "Qwen 2.5, base",
        "qwen2_5",
        "<|im_end|>",
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        refuses=_NO_REASONING,
    ),
    _trl("Qwen 2.5 VL", "qwen2_5_vl", **_QWEN, refuses=_NEITHER),
    _trl("Qwen 3", "qwen3", **_QWEN),
    _trl("Qwen 3 Instruct 2507", "qwen3_instruct_2507", **_QWEN, refuses=_NO_REASONING),
    _trl("Qwen 3 VL", "qwen3_vl", **_QWEN, refuses=_NO_REASONING),
    _trl(
        "Qwen 3.5, not thinking",
        "qwen3_5_nothink",
        **_QWEN,
        unasked={"think": "<think>\n\n</think>\n\n", "reasoning": "\n\n</think>\n\n"},
    ),
    _trl("Qwen 3.5, thinking", "qwen3_5_think", **_QWEN),
    _trl("Qwen 3.6", "qwen3_6", **_QWEN),
    _trl("Qwen 3.8", "qwen3_8", **_QWEN, thoughts_apart=True),
    _trl(
        "SmolVLM",
        "smolvlm",
        "<end_of_utterance>",
        eos="<end_of_utterance>",
        parts=True,
        refuses=_NEITHER,
    ),
    _ours("Alpaca", "alpaca", "</s>", refuses=_NEITHER),
    _ours("ChatML, base", "chatml", "<|im_end|>", eos="<|endoftext|>", refuses=_NEITHER),
    _ours(
        "DeepSeek V3.1",
        "deepseek_v3_1",
        "<｜end▁of▁sentence｜>",
        **_DEEPSEEK,
        refuses={**_NEITHER, "think": "leaves out the text"},
    ),
    _ours("Falcon", "falcon", "<|endoftext|>", eos="<|endoftext|>", refuses=_NEITHER),
    _ours(
        "GLM-4",
        "glm4",
        "<|user|>",
        call_end="<|observation|>",
        eos="<|endoftext|>",
        special=("<|assistant|>",),
        refuses=_NO_REASONING,
    ),
    _ours(
        "Granite 3",
        "granite",
        "<|end_of_text|>",
        eos="<|end_of_text|>",
        bos="<|end_of_text|>",
        refuses=_NO_REASONING,
    ),
    _ours("Llama 2", "llama2", "</s>", sentencepiece=True, refuses=_NEITHER),
    _ours("Mistral", "mistral", "</s>", special=_INST, refuses=_NO_REASONING),
    _ours(
        "Mistral, SentencePiece",
        "mistral",
        "</s>",
        special=_INST,
        sentencepiece=True,
        refuses=_NO_REASONING,
    ),
    _ours(
        "OpenChat, Starling",
        "openchat",
        "<|end_of_turn|>",
        eos="<|end_of_turn|>",
        refuses={**_NEITHER, "system": "Unknown role system"},
    ),
    _ours("QwQ", "qwq", **_QWEN, unasked=_THOUGHTFUL, refuses=_NO_CALLS),
    _ours("Vicuna", "vicuna", "</s>", sentencepiece=True, refuses=_NEITHER),
    _ours("Zephyr", "zephyr", "</s>", refuses=_NEITHER),
)

_OTHERWISE: Mapping[str, Mapping[str, Any]] = {
    "DeepSeek V3": {"arguments_as_text": False},
    # The mark leaves out the token that hands over to the tool.
    "DiffusionGemma": {"call_end": "<tool_call|>", "given": {"tools": "<|turn>model\n"}},
    "Qwen 3.5, not thinking": {
        "unasked": {"think": "\n\n</think>\n\n", "reasoning": "\n\n</think>\n\n"}
    },
}
"""What is otherwise where a template of TRL's has marks."""


def _marked(family: Family) -> Family | None:
    """Return a family with the template that TRL trains it with, where it has one: the same, with
    marks around what is trained on.
    """
    file = family.file.with_stem(f"{family.file.stem}_training")
    changed = {"name": f"{family.name}, marked", "file": file, **_OTHERWISE.get(family.name, {})}
    return replace(family, **changed) if file.exists() else None


MARKED = tuple(filter(None, map(_marked, FAMILIES)))
