"""`crucible sample`: one prompt, a pipe, a conversation at a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import COMMAND, Crucible, Outcome, clean_environ
from crucible_kitchen import Completer, ConfigurationError, Kitchen, SamplingParams, Unsupported
from crucible_kitchen.cli.answering import Model, asked
from preloaded import Commands

import kitchen_noop
from kitchen_noop import CharTokenizer

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = { use = "noop", latency_scale = 0 }
completer = { use = "noop", latency_scale = 0 }
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 2
"""
ECHO = "adapters.completer.completion_text=forty-two"


@pytest.fixture(scope="module")
def folder(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run called `cities`."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "crucible.toml").write_text(CONFIG)
    run = ("run", "workflow.run_id=cities")
    code, _, err = commands.run(run, folder, clean_environ(), 120)
    assert code == 0, err
    return folder


@pytest.fixture
def in_folder(commands: Commands, folder: Path) -> Crucible:
    """The command, in that folder."""
    return lambda *arguments: Outcome(*commands.run(arguments, folder, clean_environ(), 120))


def piped(folder: Path, prompt: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "sample", *arguments],
        cwd=folder,
        env=clean_environ(),
        input=prompt,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- one prompt ---


def test_a_run_answers_with_its_weights(in_folder: Crucible, folder: Path) -> None:
    record = json.loads((folder / "runs/cities/run.json").read_text())
    outcome = in_folder("sample", "cities", "1+1=", "--json", "--seed", "3")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    assert (said["model"], said["prompt"]) == (record["weights"], "1+1=")
    [answer] = said["answers"]
    assert answer["finish_reason"] == "stop"
    again = in_folder("sample", "cities", "1+1=", "--seed", "3")
    assert again.out == answer["text"] + "\n"
    assert "makes its answers up" in again.err


def test_several_answers_are_told_apart(in_folder: Crucible) -> None:
    outcome = in_folder("sample", "cities", "hi", "--n", "3", "--seed", "1")
    assert len({*outcome.out.splitlines()}) == 3
    assert "answer 3 of 3" in outcome.err


def test_an_answer_that_is_cut_says_so(in_folder: Crucible) -> None:
    outcome = in_folder("sample", "cities", "hi", ECHO, "--max-tokens", "5")
    assert outcome.out == "forty\n"
    assert "cut off" in outcome.err


def test_a_prompt_may_be_piped_in(folder: Path) -> None:
    outcome = piped(folder, "1+1=\n", "cities", "--json")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["prompt"] == "1+1="


def test_a_folder_that_was_exported_answers_as_the_run(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "crucible.toml").write_text(CONFIG)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/noop.json").write_text('{"model": "any", "seed": 0, "steps": 2}')
    said = json.loads(plain_crucible("sample", "out", "hi", "--json").out)
    assert said["model"] == "out"


def test_characters_that_a_terminal_acts_on_are_shown_by_their_codes(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "crucible.toml").write_text(
        CONFIG.replace(
            'completer = { use = "noop"', r'completer = { use = "noop", completion_text = "\u001bc"'
        )
    )
    assert plain_crucible("sample", "any", "hi").out == "\\x1bc\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["citis", "hi"], "there is no run 'citis'; did you mean 'cities'?"),
        (["cities", ""], "the prompt is empty"),
        (["cities", "two", "words"], "one prompt, not 2; put it in quotes: 'two words'"),
        ([], "missing argument"),
    ],
)
def test_a_mistake_is_named(in_folder: Crucible, arguments: list[str], message: str) -> None:
    outcome = in_folder("sample", *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_a_repository_named_like_a_run_is_not_a_misspelt_run(in_folder: Crucible) -> None:
    assert json.loads(in_folder("sample", "me/cities", "hi", "--json").out)["model"] == (
        "me/cities"
    )


def test_a_name_like_that_of_a_run_can_be_a_models(in_folder: Crucible) -> None:
    outcome = in_folder("sample", "citis", "hi", "--model", "--json")
    assert json.loads(outcome.out)["model"] == "citis"


def test_a_run_without_weights_says_what_to_do(in_folder: Crucible, folder: Path) -> None:
    record = json.loads((folder / "runs/cities/run.json").read_text())
    prefix = record["checkpoint_prefix"].replace("cities", "failed")
    failed = {**record, "run_id": "failed", "checkpoint_prefix": prefix, "weights": None}
    (folder / "runs/failed").mkdir()
    (folder / "runs/failed/run.json").write_text(json.dumps(failed))
    outcome = in_folder("sample", "failed", "hi")
    assert outcome.code == 2
    assert "has no weights to sample from, but a checkpoint of step 2" in outcome.err
    assert "crucible export failed --to FOLDER" in outcome.err


def test_weights_that_the_completer_does_not_have_are_named(in_folder: Crucible) -> None:
    outcome = in_folder("sample", "noop://ephemeral/0/?model=any", "hi")
    assert outcome.code == 1
    assert "the ephemeral weights 'noop://ephemeral/0/?model=any' are gone" in outcome.err
    assert "it must be one that can load what the training client saves" in outcome.err


def test_without_a_completer_the_port_is_named(plain_crucible: Crucible, tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text(CONFIG.replace("completer =", "hub_client ="))
    outcome = plain_crucible("sample", "any", "hi")
    assert outcome.code == 2
    assert "completer" in outcome.err


# --- a conversation ---


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, "sample", *arguments],
            cwd=folder,
            env=clean_environ(TERM="dumb"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.said = ""

    def expect(self, text: str) -> str:
        """Read until this text comes; return what came before it, since the last call."""
        while text not in self.said:
            assert self._read(60), f"no {text!r} within 60 s, but {self.said!r}"
        before, _, self.said = self.said.partition(text)
        return before

    def interrupt(self) -> None:
        """Press Ctrl-C until something is said.

        Python misses a signal that comes after `input` has printed its prompt and before it waits
        for keys: it is handled at the next key, or at the next signal.
        """
        self.process.send_signal(signal.SIGINT)
        while not self._read(1):
            self.process.send_signal(signal.SIGINT)

    def _read(self, seconds: float) -> bool:
        """Read what is there, or comes within this time; tell whether anything did."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        self.said += os.read(self._ours, 1000).decode()
        return True

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(ctrl_c: None, folder: Path) -> Iterator[Terminal]:
    terminal = Terminal(folder, "cities", "--seed", "5", "--max-tokens", "200")
    yield terminal
    terminal.close()


@pytest.mark.slow
def test_a_conversation_goes_on_until_it_is_reset_and_ends_with_the_input(
    terminal: Terminal,
) -> None:
    """An answer depends on all turns before it: the same words, asked again, get another one, and
    after /reset the one of the beginning, with the seed of a later turn.
    """
    terminal.expect("Ctrl-D ends")
    answers = []
    for line in ("hello", "hello", "/reset", "   ", "hello"):
        terminal.expect("> ")
        terminal.type(f"{line}\n")
        if line == "hello":
            terminal.expect("hello\r\n")
            answers.append(terminal.expect("\r\n"))
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
    assert all(answers)
    assert len({*answers}) == 3


@pytest.mark.slow
def test_ctrl_c_ends_a_conversation_as_an_interruption(terminal: Terminal) -> None:
    terminal.expect("> ")
    terminal.interrupt()
    terminal.expect("interrupted")
    assert terminal.process.wait(60) == 130


# --- a model, as a completer serves it ---


@pytest.fixture
def completer() -> Iterator[Completer]:
    adapters = {"completer": {**kitchen_noop.ADAPTERS["completer"], "latency_scale": 0}}
    with Kitchen(adapters=adapters) as kitchen:
        yield kitchen.completer


PARAMS = SamplingParams(8, model="any")


def test_a_model_with_a_chat_template_is_given_messages(completer: Completer) -> None:
    model = Model.of(completer, PARAMS, "Be brief.")
    assert model.chats
    assert model.prompt([asked("hi")]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_a_model_without_one_continues_the_text(
    completer: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CharTokenizer, "chat_template", None, raising=False)
    model = Model.of(completer, PARAMS)
    assert not model.chats
    assert model.prompt([asked("before"), asked("2+3=")]) == CharTokenizer().encode("2+3=")
    with pytest.raises(ConfigurationError, match="--system: the model has no chat template"):
        Model.of(completer, PARAMS, "Be brief.")


def test_a_completer_without_a_tokenizer_is_given_messages(
    completer: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def helper(name: str) -> object:
        raise Unsupported(f"has no helper {name!r}")

    monkeypatch.setattr(completer, "helper", helper)
    assert Model.of(completer, PARAMS).prompt([asked("hi")]) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("streams", [True, False])
def test_pieces_are_the_whole_answer(
    completer: Completer, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    model = Model.of(completer, SamplingParams(30, seed=1))
    [whole] = model.answers([asked("hi")])
    supports = completer.supports
    monkeypatch.setattr(
        completer, "supports", lambda name: supports(name) and (streams or "stream" not in name)
    )
    pieces = list(model.pieces([asked("hi")]))
    assert (len(pieces) > 1) == streams
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].finish_reason == whole.finish_reason


def test_turns_have_seeds_of_their_own_and_none_without_a_seed(completer: Completer) -> None:
    seeded = Model.of(completer, SamplingParams(8, seed=5))
    assert [seeded.seeded(turn).params.seed for turn in range(3)] == [5, 6, 7]
    assert Model.of(completer, PARAMS).seeded(3).params.seed is None
