"""What a rendering depends on, as a digest."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ... import chat
from ...chat import tokenization
from ...errors import AdapterError
from ...types import Tokenizer
from ...version import __version__
from . import examples, judge, rendering
from .judge import Judge

_CODE = (
    tokenization,
    *(module for name, module in vars(chat).items() if isinstance(module, ModuleType)),
    examples,
    judge,
    rendering,
)
_LIBRARIES = ("jinja2", "tokenizers", "transformers")

_PROBES = (
    "",
    " a",
    "The quick brown fox jumps over the lazy dog.\n\n\t0123456789 1,234.5e-6",
    "def f(x):\n    return {'a': [x, None], \"b\": x ** 2}  # != <>|&%$~`^\\",
    "Ünïcödé Ελληνικά Русский עברית العربية हिन्दी 中文 日本語 한국어 👩‍🚀 \u200b\u00a0\ufeff",
    "<s></s><|im_start|>user<|im_end|><think></think>[INST]<unk><pad>",
)
_DECODED = 4096
"""Token ids whose texts are a part of a tokenizer's digest."""


def key(judge: Judge, rows: str) -> str:
    """Return a digest of everything that the sequences of rows depend on.

    The rows; the tokenizer and its chat template; the settings; the date, where the template
    writes it; this package's code that renders, and the versions of the libraries that it calls.

    Args:
        judge: renders the rows.
        rows: a digest of them.
    """
    template = judge.renderer.template
    reader = judge.reader
    about = {
        "rows": rows,
        "tokenizer": template.once("digest", lambda: tokenizer_digest(template.tokenizer)),
        "settings": [
            *(reader.prompt, reader.completion, reader.messages_field, reader.text_field),
            *(judge.renderer.train_on, judge.too_long, judge.limit),
            repr(sorted(template.kwargs.items())),
        ],
        "date": template.today.isoformat() if template.writes_date else None,
        "code": [_source(module) for module in _CODE],
        "libraries": [getattr(sys.modules.get(name), "__version__", None) for name in _LIBRARIES],
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return a digest of a tokenizer: of its contents if it can write them, as those of
    Transformers can, and always of what it makes of texts, tokens and a conversation.
    """
    about = {
        "class": f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
        "code": _source(sys.modules.get(type(tokenizer).__module__)),
        "contents": _contents(tokenizer),
        "tokens": [
            tokenizer.eos_token_id,
            tokenizer.vocab_size,
            getattr(tokenizer, "model_vocab_size", None),
        ],
        "template": repr(getattr(tokenizer, "chat_template", None)),
        "encoded": [
            tokenizer.encode(text, add_special_tokens=special)
            for text in _PROBES
            for special in (False, True)
        ],
        "decoded": _decoded(tokenizer),
        "conversations": [_conversation(tokenizer, generate) for generate in (False, True)],
    }
    return hashlib.sha256(json.dumps(about, default=repr).encode()).hexdigest()


def _contents(tokenizer: Any) -> str | None:
    for each in (tokenizer, getattr(tokenizer, "tokenizer", None)):
        backend = getattr(each, "backend_tokenizer", None)
        if callable(write := getattr(backend, "to_str", None)):
            return str(write())
    return None


def _decoded(tokenizer: Tokenizer) -> list[str]:
    step = max(1, tokenizer.vocab_size // _DECODED)
    texts = []
    for token in range(0, tokenizer.vocab_size, step):
        try:
            texts.append(tokenizer.decode([token]))
        except Exception as error:  # an id within the vocabulary that has no token
            texts.append(type(error).__name__)
    return texts


def _conversation(tokenizer: Tokenizer, generate: bool) -> Any:
    said: list[Mapping[str, Any]] = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3 + 3?"},
    ]
    try:
        return list(tokenizer.apply_chat_template(said, add_generation_prompt=generate))  # type: ignore[arg-type]
    except AdapterError as error:
        return type(error).__name__
    except Exception as error:  # each template has its own checks and exceptions
        return type(error).__name__


def _source(module: ModuleType | None) -> str:
    try:
        source = "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):  # of a module without a file
        source = __version__
    return hashlib.sha256(source.encode()).hexdigest()
