"""`crucible ports`: the ports, and the contract of each in the words of its hookspec."""

from __future__ import annotations

import inspect
import json

import pytest
from commands import Crucible
from crucible_kitchen import PORTS


def test_every_port_is_listed_with_what_it_does(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("ports")
    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines] == ["port", *PORTS]
    assert "Keep bytes under names" in outcome.out


@pytest.mark.parametrize("port", PORTS)
def test_a_contract_has_every_callback_and_all_of_its_promises_in_80_columns(
    plain_crucible: Crucible, port: str
) -> None:
    outcome = plain_crucible("ports", port)
    assert outcome.code == 0, outcome
    assert max(map(len, outcome.out.splitlines())) <= 80
    words = " ".join(outcome.out.split())
    for name, spec in PORTS[port].callbacks().items():
        assert f" {name}( opts" in words or f" {name}(opts" in words
        assert " ".join((inspect.getdoc(spec) or "").split()) in words


def test_a_callback_shows_its_types_its_defaults_and_whether_it_may_be_left_out(
    plain_crucible: Crucible,
) -> None:
    said = plain_crucible("ports", "blob_store").out
    mandatory, optional = said.index("--- mandatory ---"), said.index("--- optional ---")
    assert mandatory < said.index("exists(opts, path: str) -> bool") < optional
    assert said.index("list(opts, prefix: str = '') -> Sequence[str]") > optional
    said = plain_crucible("ports", "training_client").out
    assert "    session: Session,\n" in said
    assert "T)" not in said  # no type variable


def test_a_contract_as_data(plain_crucible: Crucible) -> None:
    about = json.loads(plain_crucible("ports", "completer", "--json").out)
    assert about["port"] == "completer"
    assert about["mandatory"] == ["complete", "complete_batch"]
    callbacks = {each["name"]: each for each in about["callbacks"]}
    assert list(callbacks) == [*PORTS["completer"].callbacks()]
    assert callbacks["stream_complete"]["stream"]
    assert callbacks["stream_complete"]["offered"] == "optional"
    assert callbacks["ping"]["offered"] == "optional, of every port"
    assert callbacks["score"]["arguments"][2] == {
        "name": "model",
        "type": "str | None",
        "default": "None",
    }
    listed = json.loads(plain_crucible("ports", "--json").out)
    assert [each["port"] for each in listed] == [*PORTS]


def test_a_misspelt_port_gets_the_nearest(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("ports", "blobstore")
    assert outcome.code == 2
    assert outcome.err == "error: there is no port 'blobstore'; did you mean 'blob_store'?\n"


def test_a_port_in_capitals_gets_the_real_one(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("ports", "BLOB_STORE")
    assert outcome.err == "error: there is no port 'BLOB_STORE'; did you mean 'blob_store'?\n"


def test_show_may_be_written_as_for_adapters(plain_crucible: Crucible) -> None:
    shown = plain_crucible("ports", "show", "blob_store")
    assert shown.code == 0
    assert shown.out == plain_crucible("ports", "blob_store").out
    assert plain_crucible("ports", "list").out == plain_crucible("ports").out


@pytest.mark.parametrize("names", [("show",), ("blob_store", "completer")])
def test_what_is_not_one_port_is_an_error_that_says_what_to_write(
    plain_crucible: Crucible, names: tuple[str, ...]
) -> None:
    outcome = plain_crucible("ports", *names)
    assert outcome.code == 2
    assert "write `crucible ports blob_store`" in outcome.err


def test_one_callback_can_be_printed(plain_crucible: Crucible) -> None:
    said = plain_crucible("ports", "blob_store.read").out
    assert said.startswith("blob_store.read, mandatory\n\nread(opts, path: str) -> bytes\n    ")
    assert "exists(" not in said
    about = json.loads(plain_crucible("ports", "blob_store.read", "--json").out)
    assert (about["name"], about["returns"]) == ("read", "bytes")


def test_a_misspelt_callback_gets_the_nearest(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("ports", "blob_store.raed")
    said = "error: the port blob_store has no callback 'raed'; did you mean 'read'?\n"
    assert (outcome.code, outcome.err) == (2, said)
