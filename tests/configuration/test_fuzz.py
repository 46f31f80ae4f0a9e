"""Whatever is configured, typed, found in the environment or in a trace: an answer, no traceback.

The inputs are drawn by seeded generators, so they are the same each time. Each is given to the
command in this process; some are also given to a process of their own.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import functools
import io
import json
import math
import os
import random
import resource
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import COMMAND, Crucible, clean_environ
from crucible_kitchen import CrucibleError
from crucible_kitchen.cli import app
from crucible_kitchen.cli.failures import explain
from crucible_kitchen.cli.toml import key as toml_key
from crucible_kitchen.cli.toml import toml

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EVERY = 1 if os.environ.get("FUZZ") == "all" else 5
"""One in so many cases is tried, unless all of them are asked for."""
BLOCKS = 10 // EVERY
CONFIGURATIONS, TRACES = 1000 // EVERY, 400 // EVERY

ANSWERED: dict[str, int] = {"configurations, arguments and environments": 0, "traces": 0}


# --- the command, in this process ---


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


WRITTEN: list[str] = []
"""Paths that were created or opened for writing since the list was emptied."""


def _note_what_is_written(event: str, arguments: tuple[Any, ...]) -> None:
    match event, arguments:
        case "open", (str() | bytes() as path, _, int() as flags):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                WRITTEN.append(os.path.abspath(os.fsdecode(path)))
        case ("os.mkdir", (path, *_)) | ("os.rename", (_, path, *_)) | ("os.link", (_, path, *_)):
            WRITTEN.append(os.path.abspath(os.fsdecode(path)))


@functools.cache
def _listen() -> None:
    sys.addaudithook(_note_what_is_written)  # it cannot be removed again


_command = functools.cache(typer.main.get_command)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: so deep that `../..` is inside the folder of the test."""
    _listen()
    folder = tmp_path / "a" / "b" / "c" / "work"
    for each in (folder, tmp_path / "home", tmp_path / "tmp"):
        each.mkdir(parents=True)
    monkeypatch.chdir(folder)
    kept = clean_environ(HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "tmp"))
    for name in set(os.environ) - set(kept):
        monkeypatch.delenv(name)
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "a" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", None)
    # Making a command takes longer than most commands.
    monkeypatch.setattr(typer.main, "get_command", _command)
    os.mkfifo("pipe")
    (folder / "folder").mkdir()
    return folder


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def ask(
    folder: Path, arguments: Sequence[str], environ: dict[str, str], encoding: str = "utf-8"
) -> Answer:
    """Run the command, and check what must hold for any input."""
    streams = [
        io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace") for _ in "12"
    ]
    WRITTEN.clear()
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        _environment(environ),
    ):
        try:
            code = app.invoke(list(arguments))
        except (Exception, SystemExit) as error:
            usage = callable(getattr(error, "show", None))  # one of typer's
            if not (isinstance(error, CrucibleError | typer.Exit | typer.Abort) or usage):
                raise  # the command would print a traceback
            code = explain(error)
    outside = [
        path
        for path in WRITTEN
        if not path.startswith((str(folder.parents[2]), "/dev/")) and "__pycache__" not in path
    ]
    assert outside == []
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    answer = Answer(code, out, err)
    assert answer.code in (0, 1, 2)
    assert "Traceback" not in out + err
    assert answer.code == 0 or out + err, "it failed without a word"
    assert "\x1b" not in out + err
    return answer


# --- configurations ---


def nested(depth: int, *, lists: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


def wrapped(depth: int) -> Any:
    value: Any = "noop"
    for _ in range(depth):
        value = {"use": "retry", "inner": value}
    return value


SCALARS: tuple[Any, ...] = (
    *(0, -1, 7, 2**31, 2**63 - 1, 2**63, -(10**30), True, False),
    *(0.5, -0.0, 1e308, math.inf, -math.inf, math.nan, 5e-324),
    *(
        "",
        " ",
        "\n",
        "\t",
        "a\nb",
        "\x1b[31mred",
        "\u202eabc",
        "é",
        "日本",
        "𝔘" * 20,
        "\x7f",
        "a\0b",
    ),
    *(
        "n" * 300,
        "[",
        "{",
        "[]",
        "{}",
        "[1",
        '{"a": 1}',
        '{"use": "noop"}',
        "null",
        "true",
        "1e999",
    ),
    *(
        "noop",
        "retry",
        "torch/noop",
        "/",
        ".",
        "..",
        "../x",
        "~",
        "~nobody/x",
        "\\n",
        "a:b",
        "x.py:f",
    ),
    *("{question}", "{", "%s", "{0}", "{}", "{a.b}", "$HOME", "`id`", "9" * 25, "9" * 400, "-0x1f"),
    *(datetime.date(2024, 1, 1), datetime.time(1, 2), "folder", "pipe"),
)

TABLES: tuple[Any, ...] = (
    *([], {}, [[]], [{}], [1, "a"], ["x"] * 500, {"use": "noop"}, {"use": ""}, {"use": {}}),
    *(
        {"use": ["noop"]},
        {"": 1},
        {" ": 1},
        {"a.b": 1},
        {"é": {}},
        {"\x1b]0;x\x07": 1},
        {"Use": "noop"},
    ),
    *(
        {"use": "retry", "inner": "noop"},
        {"use": "tee", "inner": ["noop", {"use": 1}]},
        wrapped(20),
    ),
    *(wrapped(100), nested(20, lists=True), nested(70, lists=True), nested(70, lists=False)),
    *({f"k{number}": number for number in range(200)}, [wrapped(2), 5]),
)

NAMES = (
    "",
    " ",
    "use",
    "inner",
    "é",
    "\x1b[2J",
    "a.b",
    "0",
    "__",
    "n" * 300,
    "workflow",
    "adapters",
)

PORTS = (
    "training_client",
    "dataset_store",
    "blob_store",
    "hub_client",
    "metrics_store",
    "completer",
)


ODD: tuple[str, ...] = (
    "=",
    "==",
    ".",
    "..=1",
    "a",
    "workflow",
    "workflow=",
    "workflow.=1",
    ".workflow=1",
    "workflow..x=1",
    "adapters=noop",
    "adapters.blob_store=[",
    "adapters.blob_store={",
    "adapters.blob_store.inner.use=noop",
    "workflow.stop[0]=1",
    "epochs=3",
    "\udcff=1",
    "--",
    "-p",
    "--profile",
    "-x",
    "--trace",
    "a.toml",
    "observe=1",
    "observe.jsonl=folder",
    "observe.jsonl=pipe",
    'adapters={"blob_store": "noop"}',
    "workflow.model",
    "=x",
)
"""Arguments that are not settings, or barely."""


class Draw(random.Random):
    """A generator of mean inputs."""

    def value(self) -> Any:
        return self.choice(SCALARS if self.random() < 0.7 else TABLES)

    def text(self) -> str:
        """Return a value as a user may type it."""
        if self.random() < 0.1:
            return "".join(
                self.choices(string.printable + "é\udcff\u2028[]{}\"'=.", k=self.randint(0, 12))
            )
        value = self.value()
        if isinstance(value, list | dict):
            return json.dumps(value, default=str)
        return str(value).replace("\0", "")

    def misspelt(self, name: str) -> str:
        at = self.randrange(max(1, len(name)))
        return self.choice(
            [
                name[:at] + name[at + 1 :],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
                name.upper(),
                name.replace("_", "-"),
                name + self.choice("s_x é"),
                self.choice(NAMES),
            ]
        )

    def place(self, tree: Any) -> tuple[Any, Any]:
        """Return a container somewhere in a tree, and a key of it."""
        while True:
            keys = [*tree] if isinstance(tree, dict) else [*range(len(tree))]
            key = self.choice(keys)
            inside = tree[key]
            if not isinstance(inside, dict | list) or not inside or self.random() < 0.1:
                return tree, key
            tree = inside

    def change(self, tree: Any) -> None:
        """Change something in a tree of settings."""
        if not tree:
            tree["workflow"] = {"use": "supervised"}
        inside, key = self.place(tree)
        old = inside[key]
        match self.randrange(7):
            case 0 | 1 | 2:
                inside[key] = self.value()
            case 3 if isinstance(inside, dict):
                inside[self.misspelt(str(key))] = inside.pop(key)
            case 4 if isinstance(inside, dict):
                inside[self.choice(["use", "inner", self.misspelt(str(key))])] = self.value()
            case 5:
                inside[key] = self.choice([[old], {"use": old}, {str(key): old}, [old, old]])
            case _:
                del inside[key]

    def settings(self) -> Any:
        """Return the settings of an example, with adapters that start at once, and mistakes."""
        tree = tomllib.loads(self.choice(sorted(EXAMPLES.glob("*.toml"))).read_text())
        for port in (*self.sample(PORTS, 2), "training_client", "completer"):
            quick = {"use": "noop", "latency_scale": 0}
            tree["adapters"][port] = self.choice([quick, {"use": "retry", "inner": quick}])
        if self.random() < 0.5:
            tree["profile"] = {"p": {"workflow": {"epochs": 3}, "adapters": {"blob_store": "noop"}}}
        if self.random() < 0.3:
            tree["observe"] = {"console": True, "jsonl": "t.jsonl"}
        for _ in range(self.choice([0, 1, 1, 1, 2, 3])):
            self.change(tree)
        return tree

    def file(self) -> bytes:
        """Return a file of settings, or what is left of one."""
        lines = [f"{toml_key(name)} = {toml(value)}" for name, value in self.settings().items()]
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        match self.randrange(24):
            case 0:
                data = data[: self.randrange(len(data) + 1)]
            case 1:
                at = self.randrange(len(data) + 1)
                data = data[:at] + self.randbytes(self.randint(1, 4)) + data[at:]
            case 2:
                at = self.randrange(len(data) + 1)
                data = (
                    data[:at]
                    + self.choice([b"[", b"{", b'"', b"\n", b"=", b"\0", b"#"])
                    + data[at:]
                )
            case 3:
                data = self.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\0"]) + data
            case 4:
                data = data.decode("utf-8", "replace").encode(
                    self.choice(["utf-16", "utf-32", "latin1"]), "replace"
                )
            case 5:
                data = self.choice(
                    [data.replace(b"\n", b"\r\n"), data * 2, b"", b"\n", self.randbytes(50)]
                )
        return data

    def argument(self, tree: Any) -> str:
        if self.random() < 0.15:
            return self.choice(ODD)
        path: list[str] = []
        inside = tree
        while isinstance(inside, dict) and inside and (self.random() < 0.9 or not path):
            path.append(self.choice([*inside]))
            inside = inside[path[-1]]
        if self.random() < 0.2:
            path.append(self.misspelt(path[-1]))
        return f"{'.'.join(path)}={self.text()}".replace("\0", "")

    def variables(self, tree: Any) -> dict[str, str]:
        """Return environment variables."""
        found = {}
        for _ in range(self.choice([0, 0, 0, 0, 0, 1, 2])):
            path, _, value = self.argument(tree).partition("=")
            name = f"CRUCIBLE_{path.replace('.', '__').upper()}"
            name = self.choice(
                [name, name, name.lower(), "CRUCIBLE_", "CRUCIBLE___", "CRUCIBLE_CONFIG"]
            )
            found[name] = (
                value if name != "CRUCIBLE_CONFIG" else self.choice(["", "folder", "pipe", "é"])
            )
            if self.random() < 0.2:
                found["CRUCIBLE_PROFILE"] = self.choice(["p", "", "q", "é", "n" * 300])
        return found

    def command(self) -> list[str]:
        """Return a command that takes settings, without them."""
        return self.choices(
            [
                ["config"],
                ["doctor"],
                ["adapters", "show", self.choice([*PORTS, "retry", self.misspelt("blob_store")])],
                ["run", "--show-rows", "1"],
            ],
            [20, 1, 3, 2],
        )[0]


def case(seed: int, folder: Path) -> tuple[list[str], dict[str, str], str]:
    """Write the file of a case; return its arguments, its environment and its encoding."""
    draw = Draw(seed)
    tree = draw.settings()
    (folder / "crucible.toml").write_bytes(draw.file())
    name = draw.choice(["crucible.toml"] * 30 + ["nowhere.toml", "folder", "pipe", "/dev/zero"])
    arguments = [draw.argument(tree) for _ in range(draw.choice([0, 0, 0, 1, 2, 4]))]
    profile = draw.choice(
        [[]] * 8 + [["--profile", "p"], ["--profile", draw.choice(["p", "q", "", "é\udcff"])]]
    )
    file = [name] if draw.random() < 0.5 else []
    environ = draw.variables(tree)
    return [*draw.command(), *profile, *file, *arguments], environ, draw.choice(["utf-8", "ascii"])


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_configuration_gets_an_answer(folder: Path, block: int) -> None:
    size = CONFIGURATIONS // BLOCKS
    codes = set()
    for seed in range(block * size, (block + 1) * size):
        arguments, environ, encoding = case(seed, folder)
        try:
            codes.add(ask(folder, arguments, environ, encoding).code)
        except BaseException as error:
            error.add_note(f"seed {seed}: {arguments} with {environ}")
            raise
        ANSWERED["configurations, arguments and environments"] += 1
    assert codes >= {0, 2}  # both kinds are drawn


# --- runs ---


def test_runs_of_any_configuration_end(folder: Path) -> None:
    """The adapters and the length are fixed; everything else is drawn."""
    quick = ("training_client", "dataset_store", "blob_store", "metrics_store")
    ours = [f'adapters.{port}={{"use": "noop", "latency_scale": 0}}' for port in quick]
    ours += ["workflow.use=supervised", "workflow.max_steps=1", "workflow.batch_size=2"]
    codes = []
    for seed in range(15):
        draw = Draw(seed)
        workflow = {"model": "m", "dataset": "d"}
        for _ in range(draw.choice([0, 1, 2])):
            name = draw.choice(["seed", "run_id", "learning_rate", "lr_schedule", "stop", "model"])
            workflow[name] = draw.choice(SCALARS)
        (folder / "crucible.toml").write_text(f"workflow = {toml(workflow)}", errors="replace")
        codes.append(ask(folder, ["run", *ours], {}).code)
    assert 0 in codes


# --- traces ---


def _events(draw: Draw) -> list[dict[str, Any]]:
    """Return a trace."""
    lines = []
    for span in range(draw.randint(1, 12)):
        name = draw.choice(["adapter.call", "adapter.around", "workflow.run", "training.step"])
        about: dict[str, Any] = {"port": draw.choice(PORTS), "adapter": "noop", "callback": "read"}
        about |= {"duration_s": draw.random(), "run_id": "r", "error": None}
        parent = draw.choice([None, span - 1, span + 1])
        line = {"trace": draw.choice("ab"), "event": name, "time": 1e9 + draw.random()}
        lines.append({**line, "span": span, "parent": parent, "attributes": about})
    start = {"trace": "a", "event": "workflow.start", "time": 1e9, "span": None, "parent": None}
    return [
        {**start, "attributes": {"run_id": draw.choice(["r", "é", "\x1b[2J", "n" * 300])}},
        *lines,
    ]


HUGE = ("9" * 400, "9" * 5000, "-" + "9" * 400, "1e999", "-1e308", "NaN", "Infinity", "[" * 5000)


def trace(seed: int) -> bytes:
    draw = Draw(seed)
    lines = []
    for event in _events(draw):
        for _ in range(draw.choice([0, 0, 1, 2])):
            where: Any = draw.choice([event, event["attributes"]])
            key = draw.choice([*where]) if isinstance(where, dict) and where else "x"
            if isinstance(where, dict):
                where[key] = draw.choice([*SCALARS, *TABLES, 10**400, nested(400, lists=True)])
            if not isinstance(event.get("attributes"), dict):
                break
        text = json.dumps(event, default=str)
        if draw.random() < 0.2:
            number = draw.choice([": 1", ": 0.", ": null", '"r"'])
            text = text.replace(number, f": {draw.choice(HUGE)}", 1)
        line = text.encode()
        match draw.randrange(12):
            case 0:
                line = line[: draw.randrange(len(line))]
            case 1:
                at = draw.randrange(len(line))
                line = line[:at] + draw.randbytes(draw.randint(1, 5)) + line[at:]
            case 2:
                line = draw.choice(
                    [b"", b"\0" * 100, b"[]", b"{}", b"null", line + line, b"\xff\xfe"]
                )
        lines.append(line)
    end = draw.choice([b"\n", b"\r\n", b"\n\n"])
    return end.join(lines) + draw.choice([b"", end, b"\x00"])


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_trace_gets_an_answer(folder: Path, block: int) -> None:
    size = TRACES // BLOCKS
    codes = set()
    for seed in range(block * size, (block + 1) * size):
        (folder / "t.jsonl").write_bytes(trace(seed))
        chosen = Draw(seed).choice([[]] * 3 + [["--run", "r"], ["--run", "\udcff"]])
        try:
            codes.add(ask(folder, ["trace", "t.jsonl", *chosen], {}, "ascii").code)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        ANSWERED["traces"] += 1
    assert codes >= {0}


# --- processes of their own ---


def test_a_process_of_its_own_answers_the_same(
    plain_crucible: Crucible, folder: Path, tmp_path: Path
) -> None:
    """Its streams, arguments and environment are the system's: bytes that are not text."""
    for seed in range(2000, 2012):
        arguments, environ, _ = case(seed, tmp_path)
        answer = plain_crucible(*arguments, timeout=60, **environ)
        assert answer.code in (0, 1, 2), (seed, answer)
        assert "Traceback" not in answer.out + answer.err, (seed, answer)


PLAIN_C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    ("locale", "given"),
    [
        ({"LC_ALL": "C"}, b"\xff.jsonl"),
        ({"PYTHONIOENCODING": "ascii"}, b"\xff.jsonl"),
        (PLAIN_C, b"\xff.jsonl"),
        (PLAIN_C, "é日".encode()),
    ],
)
def test_a_text_that_the_locale_cannot_read_is_refused_in_a_line(
    folder: Path, locale: dict[str, str], given: bytes
) -> None:
    done = subprocess.run(
        [*COMMAND, "config", b"workflow.dataset=" + given],
        env=clean_environ(**locale),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2, done
    [line] = done.stderr.splitlines()
    assert line.startswith(
        b"error: argument workflow.dataset=: workflow.dataset is not Unicode text: it has "
    )


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))


def test_the_worst_files_need_no_more_than_a_gigabyte(folder: Path) -> None:
    with open("large", "wb") as file:
        file.truncate(2**33)
    Path("deep").write_text("[" * 2**24)
    for arguments in (["config", "large"], ["config", "deep"], ["trace", "deep"]):
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=clean_environ(OMP_NUM_THREADS="1"),
            capture_output=True,
            timeout=120,
            preexec_fn=_limited,
        )
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1, done


@pytest.mark.parametrize("text", ["k", "k.", "a:", " ", "é", "\\\\n"])
def test_a_text_as_long_as_a_file_may_be_takes_no_time(folder: Path, text: str) -> None:
    """Linear time: a quadratic step would take minutes, and is interrupted."""
    long = (text * 2**20)[: 2**18]
    given = f'workflow = {{ use = "supervised", model = "{long}", dataset = "d" }}'
    Path("crucible.toml").write_text(given)
    faulthandler.dump_traceback_later(60, exit=True)
    try:
        assert ask(folder, ["config"], {}).code in (0, 2)
        Path("crucible.toml").write_text(f'workflow = {{ use = "supervised", "{long}" = 1 }}')
        assert ask(folder, ["config"], {}).code == 2
    finally:
        faulthandler.cancel_dump_traceback_later()


def test_all_of_them_were_answered(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints how many there were; the tests above name those without an answer."""
    wanted = dict(zip(ANSWERED, (CONFIGURATIONS, TRACES), strict=True))
    if not all(ANSWERED.values()):
        pytest.skip("not all of the tests above were run")
    with capsys.disabled():
        print()
        for what, count in ANSWERED.items():
            print(f"{count:,} of {wanted[what]:,} fuzzed {what} answered")
    assert wanted == ANSWERED
