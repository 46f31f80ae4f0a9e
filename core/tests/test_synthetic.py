"""Whether an adapter makes its results up is what its helper `synthetic` says."""

from __future__ import annotations

import sys
from types import ModuleType

import importlib_metadata as metadata
import pytest
from crucible_kitchen import AdapterOptions, helper
from crucible_kitchen.adapters.discovery import Installed
from crucible_kitchen.calls.synthetic import synthetic
from crucible_kitchen.configuration.suggestions import is_synthetic
from crucible_kitchen.testing import bound

from kitchen_noop import blob_store


class Options(blob_store.Options):
    server: str = ""


class Demanding(AdapterOptions):
    server: str


@helper
def rehearsed(opts: Options) -> str | None:
    return None if opts.server == "none" else "" if opts.server else "no server is given"


def adapter(**parts: object) -> ModuleType:
    """The noop blob store with other parts."""
    module = ModuleType("rehearsing")
    vars(module).update({k: v for k, v in vars(blob_store).items() if not k.startswith("__")})
    vars(module).update(parts)
    return module


def installed(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> Installed:
    monkeypatch.setitem(sys.modules, module.__name__, module)
    point = metadata.EntryPoint("blob_store.rehearsing", module.__name__, "crucible.adapters")
    return Installed("blob_store", "rehearsing", "rehearsing", "1", point, ())


@pytest.mark.parametrize(
    ("server", "why"), [("", "no server is given"), ("a", ""), ("none", "")], ids=repr
)
def test_a_bound_adapter_is_asked_with_its_options(server: str, why: str) -> None:
    module = adapter(Options=Options, synthetic=rehearsed)
    with bound("blob_store", module, server=server) as store:
        assert synthetic(store) == why


def test_without_the_helper_results_are_real() -> None:
    with bound("blob_store", adapter(synthetic=lambda opts: "not a helper")) as store:
        assert synthetic(store) == ""


def test_an_adapter_that_is_not_bound_is_asked_with_its_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = adapter(Options=Options, synthetic=rehearsed)
    assert is_synthetic(installed(monkeypatch, asked))
    real = adapter(Options=Options, synthetic=helper(lambda opts: ""))
    assert not is_synthetic(installed(monkeypatch, real))


def test_where_options_cannot_be_left_out_the_helper_alone_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    demanding = adapter(Options=Demanding, synthetic=rehearsed)
    assert is_synthetic(installed(monkeypatch, demanding))
    assert not is_synthetic(installed(monkeypatch, adapter(Options=Demanding, synthetic=None)))
