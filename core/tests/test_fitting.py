"""What is said of a package that is for another version of the core."""

from __future__ import annotations

import pytest
from crucible_kitchen.adapters.fitting import unfit


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crucible_kitchen.version.__version__", "0.3.1")


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize(
    "requires",
    [
        "crucible-kitchen",
        "crucible_kitchen>=0.3,<0.4",
        "crucible-kitchen!=0.2.*",
        "crucible-kitchen<0.2; extra == 'old'",
        "not a requirement!",
        "another-package<0.1",
    ],
)
def test_nothing_is_said_where_the_core_fits(requires: str) -> None:
    assert unfit("acme", "1.0", [requires]) == ""


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("wanted", [">=0.4", ">0.3.1", "~=0.4.0", "==0.4.*", "==1.0"])
def test_where_the_core_is_too_old_the_core_is_to_be_upgraded(wanted: str) -> None:
    said = unfit("acme", "1.0", [f"crucible-kitchen{wanted}"])
    assert f"needs crucible-kitchen {wanted}, this is crucible-kitchen 0.3.1" in said
    assert said.endswith(f"the core is too old; pip install --upgrade 'crucible-kitchen{wanted}'")


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("wanted", ["<0.3", "<=0.3", "~=0.2.0", "==0.2.*", "==0.1"])
def test_where_the_core_is_too_new_the_adapter_is_to_be_upgraded_or_the_core_to_go_back(
    wanted: str,
) -> None:
    said = unfit("acme", "1.0", [f"crucible-kitchen{wanted}"])
    assert "the core is too new; pip install --upgrade acme, which finds a release" in said
    assert "If 1.0 stays installed, there is none yet" in said
    assert f"pip install 'crucible-kitchen{wanted}'" in said


@pytest.mark.usefixtures("core")
def test_where_just_this_core_is_excluded_either_may_help() -> None:
    said = unfit("acme", "1.0", ["crucible-kitchen!=0.3.1"])
    assert said.endswith(
        "pip install --upgrade acme, or else pip install 'crucible-kitchen!=0.3.1'"
    )


def test_a_development_build_counts_as_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crucible_kitchen.version.__version__", "0.4.dev3")
    assert unfit("acme", "1.0", ["crucible-kitchen>=0.4"]) == ""
