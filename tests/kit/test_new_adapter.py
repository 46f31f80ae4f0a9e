"""From an empty folder to a published adapter: `crucible new adapter`, test, build, install."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMMAND, Crucible, clean_environ
from crucible_kitchen import PORTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ALL = [argument for port in PORTS for argument in ("--port", port)]


CHECK = """
from crucible_kitchen import PORTS
from crucible_kitchen.settings import in_code
from crucible_kitchen.testing.check import check

PROMISES = {
    "training_client": "test_gradients_accumulate",
    "dataset_store": "test_take_and_skip_past_the_end_clamp",
    "blob_store": "test_a_write_replaces",
    "metrics_store": "test_recording_again_replaces",
    "completer": "test_an_empty_batch_has_no_results",
}
for port, promise in PROMISES.items():
    settings = in_code({"adapters": {port: {"use": "acme", "folder": "data"}}})
    fixtures = {"model": "bigram"} if port == "training_client" else {}
    card = check(settings, PORTS[port], fixtures=fixtures, only=[promise])
    print(card.title, card.summary)
"""

OPTIONS = '{"file": folder.with_suffix(".db")}'


def python(folder: Path, *arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel(source: Path, into: Path, **environ: str) -> Path:
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(into)]
    python(source, *build, **environ)
    return max(into.glob("*.whl"), key=os.path.getmtime)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes for all six ports."""
    folder = tmp_path_factory.mktemp("new")
    author = 'Ann "A" Author <ann@example.org>'
    python(folder, *COMMAND[1:], "new", "adapter", "acme", *ALL, "--author", author)
    return folder / "crucible-adapter-acme"


@pytest.fixture(scope="module")
def elsewhere(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the core, both installed from their wheels."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    # Copied, since a build writes next to the source.
    core = tmp_path_factory.mktemp("core") / "core"
    shutil.copytree(ROOT / "core", core, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    python(site, *pip, "--target", str(site), str(wheel(core, wheels)))
    # The core is needed for building: its hook puts report cards into the wheel.
    built = wheel(package, wheels, PYTHONPATH=str(site))
    python(site, *pip, "--target", str(site), str(built))
    return site


@pytest.fixture
def installed(elsewhere: Path, tmp_path: Path) -> Callable[..., str]:
    """The command, as it is installed from the wheels."""

    def run(*arguments: str) -> str:
        return python(tmp_path, *COMMAND[1:], *arguments, PYTHONPATH=str(elsewhere))

    return run


def test_it_passes_its_tests_as_generated(package: Path, elsewhere: Path) -> None:
    """Installed from its wheel, as its users have it."""
    said = python(
        package, "-m", "pytest", "-q", "-p", "no:cacheprovider", PYTHONPATH=str(elsewhere)
    )
    assert "passed" in said
    assert "\nfailed " not in said


def test_it_type_checks_and_lints_as_generated(package: Path) -> None:
    pytest.importorskip("mypy", reason="mypy and ruff are not part of this environment")
    python(package, "-m", "ruff", "check", "--no-cache", ".")
    python(package, "-m", "ruff", "format", "--no-cache", "--check", ".")
    python(package, "-m", "mypy", "--cache-dir", os.devnull, MYPYPATH=str(ROOT / "core/src"))


@pytest.mark.parametrize(
    ("port", "right", "wrong"),
    [
        (
            "blob_store",
            "prefix: str) -> builtins.list[str]",
            "prefix: bytes) -> builtins.list[str]",
        ),
        ("training_client", "prefix: str) -> list[str]", "prefix: str) -> list[int]"),
        ("hub_client", "message: str | None,", "message: str,"),
        ("metrics_store", "def runs(opts: Options", "def runs(opts: int"),
    ],
)
def test_a_wrong_type_in_an_optional_callback_is_an_error_of_mypy(
    package: Path, tmp_path: Path, port: str, right: str, wrong: str
) -> None:
    pytest.importorskip("mypy", reason="mypy is not part of this environment")
    copied = tmp_path / "package"
    shutil.copytree(package, copied)
    module = copied / f"src/crucible_adapter_acme/{port}.py"
    text = module.read_text("utf-8")
    assert right in text
    module.write_text(text.replace(right, wrong), "utf-8")
    mypy = ["-m", "mypy", "--cache-dir", str(package.parent / "mypy"), str(module)]
    done = subprocess.run(
        [sys.executable, *mypy],
        cwd=copied,
        env=clean_environ(MYPYPATH=str(ROOT / "core/src")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: Argument 1 has incompatible type" in done.stdout


def test_every_optional_callback_of_the_template_is_held_against_its_spec(package: Path) -> None:
    for port in PORTS:
        text = (package / f"src/crucible_adapter_acme/{port}.py").read_text("utf-8")
        served = re.findall(r"^@hookimpl\ndef (\w+)", text, re.M)
        for name in set(served) - PORTS[port].mandatory():
            assert f".{name})(this_module.{name})" in text, f"{port}: {name}"


def test_an_author_has_a_name_and_an_address(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["authors"] == [{"name": 'Ann "A" Author', "email": "ann@example.org"}]


def test_options_are_named_where_they_are_declared_and_in_one_place_of_the_tests(
    package: Path,
) -> None:
    """Else a vendor who renames one looks for it in every file."""
    naming = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.suffix in (".py", ".md", ".toml", ".yml")  # not what tools have left there
        if re.search(r"\bfolder ?=|\"folder\":", path.read_text("utf-8"))
    ]
    assert sorted(naming) == ["README.md", "src/crucible_adapter_acme/conformance/__init__.py"]


def test_the_adapter_of_the_guide_passes_in_the_template_once_the_suite_follows(
    package: Path, tmp_path: Path
) -> None:
    """With the changes that "Replace the folder" in publishing.md names, and no other."""
    made = tmp_path / "package"
    shutil.copytree(package, made)
    module = made / "src/crucible_adapter_acme"
    example = (ROOT / "docs/examples/sqlite_blob_store.py").read_text("utf-8")
    example = example.replace("import sqlite_", "import crucible_adapter_acme.")
    (module / "blob_store.py").write_text(example, "utf-8")
    replace(module / "conformance/__init__.py", '{"folder": folder}', OPTIONS)
    suite = module / "conformance/blob_store.py"
    oracles = suite.read_text("utf-8").partition("\n    @pytest.fixture\n    def stored(")
    suite.write_text(oracles[0], "utf-8")
    replace(suite, "import folder_of, options", "import options")
    said = python(
        made,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_blob_store.py"),
        PYTHONPATH=str(made / "src"),
    )
    assert "passed" in said
    guide = (ROOT / "docs/adapters/publishing.md").read_text("utf-8")
    assert f"`{OPTIONS}`" in guide


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def test_an_adapter_of_every_port_is_listed_once_installed(installed: Callable[..., str]) -> None:
    listed = [line.split()[:4] for line in installed("adapters").splitlines()]
    for port in PORTS:
        assert [port, "acme", "crucible-adapter-acme", "0.1.0"] in listed


@pytest.mark.parametrize(
    ("port", "options"), [("hub_client", []), ("metrics_store", ["folder=data"])]
)
def test_an_installed_adapter_passes_check(
    installed: Callable[..., str], port: str, options: list[str]
) -> None:
    """By the suite that it brings along. The two that are quick; the tests above run all."""
    said = installed("check", f"{port}.acme", *options)
    assert said.startswith(f"{port}.acme (crucible-adapter-acme 0.1.0)")
    assert "\nfailed " not in said


def test_every_installed_adapter_can_be_checked(elsewhere: Path, tmp_path: Path) -> None:
    said = python(tmp_path, "-c", CHECK, PYTHONPATH=str(elsewhere)).splitlines()
    assert [line.partition(", ")[0] for line in said] == [
        f"{port}.acme (crucible-adapter-acme 0.1.0) 1 passed"
        for port in PORTS
        if port != "hub_client"
    ]
    assert all(line.endswith(" not run: a partial card") for line in said)


def test_the_wheel_of_the_core_has_the_kit_and_the_template(elsewhere: Path) -> None:
    core = elsewhere / "crucible_kitchen"
    assert all((core / "testing" / port / "__init__.py").exists() for port in PORTS)
    assert (core / "templates/adapter/copier.yml").exists()
    assert (core / "templates/adapter/.github/workflows/ci.yml.jinja").exists()


def test_one_port_alone_leaves_no_trace_of_the_others(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    outcome = plain_crucible("new", "adapter", "my-store", "--port", "blob_store")
    assert outcome.code == 0, outcome
    files = sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    )
    assert files == [
        f"crucible-adapter-my-store/{name}"
        for name in (
            ".github/dependabot.yml",
            ".github/workflows/ci.yml",
            ".gitignore",
            "CHANGELOG.md",
            "README.md",
            "pyproject.toml",
            "src/crucible_adapter_my_store/__init__.py",
            "src/crucible_adapter_my_store/blob_store.py",
            "src/crucible_adapter_my_store/conformance/__init__.py",
            "src/crucible_adapter_my_store/conformance/blob_store.py",
            "src/crucible_adapter_my_store/failures.py",
            "src/crucible_adapter_my_store/py.typed",
            "tests/test_blob_store.py",
            "tests/test_readme.py",
        )
    ]
    text = "".join((tmp_path / name).read_text() for name in files)
    for port in set(PORTS) - {"blob_store"}:
        assert port not in text


def test_an_existing_file_is_left_alone_without_a_terminal(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    folder = tmp_path / "crucible-adapter-acme"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    outcome = plain_crucible("new", "adapter", "acme", "--port", "blob_store")
    assert outcome.code == 2
    assert "crucible-adapter-acme has its own README.md; choose another folder" in outcome.err
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("README.md", "mine")]


def test_the_current_folder_is_called_that_where_its_files_would_be_replaced(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("mine")
    outcome = plain_crucible("new", "adapter", "acme", "--port", "blob_store", "--folder", ".")
    assert outcome.code == 2
    assert outcome.err.startswith("error: the current folder has its own pyproject.toml; choose ")
    assert "run this on a terminal, where it asks before it replaces a file" in outcome.err


@pytest.mark.parametrize("kind", ["adapter", "workflow", "environment"])
def test_an_author_is_written_as_people_write_names(
    plain_crucible: Crucible, tmp_path: Path, kind: str
) -> None:
    more = ["--port", "blob_store"] if kind == "adapter" else []
    author = "Ünal Ü. O'Neil & Søn <u@example.org>"
    outcome = plain_crucible("new", kind, "acme", *more, "--folder", "new", "--author", author)
    assert outcome.code == 0, outcome
    text = (tmp_path / "new" / "pyproject.toml").read_text("utf-8")
    assert "O'Neil & Søn" in text
    assert tomllib.loads(text)["project"]["authors"] == [
        {"name": "Ünal Ü. O'Neil & Søn", "email": "u@example.org"}
    ]


def test_it_goes_next_to_files_of_other_names(plain_crucible: Crucible, tmp_path: Path) -> None:
    folder = tmp_path / "crucible-adapter-acme"
    (folder / ".git").mkdir(parents=True)
    (folder / "LICENSE").write_text("mine")
    for _ in range(2):  # what is there already the second time is the same
        assert plain_crucible("new", "adapter", "acme", "--port", "blob_store").code == 0
    assert (folder / "README.md").is_file()
    assert (folder / "LICENSE").read_text() == "mine"


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"y\n"])
def test_a_person_at_a_terminal_is_asked_before_a_file_is_replaced(
    tmp_path: Path, answer: bytes
) -> None:
    folder = tmp_path / "crucible-adapter-acme"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "new", "adapter", "acme", "--port", "blob_store"],
            cwd=tmp_path,
            env=clean_environ(TERM="dumb"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            said = b""
            while b"Replace it?" not in said:
                said += os.read(ours, 1000)
            os.write(ours, answer)
            while process.poll() is None and b"wrote" not in said:
                said += os.read(ours, 1000)
        assert b"README.md exists and differs" in said
    finally:
        os.close(ours)
        os.close(theirs)
    assert ((folder / "README.md").read_text() == "mine") == (answer != b"y\n")
    assert (b"kept" in said) == (answer != b"y\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Acme", "--port", "blob_store"], "'Acme' cannot be the name of a package"),
        (["a--b", "--port", "blob_store"], "'a--b' cannot be the name of a package"),
        (["acme"], "name the ports with --port: training_client"),
        (
            ["acme", "--port", "blobstore"],
            "there is no port 'blobstore'; did you mean 'blob_store'?",
        ),
        ([], "name the adapter, as in `crucible new adapter acme --port ...`"),
        (
            ["acme", "--port", "blob_store", "--author", "Ann <ann"],
            "write 'Name <mail@example.org>'",
        ),
        (
            ["--add", "blob_store"],
            "there is no pyproject.toml; --add is for the folder of a package",
        ),
        (["--add", "blob_store", "--author", "x"], "so --author has no place"),
    ],
)
def test_a_mistake_is_named(
    plain_crucible: Crucible, tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = plain_crucible("new", "adapter", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


SPECS = """\
    from crucible_kitchen.hookspecs import (
        AdapterSpec,
        TrainingClientOptionalSpec,
        TrainingClientSpec,
        implements,
    )
"""


def test_the_training_client_of_the_template_is_that_of_the_guide() -> None:
    """One model in NumPy, in two places that pip installs separately."""
    example = (ROOT / "docs/examples/bigram_training_client.py").read_text("utf-8")
    for here, there in (
        (
            "NumPy: a complete training client, and an exact one.\n",
            "NumPy. Replace the body of each callback by calls of\n{{ name }}.\n",
        ),
        (
            '    checkpoint_dir: LocalPath = Path("checkpoints")\n'
            '    """Folder of the checkpoints."""\n',
            '    folder: LocalPath = Field(examples=["{{ name }}/training_client"])\n'
            '    """The folder that everything is kept in."""\n',
        ),
        ("from pathlib import Path\n", ""),
        ("import NDArray\n", "import NDArray\nfrom pydantic import Field\n"),
        ("opts.checkpoint_dir", "opts.folder"),
        (
            f"    import bigram_training_client as this_module\n{SPECS}",
            f"{SPECS}\n    import {{{{ package }}}}.training_client as this_module\n",
        ),
    ):
        assert here in example
        example = example.replace(here, there)
    sources = ROOT / "core/src/crucible_kitchen/templates/adapter/src"
    [template] = sources.glob("*/*training_client.py*.jinja")
    assert template.read_text("utf-8") == example
