"""Options that went with a replaced adapter are named where they are missing, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import AdapterOptions, ConfigurationError, Kitchen
from crucible_kitchen.configuration.replaced import named_in, without_option
from crucible_kitchen.settings import Layer, Settings, merge
from crucible_kitchen.settings.assignments import of_arguments

AT = ("adapters", "blob_store")
TEXT = "no model 'small'"
SMALL = {"small": {"hidden_size": 16}}
ACME = {"use": "acme", "url": "x", "models": SMALL}
SET = "adapters.blob_store.models.small is set for 'acme' (my.toml), which "
GONE = " replaced together with its options: set "


class HasModels(AdapterOptions):
    models: Mapping[str, Any] | None = None
    inner: Any = None


class HasNoModels(AdapterOptions):
    url: str = ""


def layered(*values: Any, arguments: tuple[str, ...] = ()) -> Settings:
    """Return the settings of a blob store in a file, then in a profile, then by arguments."""
    names = ("my.toml", "profile p")
    layers = [
        Layer(name, {"adapters": {"blob_store": value}})
        for name, value in zip(names, values, strict=False)
    ]
    return merge([*layers, of_arguments(arguments, [])])


def test_an_option_that_is_missing_is_explained() -> None:
    settings = layered(ACME, "disk")
    assert without_option(settings, (*AT, "url")) == (
        "adapters.blob_store.url is set for 'acme' (my.toml), which 'disk' (profile p) replaced "
        "together with its options: set it for 'disk', too, or write use = \"disk\" there"
    )
    assert without_option(settings, (*AT, "bucket")) == ""
    assert without_option(settings, ("adapters", "hub_client", "url")) == ""


def test_a_name_that_an_option_made_is_explained_where_a_message_quotes_it() -> None:
    settings = layered(ACME, "disk")
    said = f"{SET}'disk' (profile p){GONE}it for 'disk', too, or write use = \"disk\" there"
    assert named_in(TEXT, settings, AT, HasModels) == said
    assert named_in("no model 'large'", settings, AT, HasModels) == ""
    assert named_in(TEXT, settings, ("adapters", "hub_client"), HasModels) == ""


@pytest.mark.parametrize("last", ["acme", "ray"])
def test_the_advice_is_about_the_adapter_in_use_not_one_between(last: str) -> None:
    settings = layered(ACME, "disk", arguments=(f"adapters.blob_store={last}",))
    assert named_in(TEXT, settings, AT, HasModels) == (
        f"{SET}'disk' (profile p){GONE}adapters.blob_store.models.small where {last!r} is chosen "
        "(argument adapters.blob_store=)"
    )


def test_of_two_replaced_adapters_both_are_known() -> None:
    settings = layered(ACME, {"use": "disk", "depth": 2}, arguments=("adapters.blob_store=ray",))
    assert "depth is set for 'disk' (profile p)" in without_option(settings, (*AT, "depth"))
    assert "url is set for 'acme' (my.toml)" in without_option(settings, (*AT, "url"))


def test_an_option_that_is_set_for_the_new_adapter_is_not_missing() -> None:
    settings = layered(ACME, {"use": "ray", "models": SMALL})
    assert named_in("'small' has no revision 'abc'", settings, AT, HasModels) == ""


def test_an_option_that_the_new_adapter_does_not_have_is_not_missing() -> None:
    assert named_in(TEXT, layered(ACME, "retry"), AT, HasNoModels) == ""


def test_an_option_is_named_with_the_place_where_it_was_set() -> None:
    """Which may be another than the one where its adapter was chosen."""
    settings = layered("acme", {"url": "x"}, arguments=("adapters.blob_store=disk",))
    assert "url is set for 'acme' (profile p), which 'disk' (argument " in without_option(
        settings, (*AT, "url")
    )


def test_the_adapter_inside_another_is_explained() -> None:
    settings = layered({"use": "retry", "inner": ACME}, {"inner": "disk"})
    inner = (*AT, "inner")
    assert named_in(TEXT, settings, inner, HasModels).startswith(
        "adapters.blob_store.inner.models.small is set for 'acme' (my.toml), which 'disk' "
    )
    assert "inner.url is set for 'acme'" in without_option(settings, (*inner, "url"))


def test_an_adapter_that_a_higher_layer_wraps_lacks_its_options_inside() -> None:
    settings = layered(ACME, {"use": "retry", "inner": {"use": "acme", "url": "y"}})
    assert named_in(TEXT, settings, AT, HasModels) == (
        f"{SET}'retry' (profile p){GONE}it for 'retry', too, or write use = \"retry\" there"
    )
    assert named_in(TEXT, settings, (*AT, "inner"), HasModels) == (
        f"{SET}'retry' (profile p){GONE}adapters.blob_store.inner.models.small where 'acme' is "
        "chosen (profile p)"
    )


def test_another_adapter_inside_a_wrapper_is_not_the_one_that_was_replaced() -> None:
    settings = layered(ACME, {"use": "retry", "inner": "disk"})
    assert named_in(TEXT, settings, (*AT, "inner"), HasModels) == ""


def test_an_adapter_that_a_higher_layer_unwraps_lacks_its_options_outside() -> None:
    settings = layered({"use": "retry", "inner": ACME}, "acme")
    assert named_in(TEXT, settings, AT, HasModels) == (
        "adapters.blob_store.inner.models.small is set for 'acme' inside 'retry' (my.toml), which "
        f"'acme' (profile p){GONE}adapters.blob_store.models.small where 'acme' is chosen "
        "(profile p)"
    )


def test_a_workflow_is_named_with_the_argument_that_chose_it() -> None:
    file = Layer("my.toml", {"workflow": {"use": "supervised", "model": "m"}})
    settings = merge([file, of_arguments(["workflow.use=mine"], [])])
    assert "which 'mine' (argument workflow.use=) replaced" in without_option(
        settings, ("workflow", "model")
    )


def test_what_a_table_on_the_command_line_chose_is_named_with_its_argument() -> None:
    table = 'adapters.blob_store={"use": "retry", "inner": {"use": "acme"}}'
    settings = layered(ACME, arguments=(table,))
    assert named_in(TEXT, settings, (*AT, "inner"), HasModels).endswith(
        "where 'acme' is chosen (argument adapters.blob_store=)"
    )


def test_a_required_option_is_explained_after_its_description(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[adapters]\nblob_store = { use = "acme", url = "runs" }')
    kitchen = Kitchen.load(file, arguments=["adapters.blob_store=fsspec"], environ={})
    with pytest.raises(ConfigurationError, match=r"blob_store\.url: is required") as caught:
        _ = kitchen.blob_store
    assert "; adapters.blob_store.url is set for 'acme'" in str(caught.value)
    assert ".;" not in str(caught.value)
