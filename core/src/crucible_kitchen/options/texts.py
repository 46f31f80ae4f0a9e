"""Types of options that are text, and text that was typed at a shell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints

from ..extent import from_json


class Typed(str):
    """Text that was typed at a shell: given on the command line or in an environment variable."""

    __slots__ = ()


_ESCAPED = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def _unescaped(value: Any) -> Any:
    if not isinstance(value, Typed):
        return value
    return re.sub(r"\\[nt\\]", lambda found: _ESCAPED[found[0]], value)


Template = Annotated[str, BeforeValidator(_unescaped)]
"""The type of a text that may hold line breaks, such as the template of a prompt.

A shell has no plain way to write them, so on the command line and in environment variables `\\n`
is a line break here, `\\t` a tab and `\\\\` a backslash. Files and code have their own way: their
texts stay as they are, and so do the values of other types, such as the path `C:\\new`.
"""


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    if not isinstance(value, Typed):
        return value
    try:
        found = from_json(value)
    except json.JSONDecodeError:
        return str(value)
    return str(value) if isinstance(found, str) else found


Keyword = Annotated[Any, BeforeValidator(_as_json)]
"""The type of a value that is passed on to something else, which alone knows its type.

    chat_template_kwargs: dict[str, Keyword] = {}

Other text from the command line and from environment variables is converted by the type of its
field. Here it is read as JSON, such as `false` or `96`; text that is not JSON stays text.
"""

Name = Annotated[str, StringConstraints(pattern=r"\S")]
"""The type of a text that may not be empty or blank, such as the name of a model or a data set."""
