"""`crucible trace`, and what switches tracing on."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import COMMAND, Crucible, clean_environ
from crucible_kitchen import AdapterError, AdapterOptions, BlobStore, Event, Kitchen, hookimpl
from crucible_kitchen.cli.trace import _columns, _read
from crucible_kitchen.messages.durations import duration
from crucible_kitchen.observers.jsonl import JsonLines
from crucible_kitchen.traces.lines import encode, read
from crucible_kitchen.traces.profile import profile
from crucible_kitchen.workflows import run_in

Mistake = Callable[..., str]

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = "noop"
blob_store = "noop"
metrics_store = "noop"
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 20
"""


def traced(folder: Path, *, run_id: str | None = None, **adapters: Any) -> None:
    """Run the workflow, and leave its trace in `t.jsonl`."""
    quick = {"use": "noop", "latency_scale": 0}
    ports = ("training_client", "dataset_store", "blob_store", "metrics_store")
    with Kitchen({**dict.fromkeys(ports, quick), **adapters}) as kitchen:
        kitchen.observe(JsonLines(folder / "t.jsonl"))
        test = {"test_dataset": "rows", "test_split": "test", "test_size": 4}
        config = {"model": "any", "dataset": "rows", "max_steps": 20, "save_every": 5, **test}
        run_in(kitchen, "supervised", {**config, "run_id": run_id})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crucible.toml").write_text(CONFIG)
    return tmp_path


def test_a_run_can_be_traced_and_its_trace_shows_where_the_time_went(
    crucible: Crucible, folder: Path
) -> None:
    ran = crucible("run", "--trace", "traces/run.jsonl")
    assert (ran.code, ran.err) == (0, "")
    result = crucible("trace", "traces/run.jsonl")
    assert result.code == 0
    assert result.err == "a stream's time includes what its caller did between items\n"
    head, totals, *rest = result.out.splitlines()
    assert head.startswith("supervised-")
    assert re.fullmatch(r"[\d.]+ m?s in all, \d+ calls, 0 errors", totals)
    text = "\n".join(rest)
    assert re.search(r"  waiting for results \(await_\) +\S+ \S+ +[\d.]+%", text)
    assert re.search(r"  training.step +\S+ \S+ +[\d.]+%  20 times", text)
    awaited = 2 * 20 + 1  # the gradient and the step, each time, and the last checkpoint
    assert re.search(rf"training_client +noop +await_ +{awaited} +0 ", text)
    assert text.splitlines()[-1] == text.splitlines()[-1].rstrip()


def test_the_shares_of_waiting_calling_and_neither_are_the_whole(
    crucible: Crucible, tmp_path: Path
) -> None:
    traced(tmp_path)
    shares = re.findall(r"^  (?:waiting|in).* ([\d.]+)%", crucible("trace", "t.jsonl").out, re.M)
    assert len(shares) == 3
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)


def on_a_terminal(folder: Path, *arguments: str, columns: int = 80) -> str:
    """Return what the command shows on a terminal, without its colours."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environ(COLUMNS=str(columns), TERM="xterm"),
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n")


def test_on_a_terminal_it_is_a_tree_that_fits_into_80_columns(tmp_path: Path) -> None:
    traced(tmp_path)
    shown = on_a_terminal(tmp_path, "trace", "t.jsonl")
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"^ training_client noop +\S+ m?s +[\d.]+%", shown, re.M)
    assert re.search(r"^   save_weights_for_sampler +1 ", shown, re.M)  # the longest, in one line
    assert "█" in shown


def test_a_narrow_terminal_loses_nothing(tmp_path: Path) -> None:
    traced(tmp_path)
    assert "…" not in on_a_terminal(tmp_path, "trace", "t.jsonl", columns=60)


class Wraps(AdapterOptions):
    inner: BlobStore


def test_the_time_of_a_wrapper_is_a_row_of_its_own(crucible: Crucible, tmp_path: Path) -> None:
    counting = ModuleType("counting")
    vars(counting).update(Options=Wraps, around=hookimpl(lambda call: call()))
    traced(tmp_path, blob_store={"use": counting, "inner": "noop"})
    result = crucible("trace", "t.jsonl").out
    rows = re.findall(r"^blob_store +(\S+) +(around )?write ", result, re.M)
    assert rows == [("counting", "around "), ("noop", "")]
    shown = on_a_terminal(tmp_path, "trace", "t.jsonl")
    assert re.search(
        r"^ blob_store +[\d.]+ .*\n  counting around .*\n(?:   .*\n)*?   write ", shown, re.M
    )


def test_an_error_is_counted(crucible: Crucible, tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        traced(tmp_path, training_client={"use": "noop", "latency_scale": 0, "failure_rate": 1})
    result = crucible("trace", "t.jsonl").out
    assert re.search(r", 1 error; it ended with \w+$", result.splitlines()[1])
    assert re.search(r"^training_client +noop +\w+ +\d+ +1 ", result, re.M)


def test_the_last_run_is_shown_and_another_can_be_chosen(
    crucible: Crucible, mistake: Mistake, tmp_path: Path
) -> None:
    for run in ("first", "second"):
        traced(tmp_path, run_id=run)
    last, more, *_ = crucible("trace", "t.jsonl").out.splitlines()
    assert (last, more) == ("second", "t.jsonl has more, see --run: first")
    assert crucible("trace", "t.jsonl", "--run", "first").out.startswith("first\n")
    said = mistake("trace", "t.jsonl", "--run", "third")
    assert "t.jsonl has no events of the run 'third'; it has first, second" in said


def test_attempts_at_a_run_are_added_up(crucible: Crucible, tmp_path: Path) -> None:
    for _ in range(2):
        traced(tmp_path, run_id="mine")
    assert crucible("trace", "t.jsonl").out.startswith("mine  in 2 attempts\n")


def test_a_stream_is_explained(crucible: Crucible, tmp_path: Path) -> None:
    with Kitchen({"blob_store": "noop"}) as kitchen:
        kitchen.observe(JsonLines(tmp_path / "t.jsonl"))
        kitchen.blob_store.write("a", b"1")
        assert list(kitchen.blob_store.stream("a")) == [b"1"]
    result = crucible("trace", "t.jsonl")
    assert result.out.startswith("no run\n")
    assert result.err == "a stream's time includes what its caller did between items\n"


class TestMistakes:
    def test_a_file_that_does_not_exist(self, mistake: Mistake) -> None:
        said = mistake("trace", "nowhere.jsonl")
        assert "there is no file 'nowhere.jsonl'; `crucible run --trace nowhere.jsonl`" in said

    def test_an_empty_file(self, mistake: Mistake, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").touch()
        assert "t.jsonl is empty" in mistake("trace", "t.jsonl")

    def test_a_file_of_blank_lines(self, mistake: Mistake, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_bytes(b"\n")
        assert "t.jsonl is empty" in mistake("trace", "t.jsonl")

    @pytest.mark.parametrize("content", [b"hello\n", b"\xff\x00\xfe", b'{"a": 1}\n[1]\n'])
    def test_a_file_that_is_not_a_trace(
        self, mistake: Mistake, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "t.jsonl").write_bytes(content)
        assert "t.jsonl is not a trace" in mistake("trace", "t.jsonl")

    def test_a_folder(self, mistake: Mistake, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").mkdir()
        assert "t.jsonl cannot be read: it is a folder, not a file" in mistake("trace", "t.jsonl")

    def test_a_torn_last_line_is_left_out_and_noted(
        self, crucible: Crucible, tmp_path: Path
    ) -> None:
        about = {"port": "blob_store", "adapter": "a", "callback": "read", "duration_s": 1.0}
        line = encode("t", Event("adapter.call", about, 1.0, 1))
        (tmp_path / "t.jsonl").write_bytes(line + line[:30])
        result = crucible("trace", "t.jsonl")
        assert result.code == 0
        assert "1.00 s in all, 1 call, 0 errors; it goes on, or was killed" in result.out
        assert "left out 1 line of t.jsonl: torn, or not an event" in result.err

    @pytest.mark.parametrize(
        ("trace", "why"),
        [("folder", "Is a directory"), ("crucible.toml/x", "its folder is a file")],
    )
    def test_a_trace_that_cannot_be_written_is_found_before_the_run(
        self, mistake: Mistake, folder: Path, trace: str, why: str
    ) -> None:
        (folder / "folder").mkdir()
        said = mistake("run", "--trace", trace)
        assert f"observe.jsonl: {trace} cannot be written: {why} (from argument" in said


class TestTable:
    def test_the_file_the_environment_and_the_command_line_switch_handlers_on(
        self, crucible: Crucible, folder: Path
    ) -> None:
        (folder / "crucible.toml").write_text(f'{CONFIG}[observe]\njsonl = "t.jsonl"\n')
        ran = crucible("run", CRUCIBLE_OBSERVE__CONSOLE="true")
        assert ran.code == 0
        assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  training.step 20/20 ", ran.err, re.M)
        assert "step 20/20" in ran.out  # the progress is there, too
        assert crucible("trace", "t.jsonl").code == 0

    def test_a_misspelt_key_is_named_with_its_source(self, mistake: Mistake, folder: Path) -> None:
        (folder / "crucible.toml").write_text(f"{CONFIG}[observe]\nconsle = true\n")
        for command in ("run", "config"):
            said = mistake(command)
            assert "observe.consle: observe has no such key; did you mean 'console'?" in said
            assert "(from crucible.toml)" in said

    def test_a_wrong_value_is_named_with_its_source_and_not_shown(
        self, mistake: Mistake, folder: Path
    ) -> None:
        said = mistake("run", "observe.console=perhaps")
        assert "observe.console: Input should be a valid boolean" in said
        assert "(from argument observe.console=)" in said
        assert "perhaps" not in said

    def test_a_table_without_a_key(self, mistake: Mistake, folder: Path) -> None:
        said = mistake("run", "observe=console")
        assert "argument observe=: write observe.<key>, such as observe.console=true" in said

    def test_config_shows_it_with_its_source(self, crucible: Crucible, folder: Path) -> None:
        (folder / "crucible.toml").write_text(f"{CONFIG}[observe]\nconsole = true\n")
        shown = crucible("config", "observe.jsonl=t.jsonl").out
        assert shown.endswith(
            "\n[observe]\n"
            "console = true  # crucible.toml\n"
            'jsonl = "t.jsonl"  # argument observe.jsonl=\n'
            "otel = false  # default\n"
        )
        assert not (folder / "t.jsonl").exists()

    def test_a_profile_may_have_one(self, crucible: Crucible, folder: Path) -> None:
        (folder / "crucible.toml").write_text(f"{CONFIG}[profile.dry.observe]\nconsole = true\n")
        shown = crucible("config", "--profile", "dry").out
        assert "console = true  # crucible.toml [profile.dry]" in shown

    def test_the_doctor_checks_it(self, crucible: Crucible, folder: Path) -> None:
        (folder / "crucible.toml").write_text(f"{CONFIG}[observe]\nconsole = true\n")
        good = crucible("doctor").out
        assert re.search(r"^observe +ok +console \(from crucible.toml\)", good, re.M)
        bad = crucible("doctor", "observe.consle=1").out
        assert re.search(r"^observe +FAIL +observe.consle: ", bad, re.M)

    def test_init_mentions_it(self, crucible: Crucible, tmp_path: Path) -> None:
        assert crucible("init").code == 0
        text = (tmp_path / "crucible.toml").read_text()
        assert "[observe]\n# Print a line per event on standard error.\n# console = false\n" in text

    def test_a_kitchen_that_is_loaded_in_code_observes_too(self, folder: Path) -> None:
        file = folder / "t.jsonl"
        arguments = ["adapters.blob_store=noop", f"observe.jsonl={file}"]
        with Kitchen.load(arguments=arguments, environ={}) as kitchen:
            kitchen.blob_store.exists("a")
        assert file.read_text().count("\n") == 1

    def test_an_exporter_that_takes_more_than_this_package_is_an_error(
        self, mistake: Mistake, folder: Path
    ) -> None:
        pytest.importorskip("opentelemetry.sdk")
        said = mistake("run", "observe.otel=true", OTEL_TRACES_EXPORTER="zipkin")
        assert "observe.otel: OTEL_TRACES_EXPORTER=zipkin" in said
        assert "opentelemetry-instrument" in said

    def test_spans_can_be_printed(self, crucible: Crucible, folder: Path) -> None:
        pytest.importorskip("opentelemetry.sdk")
        environ = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}
        ran = crucible("run", "observe.otel=true", "workflow.max_steps=1", **environ)
        assert ran.code == 0, ran.err
        assert '"name": "workflow supervised"' in ran.out
        assert '"service.name": "crucible"' in ran.out

    def test_without_the_extra_otel_it_says_what_to_install(
        self, mistake: Mistake, folder: Path
    ) -> None:
        # A package that hides the installed one, as if it were not there.
        hidden = folder / "hides" / "opentelemetry"
        hidden.mkdir(parents=True)
        (hidden / "__init__.py").write_text("raise ImportError('no opentelemetry')")
        path = os.pathsep.join([str(folder / "hides"), os.environ.get("PYTHONPATH", "")])
        said = mistake("run", "observe.otel=true", PYTHONPATH=path)
        assert "pip install 'crucible-kitchen[otel]' (from argument observe.otel=)" in said


# --- a trace that is anything but one ---


def event(name: str = "adapter.call", time: Any = 5.0, span: Any = 1, **about: Any) -> str:
    attributes = {"port": "blob_store", "adapter": "a", "callback": "read", **about}
    line = {"trace": "t", "event": name, "time": time, "span": span, "parent": None}
    return json.dumps({**line, "attributes": attributes})


GOOD = event(duration_s=2.0)


def shown(folder: Path, *lines: str) -> tuple[int, str]:
    """Return how many lines of a trace are left out, and what is shown of the others."""
    (folder / "t.jsonl").write_text("".join(f"{line}\n" for line in lines), errors="surrogatepass")
    found, left_out = _read(folder / "t.jsonl")
    result = profile(found)
    rows = [_columns(row, result) for row in result.rows]
    return left_out, f"{duration(result.elapsed)} {rows}"


@pytest.mark.parametrize(
    "line",
    [
        event(time=10**400),
        event(time=1e300),
        event(time=-1e13),
        event(time=0).replace('"time": 0', '"time": 1e999'),
        event(time=0).replace('"time": 0', f'"time": {"9" * 5000}'),
        event(more=0).replace('"more": 0', f'"more": {"9" * 5000}'),
        event(more=0).replace('"more": 0', f'"more": {"[" * 100_000}'),
        event(name=None),  # type: ignore[arg-type]
        "[" * 100_000,
        '{"trace": ' * 100_000,
        "\ud800",
        "\0",
    ],
    ids=lambda line: line[:30],
)
def test_a_line_that_is_no_event_is_left_out_and_counted(tmp_path: Path, line: str) -> None:
    assert shown(tmp_path, line, GOOD, line) == (2, *shown(tmp_path, GOOD)[1:])


@pytest.mark.parametrize("seconds", [10**400, 1e300, -1, 1e12, "2", None, [[2]]])
def test_a_duration_that_is_none_counts_as_no_time(tmp_path: Path, seconds: Any) -> None:
    assert shown(tmp_path, event(duration_s=seconds)) == shown(tmp_path, event(duration_s=0))


def test_what_is_counted_are_numbers_that_can_be_added(tmp_path: Path) -> None:
    many = [event(span=number, failed=10**4299, duration_s=1.0) for number in range(20)]
    assert "'20', '0'" in shown(tmp_path, *many)[1]


def test_names_that_are_no_texts_are_question_marks(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    for name in (deep, None, 5, {"a": 1}):
        line = event(port=name, adapter=name, callback=name, duration_s=1.0)
        assert "['?', '?', '?', '1'" in shown(tmp_path, line)[1]


def test_a_line_without_an_end_is_left_out_without_being_held(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with file.open("wb") as lines:
        lines.write(f"{GOOD}\n".encode())
        lines.truncate(2**26)
    tracemalloc.start()
    try:
        assert [line is None for line in read(file)] == [False, True]
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_not_waited_for(plain_crucible: Crucible, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("pipe", "a pipe"), ("/dev/zero", "a device"), (".", "a folder")):
        outcome = plain_crucible("trace", name, timeout=20)
        said = f"error: {name} cannot be read: it is {kind}, not a file\n"
        assert (outcome.code, outcome.err) == (2, said)


def test_nothing_is_written_to_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        JsonLines(tmp_path / "pipe")


def test_of_many_runs_ten_are_named(tmp_path: Path, plain_crucible: Crucible) -> None:
    starts = [event("workflow.start", run_id=f"run{number}", span=None) for number in range(500)]
    lines = [line.replace('"t"', f'"t{number}"') for number, line in enumerate(starts)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    outcome = plain_crucible("trace", "t.jsonl")
    assert outcome.out.startswith("run499\nt.jsonl has more, see --run: run0, run1, ")
    assert " and 489 more\n" in outcome.out
    outcome = plain_crucible("trace", "t.jsonl", "--run", "run77x")
    assert outcome.code == 2
    assert "no events of the run 'run77x'; it has run77, " in outcome.err
    assert "and 490 more" in outcome.err
