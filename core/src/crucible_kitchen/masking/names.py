"""Which names say that their value is a secret."""

from __future__ import annotations

import numbers
import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote


def _words(name: str) -> list[str]:
    """Split `X-Api-Key`, `apiKey`, `APIKey` and `api_key` into their words."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[a-z]+", parted.lower())


_SECRET = frozenset(
    _words(
        "auth authentication authorization bearer cookie cookies cred creds credential credentials "
        "hmac jwt otp passcode passphrase passwd password passwords pat pin psk pwd sas "
        "secret secrets session sessionid sig signature signatures ticket"
    )
)
_WITHIN = _words(
    "accesskey accountkey apikey authkey authtoken credential passphrase passwd password "
    "privatekey secret sessionid sessid sharedkey signature signingkey sslkey userpwd"
)

# Keys and tokens are secret next to some words: `hub_token` is; `eos_token`, `sort_key` are not.
_WITH_KEY = frozenset(
    _words(
        "access account admin anthropic api app application auth authorization aws azure client "
        "cohere consumer customer deepseek deploy encryption fernet gemini groq hf host kms "
        "license master mistral my openai openrouter personal private rsa service shared signing "
        "sse ssh storage subscription tls together user wandb write x"
    )
)
_WITH_TOKENS = frozenset(
    _words("access api auth bearer csrf github gitlab hf hub id oauth refresh security")
)
_NO_SECRET_TOKEN = frozenset(
    _words(
        "added audio begin bos chat cls decoder end eos first forced image last mask max min new "
        "next num number pad per prefix sep sequence special start stop suffix text think tool "
        "unk video"
    )
)
_IN_A_QUERY = frozenset(_words("code policy se"))


@lru_cache(maxsize=4096)
def says_secret(name: str) -> bool:
    """Say whether a key of a free table, or a header, names a secret."""
    words = _words(name)
    if not words:
        return False
    if not _SECRET.isdisjoint(words) or any(part in "".join(words) for part in _WITHIN):
        return True
    *before, last = words
    if last == "pass":  # `db_pass`, but not `pass_rate`, nor `pass@1`
        return "@" not in name
    if last in ("key", "keys"):
        return (not before and last == "key") or not _WITH_KEY.isdisjoint(before)
    if last == "tokens":
        return not _WITH_TOKENS.isdisjoint(before)
    return last.endswith("token") and _NO_SECRET_TOKEN.isdisjoint([*before, last[:-5]])


_ALSO_PLAIN = frozenset(_words("key pin session signature ticket"))


def says_secret_in_a_text(name: str) -> bool:
    """Say whether `name=value` shows a secret; in code and its errors, some names are usual."""
    last = name.rpartition(".")[2]
    return last.lower() not in _ALSO_PLAIN and says_secret(last)


@lru_cache(maxsize=4096)
def says_secret_in_a_query(name: str) -> bool:
    """Say whether a parameter of a URL names a secret: keys and parts of signatures do."""
    words = _words(unquote(name))
    last = words[-1] if words else ""
    return (
        says_secret(unquote(name))
        or last.endswith(("key", "token"))
        or "key" in words
        or (len(words) == 1 and last in _IN_A_QUERY)
        or words[-2:] == ["access", "id"]
    )


def names_secret(name: object) -> bool:
    """Say whether a key of a table, which need not be a string, names a secret."""
    return isinstance(name, str) and says_secret(name)


def counts(name: str, value: Any) -> bool:
    """Say whether a value is a plain number: the id of a token, as `token = 17` in an error, or a
    measurement, as `secret_recall = 0.5` among metrics.
    """
    if isinstance(value, numbers.Integral):
        return name.lower().endswith(("token", "tokens", "key"))
    return isinstance(value, numbers.Real)
