"""Which installer is run for an environment, and what it is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from crucible_kitchen import ConfigurationError
from crucible_kitchen.installing import installer, names, origins
from crucible_kitchen.installing.installer import Installer, shown
from crucible_kitchen.locking import Lock, Locked
from crucible_kitchen.locking.environment import Environment

DIGEST = "a" * 64
LOCK = Lock("3.11.4", {"acme": Locked("1.0"), "other": Locked("2.0")})


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A virtual environment in which nothing is."""
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.4\n")
    return Environment(str(tmp_path / "bin" / "python"), "3.11.4", (), str(tmp_path))


def with_uv(monkeypatch: pytest.MonkeyPatch, path: str | None = "/bin/uv") -> None:
    monkeypatch.setattr(installer, "_uv", lambda: path)


def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_an_environment_is_changed_with_pip(
    monkeypatch: pytest.MonkeyPatch, environment: Environment
) -> None:
    with_uv(monkeypatch)
    line = Installer.of(environment).line("install", "acme")
    assert line == [sys.executable, "-m", "pip", "--python", environment.python, "install", "acme"]


def test_an_environment_that_uv_made_is_changed_with_uv(
    monkeypatch: pytest.MonkeyPatch, environment: Environment
) -> None:
    with_uv(monkeypatch)
    (Path(environment.prefix) / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.13.9\n")
    found = Installer.of(environment)
    line = found.line("uninstall", "acme")
    assert line == ["/bin/uv", "pip", "uninstall", "--python", environment.python, "acme"]
    with_uv(monkeypatch, None)
    assert Installer.of(environment).name == "pip"


def test_where_pip_is_not_installed_uv_serves(
    monkeypatch: pytest.MonkeyPatch, environment: Environment
) -> None:
    without_pip(monkeypatch)
    with_uv(monkeypatch)
    assert Installer.of(environment).name == "uv"
    with_uv(monkeypatch, None)
    with pytest.raises(ConfigurationError, match="neither pip nor uv: ") as caught:
        Installer.of(environment)
    assert f"`{sys.executable} -m ensurepip` installs pip" in str(caught.value)
    assert f"`crucible sync --python {environment.python}`" in str(caught.value)


def test_pip_asks_no_question(monkeypatch: pytest.MonkeyPatch, environment: Environment) -> None:
    with_uv(monkeypatch, None)
    assert shown(Installer.of(environment).line("uninstall", "acme")).endswith(
        " uninstall --yes acme"
    )


def test_a_cache_that_may_be_altered_is_not_used() -> None:
    assert Installer("uv", ("uv",)).reinstalling(altered=True) == ["--reinstall", "--no-cache"]
    assert Installer("uv", ("uv",)).reinstalling(altered=False) == ["--reinstall"]
    assert Installer("pip", ("pip",)).reinstalling(altered=True) == ["--force-reinstall"]


def test_what_the_operating_system_manages_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=ask apt\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(ConfigurationError, match=r"PEP 668.*python -m venv \.venv"):
        Installer.of(Environment.here())


def test_a_python_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--python /no/python: No such file"):
        Environment.of("/no/python")
    (tmp_path / "python").write_text("#!/bin/sh\necho surprise\n")
    (tmp_path / "python").chmod(0o700)
    with pytest.raises(ConfigurationError, match="is not a Python that runs"):
        Environment.of(str(tmp_path / "python"))


def answering(tmp_path: Path, name: str, answer: str, code: int = 0) -> Installer:
    """Return an installer that gives an answer, and keeps what it was given."""
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys, pathlib\npathlib.Path({str(tmp_path / 'given')!r}).write_text("
        f"repr((sys.argv[1:], sys.stdin.read())))\nprint({answer!r})\n"
        f"print('no such version', file=sys.stderr)\nsys.exit({code})\n"
    )
    return Installer(name, (sys.executable, str(program)))


def test_the_report_of_pip_says_where_the_index_has_a_distribution(tmp_path: Path) -> None:
    url = "https://host/acme-1.0-py3-none-any.whl"
    about = {
        "url": url.replace("host", "ann:sesame@host"),
        "archive_info": {"hashes": {"sha256": DIGEST}},
    }
    local = tmp_path / "other-2.0.tar.gz"
    local.write_bytes(b"")
    report = {
        "install": [
            {"download_info": about, "metadata": {"name": "Acme"}},
            {"download_info": {"url": local.as_uri()}, "metadata": {"name": "other"}},
        ]
    }
    pip = answering(tmp_path, "pip", json.dumps(report))
    found = origins.find(pip, LOCK, ["acme", "other"])
    wheel = {"name": "acme-1.0-py3-none-any.whl", "url": url, "hashes": {"sha256": DIGEST}}
    assert found["acme"] == {"wheels": [wheel]}
    assert found["other"]["sdist"]["path"] == str(local)
    assert found["other"]["sdist"]["hashes"]["sha256"].startswith("e3b0c442")
    given = (tmp_path / "given").read_text()
    assert "'acme==1.0', 'other==2.0'" in given
    assert "--no-deps" in given


def test_the_answer_of_uv_has_the_wheels_of_every_platform(tmp_path: Path) -> None:
    urls = [f"https://host/acme-1.0-{tag}.whl" for tag in ("py3-none-any", "cp311-none-win32")]
    wheels = ", ".join(f'{{ url = "{url}", hashes = {{ sha256 = "{DIGEST}" }} }}' for url in urls)
    uv = answering(tmp_path, "uv", f'[[packages]]\nname = "acme"\nwheels = [{wheels}]\n')
    found = origins.find(uv, LOCK, ["acme"])
    assert [wheel["url"] for wheel in found["acme"]["wheels"]] == urls


def test_what_an_index_does_not_have_is_said_in_its_words(tmp_path: Path) -> None:
    pip = answering(tmp_path, "pip", "", code=1)
    with pytest.raises(ConfigurationError, match="did not have everything:\nno such version"):
        origins.find(pip, LOCK, ["acme"])


def test_an_index_is_not_asked_for_nothing(tmp_path: Path) -> None:
    assert origins.find(answering(tmp_path, "pip", "", code=1), LOCK, []) == {}


@pytest.mark.parametrize("name", ["a b", "fsspec==", "=1"])
def test_what_is_not_a_requirement_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is neither the name of an adapter nor"):
        names.to_install([name])
