"""What a rendering depends on, as a digest."""

from __future__ import annotations

import datetime
import functools
import hashlib
import inspect
import json
import sys
from importlib import metadata
from types import ModuleType
from typing import Any

from ... import chat
from ...chat import ChatMessage, ChatTemplate, tokenization
from ...errors import AdapterError
from ...types import Tokenizer
from ...version import __version__
from . import examples, judge, layout, pairs, rendering
from .judge import Judge

_CODE = (
    tokenization,
    *(module for name, module in vars(chat).items() if isinstance(module, ModuleType)),
    examples,
    judge,
    layout,
    pairs,
    rendering,
)
_LIBRARIES = (
    *("jinja2", "tokenizers", "transformers"),
    *("sentencepiece", "tiktoken", "mistral_common"),  # of tokenizers that are not fast
)
_A_DAY = datetime.date(2000, 1, 1)

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
    about = {
        "rows": rows,
        "tokenizer": template.once("digest", lambda: tokenizer_digest(template.tokenizer)),
        "settings": [
            repr(judge.reader),
            *(judge.renderer.train_on, judge.too_long, judge.limit),
            repr(sorted(template.kwargs.items())),
        ],
        "date": template.today.isoformat() if template.writes_date else None,
        "code": [_source(module) for module in _CODE],
        "libraries": _versions(),
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


@functools.cache
def _versions() -> list[str | None]:
    """Return the versions that are installed, imported or not: jinja2, for one, is imported by the
    first conversation that is rendered, and not where all of them were kept.
    """
    versions: list[str | None] = []
    for name in _LIBRARIES:
        try:
            versions.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            versions.append(None)
    return versions


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return a digest of a tokenizer: of its contents if it can write them, as those of
    Transformers can, and always of what it makes of texts, tokens and a conversation.
    """
    about = {
        "class": f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
        "code": _package(type(tokenizer).__module__),
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
    said: list[ChatMessage] = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3 + 3?"},
    ]
    try:
        # On a fixed day, since the digest of a template that writes the date is the same every day.
        return ChatTemplate(tokenizer, {}, date=_A_DAY).render(said, generate=generate).ids
    except AdapterError as error:
        return type(error).__name__
    except Exception as error:  # each template has its own checks and exceptions
        return type(error).__name__


def _package(module: str) -> list[str]:
    """Return what the code of a tokenizer is known by: its package, as far as it is imported."""
    root = module.partition(".")[0]
    if root in _LIBRARIES:  # known by its version
        return [_source(sys.modules.get(module))]
    loaded = [name for name in sys.modules if name == root or name.startswith(f"{root}.")]
    return [_source(sys.modules[name]) for name in sorted(loaded)]


def _source(module: ModuleType | None) -> str:
    try:
        source = "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):  # of a module without a file
        source = __version__
    return hashlib.sha256(source.encode()).hexdigest()
