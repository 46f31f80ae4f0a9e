"""The texts that a chat template's expressions name, with Jinja and without it."""

from __future__ import annotations

import sys

import pytest
from crucible_kitchen.chat.template import _constants

SOURCE = """{% if '<think>' in text %}{{ text.split("</think>")[0] }}{% endif %}said 'so'"""


def test_the_strings_of_expressions_are_found() -> None:
    assert _constants(SOURCE) == {"<think>", "</think>"}


def test_where_jinja_is_not_installed_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert _constants(SOURCE) >= {"<think>", "</think>"}
    assert _constants("") == frozenset()
