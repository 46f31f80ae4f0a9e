"""Values that were typed at a shell: which of them are JSON, and what JSON was meant to be."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from ..extent import Unfit, from_json
from ..options.texts import Typed


def value_of(text: str) -> Any:
    """Return the value that a text stands for.

    Only `[...]` and `{...}` are JSON; any other text stays text, for the option's own type to
    convert. What begins like JSON but is not, such as the template `{question}`, stays text, too:
    where a table or a list is needed, `miswritten` explains what is wrong with it.

    Raises:
        Unfit: it is JSON, but more than a setting can be.
    """
    if text[:1] in ("[", "{"):
        with contextlib.suppress(json.JSONDecodeError):
            return from_json(text)
    return Typed(text)


def miswritten(value: Any) -> str:
    """Explain why a string that looks like JSON is not a table or list; "" if it does not.

    The explanation does not repeat the string, which may hold a secret.
    """
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return ""
    try:
        from_json(value)
    except json.JSONDecodeError as error:
        where = f"{error.msg[:1].lower()}{error.msg[1:]} at character {error.pos + 1}"
        return f"begins like JSON but is not valid: {where}; did the shell remove a quote?"
    except Unfit as error:
        return str(error)
    return "is JSON inside a string; write it without the quotes around it"
