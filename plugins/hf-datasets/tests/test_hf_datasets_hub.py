"""What the dataset store promises about data sets of a hub, against a hub on this machine."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_hf_datasets.dataset_store as hf_datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from crucible_kitchen import (
    AdapterError,
    DatasetStore,
    InvalidInput,
    Kitchen,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from loopback_hub import Answer, Cut, Fault, LoopbackHub, Truncated, WrongBytes, redirect

pytestmark = pytest.mark.slow

REPO = "org/rows"
both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])

MakeStore = Callable[..., DatasetStore]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.chdir(tmp_path)
    with LoopbackHub() as hub:
        redirect(hub, tmp_path / "home", monkeypatch)
        yield hub


@pytest.fixture
def make(hub: LoopbackHub, tmp_path: Path) -> MakeStore:
    """Make stores that share a cache; arguments are options."""

    def make(**options: Any) -> DatasetStore:
        adapter = {"use": hf_datasets, "cache_dir": tmp_path / "cache", **options}
        return Kitchen(adapters={"dataset_store": adapter}).dataset_store

    return make


@pytest.fixture
def store(make: MakeStore) -> DatasetStore:
    return make()


def jsonl(*numbers: int) -> bytes:
    return "".join(json.dumps({"n": n}) + "\n" for n in numbers).encode()


def parquet(*numbers: int) -> bytes:
    file = io.BytesIO()
    pa.parquet.write_table(pa.table({"n": numbers}), file, row_group_size=1000)
    return file.getvalue()


def values(store: DatasetStore, handle: Any) -> list[int]:
    return [row["n"] for row in store.to_list(handle)]


def attempt(store: DatasetStore, repo_id: str, streaming: bool = False) -> list[int] | AdapterError:
    """Return the rows, or the error."""
    try:
        return values(store, store.load_dataset(repo_id, streaming=streaming))
    except AdapterError as error:
        return error


# --- what is loaded ---

CARD = b"""---
configs:
- config_name: small
  data_files:
  - {split: train, path: small/train.jsonl}
  - {split: test, path: small/test.jsonl}
- config_name: large
  data_files:
  - {split: train, path: large/*.jsonl}
---
"""


@both_ways
def test_a_name_is_a_configuration_and_a_split_one_of_its(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    files = {"README.md": CARD, "small/train.jsonl": jsonl(1, 2), "small/test.jsonl": jsonl(3)}
    files |= {f"large/{i}.jsonl": jsonl(10 * i, 10 * i + 1) for i in range(3)}
    hub.commit(REPO, files, "dataset")

    def load(name: str, split: str) -> list[int]:
        return values(store, store.load_dataset(REPO, split, name, streaming=streaming))

    assert load("small", "train") == [1, 2]
    assert load("small", "test") == [3]
    assert load("large", "train") == [0, 1, 10, 11, 20, 21]
    with pytest.raises(NotFound, match="no split 'dev'; it has train, test"):
        load("small", "dev")
    with pytest.raises(NotFound, match=r"'huge' not found.*'small', 'large'"):
        load("huge", "train")


@both_ways
def test_a_revision_is_a_branch_a_tag_or_a_commit(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    first = hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    hub.tag(REPO, "v1", first, "dataset")
    hub.commit(REPO, {"train.jsonl": jsonl(2)}, "dataset", branch="dev")
    hub.commit(REPO, {"train.jsonl": jsonl(3)}, "dataset")
    for revision, expected in {"v1": 1, first: 1, "dev": 2, "main": 3, None: 3}.items():
        handle = store.load_dataset(REPO, revision=revision, streaming=streaming)
        assert values(store, handle) == [expected]
    hub.commit(REPO, {"train.jsonl": jsonl(4)}, "dataset")
    assert values(store, store.load_dataset(REPO, streaming=streaming)) == [4]


@both_ways
def test_a_data_set_without_data_is_not_found(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    hub.commit(REPO, {"README.md": b"# No data\n"}, "dataset")
    with pytest.raises(NotFound, match=REPO):
        store.load_dataset(REPO, streaming=streaming)


@both_ways
def test_what_does_not_exist_is_not_found(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    values(store, store.load_dataset(REPO))
    with pytest.raises(NotFound, match="org/none"):
        store.load_dataset("org/none", streaming=streaming)
    with pytest.raises(NotFound, match=r"org/rows.*(?s:.*)v9"):
        store.load_dataset(REPO, revision="v9", streaming=streaming)


@both_ways
def test_what_is_read_from_the_hub_is_what_the_file_says(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    rows = {"n": "01001", "t": "NA", "d": "2024-01-05"}
    contents = {
        "train.csv": b"n,t,d\n01001,NA,2024-01-05\n",
        "train.tsv": b'n\tt\td\n"01001"\tNA\t2024-01-05\n',
        "train.jsonl": json.dumps(rows).encode(),
        "train.json.gz": gzip.compress(json.dumps([rows]).encode()),
        "train.parquet": parquet_of(rows),
    }
    for number, (name, content) in enumerate(contents.items()):
        hub.commit(f"org/exact-{number}", {name: content}, "dataset")
        handle = store.load_dataset(f"org/exact-{number}", streaming=streaming)
        assert store.to_list(handle) == [rows], name


def parquet_of(row: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist([row]), file)
    return file.getvalue()


@both_ways
def test_a_data_set_of_several_formats_is_refused_unless_its_readme_chooses(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    files = {"a.jsonl": jsonl(1), "b.csv": b"n\n2\n", "c.csv": b"n\n3\n"}
    hub.commit(REPO, files, "dataset")
    with pytest.raises(InvalidInput, match=r"several formats: csv \(b.csv and 1 more\), json"):
        store.load_dataset(REPO, streaming=streaming)
    card = b"---\nconfigs:\n- config_name: default\n  data_files: '*.jsonl'\n---\n"
    hub.commit(REPO, {**files, "README.md": card}, "dataset")
    assert values(store, store.load_dataset(REPO, streaming=streaming)) == [1]


@both_ways
def test_files_next_to_the_shards_are_not_part_of_a_data_set(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    files = {f"data/train-0000{i}-of-00002.parquet": parquet(i) for i in range(2)}
    hub.commit(REPO, {**files, "raw/source.csv": b"n\n9\n", "notes.txt": b"x\n"}, "dataset")
    assert values(store, store.load_dataset(REPO, streaming=streaming)) == [0, 1]


@both_ways
def test_files_that_the_library_reads_are_those_of_the_hub(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    hub.commit(REPO, {"train.tar": tar(b'{"n": 7}')}, "dataset")
    [row] = store.to_list(store.load_dataset(REPO, streaming=streaming))
    assert row["json"] == {"n": 7}


def tar(content: bytes) -> bytes:
    """Return an archive of one file, as of the format WebDataset."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("0.json")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_a_file_that_the_library_would_read_is_compared_first(
    store: DatasetStore, hub: LoopbackHub
) -> None:
    hub.commit(REPO, {"train.xml": b"<rows/>"}, "dataset")
    hub.fail(WrongBytes(), path="train.xml", method="GET")
    with pytest.raises(Unavailable, match=r"content for 'train\.xml' that differs"):
        store.load_dataset(REPO)


def test_offline_every_split_of_the_version_loaded_last_is_there(
    store: DatasetStore, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        files = {"train.jsonl": jsonl(number), "test.jsonl": jsonl(number * 10)}
        hub.commit(REPO, files, "dataset")
        values(store, store.load_dataset(REPO, "train"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert values(store, store.load_dataset(REPO, "test")) == [20]
    assert values(store, store.load_dataset(REPO, "test", streaming=True)) == [20]


def test_offline_a_version_that_was_not_downloaded_to_its_end_is_not_used(
    store: DatasetStore, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit(REPO, {"train-1.jsonl": jsonl(1), "train-2.jsonl": jsonl(2)}, "dataset")
    assert values(store, store.load_dataset(REPO)) == [1, 2]
    hub.commit(REPO, {"train-1.jsonl": jsonl(3), "train-2.jsonl": jsonl(4)}, "dataset")
    hub.fail(Cut(), path="train-2.jsonl")
    assert isinstance(attempt(store, REPO), Unavailable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert attempt(store, REPO) == [1, 2]


# --- who may have it ---


@both_ways
def test_a_gated_data_set_needs_a_token(make: MakeStore, hub: LoopbackHub, streaming: bool) -> None:
    hub.commit(REPO, {"README.md": b"# Rows\n", "train.jsonl": jsonl(1)}, "dataset")
    hub.gate(REPO, "dataset")
    with pytest.raises(Unauthorized, match="access is granted to each user"):
        make().load_dataset(REPO, streaming=streaming)
    store = make(token=hub.token)
    assert values(store, store.load_dataset(REPO, streaming=streaming)) == [1]


@both_ways
def test_a_private_data_set_is_not_found_without_its_token(
    make: MakeStore, hub: LoopbackHub, streaming: bool
) -> None:
    hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    hub.hide(REPO, "dataset")
    with pytest.raises(NotFound, match=REPO):
        make().load_dataset(REPO, streaming=streaming)
    store = make(token=hub.token)
    assert values(store, store.load_dataset(REPO, streaming=streaming)) == [1]


# --- a hub that fails ---


@both_ways
@pytest.mark.parametrize(
    ("headers", "wait"),
    [({"Retry-After": "7"}, 7.0), ({"RateLimit": '"api";r=0;t=55'}, 55.0), ({}, None)],
)
def test_a_rate_limit_is_raised_at_once_with_the_time_to_wait(
    store: DatasetStore,
    hub: LoopbackHub,
    streaming: bool,
    headers: dict[str, str],
    wait: float | None,
) -> None:
    hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    hub.fail(Answer(429, headers=headers))
    with pytest.raises(RateLimited) as caught:
        store.load_dataset(REPO, streaming=streaming)
    assert caught.value.retry_after == wait
    assert len(hub.requests) == 1


@both_ways
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Cut(), Unavailable),
        (Answer(429, headers={"Retry-After": "7"}), RateLimited),
        (Answer(500), Unavailable),
        (Answer(403), Unauthorized),
    ],
    ids=["cut", "429", "500", "403"],
)
def test_a_hub_that_fails_at_any_request_is_reported_and_an_older_version_never_loaded(
    store: DatasetStore,
    hub: LoopbackHub,
    fault: Fault,
    kind: type[AdapterError],
    streaming: bool,
) -> None:
    for k in range(20):
        repo_id = f"org/rows-{k}"
        hub.commit(repo_id, {"README.md": b"# Old\n", "train.jsonl": jsonl(0)}, "dataset")
        assert values(store, store.load_dataset(repo_id)) == [0]
        hub.commit(repo_id, {"README.md": b"# New\n", "train.jsonl": jsonl(1)}, "dataset")
        before = len(hub.requests)
        hub.fail(fault, skip=k)
        outcome = attempt(store, repo_id, streaming)
        if outcome == [1]:
            assert len(hub.requests) - before == k  # it needs no more: all were tried
            assert k > 5
            return
        assert isinstance(outcome, kind), (k, outcome)
        assert getattr(outcome, "retry_after", 7.0) == 7.0
        hub.mend()
        assert values(store, store.load_dataset(repo_id, streaming=streaming)) == [1]
    pytest.fail("a load is more requests than were tried")


@pytest.mark.parametrize("k", range(1, 8))
def test_a_hub_that_fails_once_never_makes_an_older_version_come_back(
    store: DatasetStore, hub: LoopbackHub, k: int
) -> None:
    hub.commit(REPO, {"README.md": b"# Old\n", "train.jsonl": jsonl(0)}, "dataset")
    store.load_dataset(REPO)
    hub.commit(REPO, {"README.md": b"# New\n", "train.jsonl": jsonl(1)}, "dataset")
    hub.fail(Answer(500), skip=k, times=1)
    outcome = attempt(store, REPO)
    assert outcome == [1] or (isinstance(outcome, Unavailable) and outcome.retryable)


@both_ways
def test_a_hub_that_is_down_is_unavailable_whatever_is_in_the_cache(
    store: DatasetStore, hub: LoopbackHub, streaming: bool
) -> None:
    hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    assert values(store, store.load_dataset(REPO)) == [1]
    hub.close()
    with pytest.raises(Unavailable, match=REPO) as caught:
        store.load_dataset(REPO, streaming=streaming)
    assert caught.value.retryable


@both_ways
@pytest.mark.parametrize("fault", [Cut(), Answer(503)], ids=["cut", "503"])
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_a_hub_that_fails_is_reported_once_and_no_library_logs_its_tries(
    store: DatasetStore,
    hub: LoopbackHub,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    streaming: bool,
    fault: Fault,
    skip: int,
) -> None:
    hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    hub.fail(fault, skip=skip)
    assert isinstance(attempt(store, REPO, streaming), Unavailable)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if "hub" in record.name] == []


def test_what_the_caller_is_handling_does_not_explain_a_failure(
    store: DatasetStore, hub: LoopbackHub
) -> None:
    hub.commit(REPO, {"README.md": b"# No data\n"}, "dataset")
    hub.fail(Answer(429), times=1)
    try:
        store.load_dataset(REPO)
    except RateLimited:
        second = attempt(store, REPO)
    assert isinstance(second, NotFound), second


def test_what_is_not_a_hub_is_unavailable(store: DatasetStore, hub: LoopbackHub) -> None:
    hub.commit(REPO, {"train.jsonl": jsonl(1)}, "dataset")
    hub.fail(Truncated(), path="/api/")
    with pytest.raises(Unavailable, match="does not answer as a hub"):
        store.load_dataset(REPO)


# --- streams ---


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_stream_that_is_cut_continues_without_losing_or_repeating_a_row(
    store: DatasetStore, hub: LoopbackHub, name: str, times: int
) -> None:
    make_file = jsonl if name.endswith("jsonl") else parquet
    hub.commit(REPO, {name: make_file(*range(20_000))}, "dataset")
    handle = store.load_dataset(REPO, streaming=True)
    hub.fail(Cut(after=0.6), path=name, method="GET", times=times)
    assert values(store, handle) == list(range(20_000))


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Cut(after=0.6), Unavailable), (Cut(), Unavailable), (Answer(429), RateLimited)],
)
def test_a_stream_that_cannot_go_on_is_an_error_behind_rows_that_are_right(
    store: DatasetStore, hub: LoopbackHub, name: str, fault: Fault, kind: type[AdapterError]
) -> None:
    make_file = jsonl if name.endswith("jsonl") else parquet
    hub.commit(REPO, {f"1-{name}": make_file(*range(500)), f"2-{name}": make_file(7)}, "dataset")
    handle = store.load_dataset(REPO, streaming=True)
    hub.fail(fault, path=f"2-{name}", method="GET")
    batches = store.stream(handle, batch_size=100)
    read = [row["n"] for batch in itertools.islice(batches, 5) for row in batch]
    assert read == list(range(500))
    with pytest.raises(kind) as caught:
        next(batches)
    assert caught.value.retryable
    hub.mend()
    assert values(store, store.skip(handle, 500)) == [7]


def test_a_shuffled_stream_stopped_anywhere_and_continued_with_skip_is_one_that_never_stopped(
    store: DatasetStore, hub: LoopbackHub
) -> None:
    count = 100_000
    parts = [range(start, start + count // 4) for start in range(0, count, count // 4)]
    files = {f"train-{i}.parquet": parquet(*part) for i, part in enumerate(parts)}
    hub.commit(REPO, files, "dataset")
    draw = random.Random(5)
    stops = sorted(draw.sample(range(1, count), 7))

    def shuffled() -> Any:  # each time from the start, as after a restart
        return store.shuffle(store.load_dataset(REPO, streaming=True), seed=3, buffer_size=5000)

    whole = values(store, shuffled())
    assert sorted(whole) == list(range(count))
    assert whole != list(range(count))

    continued: list[int] = []
    for start, end in itertools.pairwise([0, *stops, count]):
        part: list[int] = []
        with store.stream(store.skip(shuffled(), start), batch_size=997) as batches:
            for batch in batches:
                part += [row["n"] for row in batch]
                if len(part) >= end - start:  # leaves the stream in the middle
                    break
        continued += part[: end - start]
    assert continued == whole
