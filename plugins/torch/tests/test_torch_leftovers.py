"""What killed processes leave among the checkpoints, what is damaged there, and full disks."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from crucible_adapter_torch import checkpoints, cleaning, exports, folders, inspection, unfinished
from crucible_adapter_torch.checkpoints import Checkpoint
from crucible_kitchen import (
    CrucibleWarning,
    InvalidInput,
    SessionConfig,
    Unauthorized,
    Unavailable,
)
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # os.fork

SMALL = Checkpoint({"w": torch.arange(3.0)}, {}, {"base": None})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ckpt"


def train(client, session, datums):
    client.forward_backward(session, datums)
    client.await_(client.optim_step(session, 1e-2))


def state(session):
    engine = session.engine
    return {n: t.detach().clone() for n, t in {**engine.weights, **engine.moments()}.items()}


def assert_equal_to_the_bit(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def clean(folder, prefix="", keep=(), dry_run=False):
    return cleaning.clean(folder, prefix, keep, dry_run)


def partial(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".partial")]


# --- killed processes ---


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def when_claimed(patch):
    patch.setattr(Path, "mkdir", lambda self, *a, **k: die() if ".partial" in self.name else None)


def when_written(patch):
    patch.setattr(folders, "sync", die)


def when_named(patch):
    patch.setattr(unfinished.shutil, "rmtree", die)


def killed(patch, how, act):
    """Let another process die as `how` arranges it, while it acts."""
    if (child := os.fork()) == 0:
        try:
            how(patch)
            act()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


INSTANTS = [when_claimed, when_written, when_named]


@pytest.mark.parametrize("how", INSTANTS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("prefix", ["", "run/1/"])
def test_what_a_killed_save_leaves_is_removed(folder, monkeypatch, how, prefix):
    whole = checkpoints.save(folder, "run/1/whole", SMALL)
    killed(monkeypatch, how, lambda: checkpoints.save(folder, "run/1/half", SMALL))
    complete = [ref for ref in checkpoints.list_references(folder, "") if ref != whole]
    assert partial(folder)
    named = clean(folder, prefix, [whole], dry_run=True)
    assert partial(folder)
    assert clean(folder, prefix, [whole]) == named
    assert partial(folder) == []
    assert checkpoints.list_references(folder, "") == [whole, *([] if prefix else complete)]


def test_what_a_killed_deletion_leaves_is_removed(folder, monkeypatch):
    reference = checkpoints.save(folder, "run/1/x", SMALL)
    killed(monkeypatch, when_named, lambda: checkpoints.delete(folder, reference))
    assert checkpoints.list_references(folder, "") == []
    assert len(clean(folder, "run/1/")) == 1
    assert os.listdir(folder) == []


def test_under_a_prefix_what_others_left_stays(folder, monkeypatch):
    killed(monkeypatch, when_written, lambda: checkpoints.save(folder, "run/10/half", SMALL))
    assert clean(folder, "run/1/") == []
    assert partial(folder)
    assert len(clean(folder, "run/10/")) == 1
    assert partial(folder) == []


def test_what_is_being_written_is_spared_without_a_prefix(folder):
    with folders.new_folder(folder, "run/1/x") as (path, _):
        (path / "file").write_bytes(b"content")
        assert clean(folder) == []
        assert clean(folder, "run/10/") == []
        assert clean(folder, "run/1/", dry_run=True) == [str(path)]


def test_an_export_that_was_killed_is_removed_with_its_name(client, folder, monkeypatch):
    session = client.start_session(SessionConfig("tiny"))
    export = session._export
    killed(monkeypatch, when_written, lambda: export("run/1/weights"))
    kept = client.save_weights_for_sampler(session, "run/1/weights")
    assert len(client.clean("run/1/", [kept])) == 1
    assert os.listdir(folder / "sampler") == [Path(kept).name]
    assert client.clean("run/1/") == [kept]
    assert os.listdir(folder / "sampler") == []


def test_saved_weights_are_kept_wherever_their_folder_lies_now(
    client, folder, tmp_path, monkeypatch
):
    session = client.start_session(SessionConfig("tiny"))
    kept = client.save_weights_for_sampler(session, "run/1/weights")
    folder.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to("moved")
    monkeypatch.chdir(tmp_path)
    for moved in (Path("moved"), Path("link"), tmp_path / "moved"):
        assert clean(moved, "run/1/", [kept]) == []


def test_weights_that_older_versions_saved_stay(client, folder):
    session = client.start_session(SessionConfig("tiny"))
    weights = Path(client.save_weights_for_sampler(session, "run/1/weights"))
    (weights / exports.NAME).unlink()
    assert client.clean("run/1/") == []


def test_what_cannot_be_removed_is_told_and_stops_nothing(folder, monkeypatch):
    for name in "ab":
        checkpoints.save(folder, f"run/1/{name}", SMALL)
    remove = unfinished.remove_whole

    def refuse(path):
        if path.name.startswith("run%2F1%2Fa"):
            raise PermissionError(errno.EACCES, "not yours")
        remove(path)

    monkeypatch.setattr(unfinished, "remove_whole", refuse)
    with pytest.warns(CrucibleWarning, match="cannot be removed: not yours"):
        assert len(clean(folder, "run/1/")) == 1


@pytest.mark.parametrize("kind", ["a-file", "a-loop", "a-link", "a-pipe", "an-empty-folder"])
def test_whatever_has_the_name_of_what_is_unfinished_goes(folder, kind):
    kept = checkpoints.save(folder, "run/1/x", SMALL)
    FOREIGN[kind](folder / ".partial-odd")
    os.mkfifo(folder / ".partial-pipe.json")
    assert len(clean(folder)) == 2
    assert os.listdir(folder) == [kept]
    assert len(checkpoints.list_references(folder.parent / "elsewhere", "")) == (kind == "a-link")


def test_nothing_is_made_where_there_is_nothing(client, tmp_path):
    assert client.clean() == client.clean("run/") == []
    assert os.listdir(tmp_path) == []


# --- what is damaged, or belongs to somebody else ---


def a_file(path):
    path.write_text("{}")


def a_pipe(path):
    path.mkdir()
    os.mkfifo(path / "state.json")


def a_loop(path):
    path.symlink_to(path)


def a_link_to_a_checkpoint(path):
    target = checkpoints.save(path.parent.parent / "elsewhere", "run/1/x", SMALL)
    path.symlink_to(path.parent.parent / "elsewhere" / target)


def too_large(path):
    path.mkdir()
    with (path / "state.json").open("wb") as file:
        file.truncate(1 << 40)


def says(content):
    def make(path):
        path.mkdir()
        (path / "state.json").write_bytes(content)

    return make


FOREIGN = {
    "a-file": a_file,
    "an-empty-folder": Path.mkdir,
    "a-pipe": a_pipe,
    "a-loop": a_loop,
    "a-link": a_link_to_a_checkpoint,
    "too-large": too_large,
    "empty": says(b""),
    "binary": says(bytes(range(256))),
    "a-list": says(b"[]"),
    "deep": says(b"[" * 100_000),
    "long-number": says(b'{"format": ' + b"1" * 5000 + b', "label": "run/1/x"}'),
    "no-label": says(b'{"format": 1}'),
    "no-format": says(b'{"label": "run/1/x"}'),
    "odd-label": says(b'{"format": 1, "label": ["run/1/x"]}'),
    "no-files": says(b'{"format": 1, "label": "else"}'),
    "surrogate-\udc80": says(b"{}"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_damaged_is_passed_over_and_named_by_ping(client, folder, name):
    session = client.start_session(SessionConfig("tiny"))
    good = client.save_checkpoint(session, "run/1/good")
    FOREIGN[name](folder / name)
    assert [ref for ref in client.list_checkpoints() if ref != name] == [good]
    with pytest.warns(CrucibleWarning) as told:
        client.ping()
    assert [ascii(name)[1:-1] in str(each.message) for each in told] == [True]
    assert client.clean("run/1/", [good]) == []
    assert os.path.lexists(folder / name)
    assert client.clean("run/1/") == [good]
    assert client.list_checkpoints("run/") == []


def test_ping_tells_of_ten_and_counts_the_rest(client, folder):
    for number in range(13):
        (folder / f"{number}").mkdir(parents=True)
    with pytest.warns(CrucibleWarning) as told:
        client.ping()
    assert len(told) == 11
    assert "3 more" in str(told[-1].message)


def test_ping_is_silent_about_checkpoints_and_leaves_nothing(client, folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.ping()
        assert os.listdir(tmp_path) == []
        session = client.start_session(SessionConfig("tiny"))
        client.save_checkpoint(session, "x")
        client.save_weights_for_sampler(session, "x")
        client.ping()


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def changed_in_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def no_tensors(path):
    path.write_bytes(b"\xff" * 64)


def gone(path):
    path.unlink()


def piped(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = [cut, changed_in_a_bit, no_tensors, gone, piped]


@pytest.mark.parametrize("file", [checkpoints.WEIGHTS, checkpoints.MOMENTS])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_tensors_are_invalid_and_change_nothing(client, datums, folder, file, damage):
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    train(client, session, datums)
    before = state(session)
    damage(folder / reference / file)
    with pytest.raises(InvalidInput, match=file):
        client.load_checkpoint(session, reference)
    with pytest.raises(InvalidInput, match=file):
        client.start_session(SessionConfig("tiny", from_checkpoint=reference, with_optimizer=True))
    assert_equal_to_the_bit(state(session), before)
    train(client, session, datums)


@pytest.mark.parametrize(
    "facts",
    [
        {"randomness": None},
        {"randomness": {"seed": 0}},
        {"randomness": {"seed": 0, "passes": "1"}},
        {"randomness": {"seed": 0, "passes": -1}},
        {"randomness": {"seed": 0.5, "passes": 1}},
        {"randomness": {"seed": True, "passes": 1}},
        {"base": ["other"]},
        {"format": "1"},
        {"label": None},
        {"sha256": []},
        {"sha256": {"weights.safetensors": 5}},
    ],
    ids=str,
)
def test_facts_of_a_wrong_kind_are_invalid_and_change_nothing(client, datums, folder, facts):
    session = client.start_session(SessionConfig("tiny"))
    reference = client.save_checkpoint(session, "x")
    file = folder / reference / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    before = state(session)
    with pytest.raises(InvalidInput, match=reference):
        client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(state(session), before)
    train(client, session, datums)


def test_weights_of_another_type_are_invalid(client, folder):
    session = client.start_session(SessionConfig("tiny"))
    reference = client.save_checkpoint(session, "x")
    file = folder / reference / checkpoints.WEIGHTS
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(InvalidInput, match="type"):
        client.load_checkpoint(session, reference)


def test_a_checkpoint_of_an_older_version_has_no_digests_and_is_read(client, datums, folder):
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums)
    before = state(session)
    reference = client.save_checkpoint(session, "x")
    file = folder / reference / "state.json"
    facts = json.loads(file.read_text())
    del facts["sha256"]
    file.write_text(json.dumps(facts))
    train(client, session, datums)
    client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(state(session), before)


# --- full disks, and what is known before ---


@contextlib.contextmanager
def largest_file(size):
    """Let no file of this process grow beyond this, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 500, 6000])  # the label, the first file, all but the last
def test_a_save_without_room_is_unavailable_and_leaves_nothing(client, datums, folder, room):
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums)
    before = state(session)
    for save in (client.save_checkpoint, client.save_weights_for_sampler):
        with largest_file(room), pytest.raises(Unavailable, match=str(folder)) as caught:
            save(session, "x")
        assert caught.value.no_effect
    assert [path for path in folder.rglob("*") if path.name != "sampler"] == []
    assert_equal_to_the_bit(state(session), before)
    train(client, session, datums)
    client.load_checkpoint(session, client.save_checkpoint(session, "x"))


@pytest.fixture
def disk(folder):
    """A disk of 256 KiB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_what_was_saved_stays_and_deleting_helps(client, disk):
    session = client.start_session(SessionConfig("tiny"))
    saved = []

    def fill(save):
        for _ in range(100):
            saved.append(save(session, "x"))

    with pytest.raises(Unavailable, match="No space left"):
        fill(client.save_checkpoint)
    complete = [*saved]
    with pytest.raises(Unavailable, match="No space left"):
        fill(client.save_weights_for_sampler)
    assert partial(disk) == []
    assert client.list_checkpoints() == complete
    assert client.clean("x", saved[1:]) == saved[:1]
    client.load_checkpoint(session, complete[-1])
    client.save_checkpoint(session, "x")


def test_the_estimate_is_a_little_more_than_what_is_saved(client, datums, folder):
    session = client.start_session(SessionConfig("deep"))
    train(client, session, datums)
    asked = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "check_storage", asked.update)
        client.check_storage(session, 2)
    for _ in range(2):
        client.save_checkpoint(session, "x")
    client.save_weights_for_sampler(session, "x")
    sizes = dict.fromkeys(asked, 0)
    for file in filter(Path.is_file, folder.rglob("*")):
        sizes[folder / "sampler" if "sampler" in file.parts else folder] += file.stat().st_size
    for place, size in sizes.items():
        assert size <= asked[place] <= size + 3 * 96 * 1024


def test_too_little_space_is_known_before_with_both_figures(client, folder, tmp_path):
    session = client.start_session(SessionConfig("tiny"))
    with pytest.raises(Unavailable, match=r"[\d,]+ bytes are needed .* [\d,]+ are free") as caught:
        client.check_storage(session, 10**12)
    assert str(folder) in caught.value.reason
    assert caught.value.no_effect
    assert os.listdir(tmp_path) == []


def test_space_is_counted_once_for_both_folders_of_a_disk(client, disk):
    session = client.start_session(SessionConfig("tiny"))
    with pytest.raises(Unavailable, match="needed") as caught:
        client.check_storage(session, 1)  # which alone would fit, and the weights, too
    assert str(disk / "sampler") in caught.value.reason
    client.check_storage(session, 0)


def test_a_place_that_is_no_folder_is_known_before(client, folder):
    session = client.start_session(SessionConfig("tiny"))
    folder.write_text("a file")
    for call in (lambda: client.check_storage(session), client.ping):
        with pytest.raises(InvalidInput, match=str(folder)):
            call()


def test_a_folder_for_weights_that_cannot_be_made_is_known_before(client, folder):
    session = client.start_session(SessionConfig("tiny"))
    folder.mkdir()
    (folder / "sampler").write_text("a file")
    with pytest.raises(InvalidInput, match="sampler"):
        client.check_storage(session)


@pytest.fixture
def forbidden(folder):
    """A folder that this process may not write to, though it is the superuser's."""
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield folder
        os.seteuid(0)
    else:
        yield folder
    folder.chmod(0o700)


def test_a_folder_that_may_not_be_written_is_known_before(client, make_kitchen, folder, request):
    session = client.start_session(SessionConfig("tiny"))
    request.getfixturevalue("forbidden")
    attempts = [
        lambda: client.check_storage(session),
        lambda: client.save_checkpoint(session, "x"),
        client.ping,
    ]
    for attempt in attempts:
        with pytest.raises(Unauthorized, match=str(folder)):
            attempt()


def test_a_library_that_tells_of_a_full_disk_in_its_own_words_is_understood(folder):
    with (
        pytest.raises(Unavailable, match="No space left"),
        folders.new_folder(folder, "x"),
    ):
        raise Exception("No space left on device (os error 28)")  # as tokenizers says


# --- what results depend on ---


def test_options_that_change_results_are_told(make_kitchen, models, tmp_path):
    def info(**options):
        client = make_kitchen(**options).training_client
        session = client.start_session(SessionConfig("tiny"))
        return dict(client.get_info(session))

    usual = info()
    assert usual["device"] == "cpu"
    assert usual["dtype"] == "float32"
    wider = {"tiny": {**models["tiny"], "rope_parameters": {"rope_theta": 5.0}}}
    for name, options in {
        "dtype": {"dtype": "bfloat16"},
        "micro_batch_tokens": {"micro_batch_tokens": 7},
        "adapter": {"adapter": "continue"},
        "model_config": {"models": wider},
    }.items():
        changed = info(**options)
        assert {key for key in usual if usual[key] != changed[key]} == {name}
    assert info(checkpoint_dir=tmp_path / "elsewhere") == usual


def test_the_configuration_of_a_model_in_a_folder_counts(client):
    session = client.start_session(SessionConfig("tiny"))
    model = client.save_weights_for_sampler(session, "x")
    before = client.get_info(client.start_session(SessionConfig(model)))["model_config"]
    file = Path(model, "config.json")
    file.write_text(file.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    after = client.get_info(client.start_session(SessionConfig(model)))["model_config"]
    assert before != after
