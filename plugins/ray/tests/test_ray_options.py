"""What may be set, and what is refused before a process is started."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND
from crucible_adapter_ray import cluster
from crucible_adapter_ray.options import ClusterOptions, TrainingClientOptions
from crucible_adapter_torch.options import TrainingClientOptions as TorchOptions
from crucible_kitchen import CrucibleWarning, InvalidInput
from crucible_kitchen.testing import bound
from loopback_hub import LoopbackHub, environment
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "ray://head:10001"}, "is of a Ray Client"),
        ({"address": "auto", "object_store_memory": 10**9}, "a cluster has its own object store"),
        ({"device": "cuda:1"}, "Ray says which GPU a worker has"),
        ({"device": "mps"}, "it is auto, cpu or cuda"),
        ({"workers": 2, "gpus": 0.5}, "cannot share a GPU"),
        ({"gpus": 1.5}, "cannot share a GPU"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"strategy": "zero3"}, "'ddp' or 'fsdp'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingClientOptions(**options)


def test_a_worker_alone_may_share_its_gpu_with_others() -> None:
    assert TrainingClientOptions(gpus=0.5).gpus == 0.5


def test_everything_that_torch_has_is_passed_on_and_its_folder_is_absolute() -> None:
    opts = TrainingClientOptions(workers=3, micro_batch_tokens=7, checkpoint_dir=Path("here"))
    found = opts.of_torch()
    assert type(found) is TorchOptions
    assert found.micro_batch_tokens == 7
    assert found.checkpoint_dir == Path.cwd() / "here"


def test_another_cluster_in_the_same_process_is_refused() -> None:
    with pytest.raises(InvalidInput, match="this process is connected to the Ray at"):
        cluster.connect(ClusterOptions(address="10.0.0.1:6379"))


def test_a_ray_of_one_s_own_is_not_the_cluster_that_auto_means() -> None:
    with pytest.raises(InvalidInput, match="cannot use 'auto' as well"):
        cluster.connect(ClusterOptions(address="auto"))


def test_an_object_store_of_another_size_than_there_is_is_refused() -> None:
    with pytest.raises(InvalidInput, match="object_store_memory = 100000000: the Ray at"):
        cluster.connect(ClusterOptions(object_store_memory=100_000_000))
    cluster.connect(ClusterOptions(object_store_memory=200_000_000)).close()


def test_the_variable_of_ray_takes_the_place_of_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(InvalidInput, match=r"cannot use '10\.0\.0\.1:6379' as well"):
        cluster.connect(ClusterOptions())


def test_an_address_where_nothing_is_fails_at_once() -> None:
    program = """
import time
from crucible_adapter_ray.cluster import connect
from crucible_adapter_ray.options import ClusterOptions
from crucible_kitchen import InvalidInput, Unavailable
for address, kind in (("127.0.0.1:1", Unavailable), ("head", InvalidInput)):
    begun = time.monotonic()
    try:
        connect(ClusterOptions(address=address))
    except kind as error:
        assert time.monotonic() - begun < 10
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    said = done.stdout.decode()
    assert "no Ray at 127.0.0.1:1: nothing answers" in said
    assert "address 'head': it is `auto`, or `host:port` of the head" in said


@pytest.mark.parametrize(
    ("port", "name"), [("training_client", "workers"), ("completer", "actors")]
)
def test_a_ping_warns_of_a_cluster_that_is_too_small(port: str, name: str) -> None:
    import ray

    there: dict[str, Any] = {"address": ray.get_runtime_context().gcs_address, "device": "cpu"}
    said = f"{name} = 2000 take 2000 processors, and the Ray cluster has 1024 processors and 0 GPUs"
    with (
        bound(port, "ray", **there, **{name: 2000}) as adapter,
        pytest.warns(CrucibleWarning, match=said),
    ):
        adapter.ping()
    with bound(port, "ray", **there, **{name: 2}) as adapter:
        adapter.ping()  # where a warning is an error


def test_what_ray_prints_of_its_processes_is_logged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from ray._private import worker

    with caplog.at_level(logging.INFO, logger="crucible_adapter_ray"):
        worker.print_to_stdstream({"pid": "raylet", "lines": ["A worker died."]}, False)
    assert caplog.messages == ["raylet: A worker died."]
    assert capsys.readouterr() == ("", "")


UNKNOWN_MODEL = """
import sys
from crucible_kitchen import AdapterError, Kitchen, SessionConfig

with Kitchen({"training_client": {"use": "ray", "checkpoint_dir": sys.argv[1]}}) as kitchen:
    try:
        kitchen.training_client.start_session(SessionConfig("small"))
    except AdapterError as error:
        print(type(error).__name__, error.reason)
assert not {"ray", "torch", "transformers"} & sys.modules.keys()
"""
OF_TORCH = """
[adapters]
training_client = { use = "torch", models.small = { model_type = "llama", hidden_size = 16 } }
dataset_store = "noop"
blob_store = "noop"
metrics_store = "noop"
[workflow]
use = "supervised"
model = "small"
dataset = "rows"
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub without a model, which processes that are started ask."""
    with LoopbackHub() as hub:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        for name, value in environment(hub, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.mark.usefixtures("hub")
def test_a_name_of_no_model_is_refused_before_ray_is_imported(tmp_path: Path) -> None:
    program = [sys.executable, "-c", UNKNOWN_MODEL, str(tmp_path)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("NotFound no model 'small'")


@pytest.mark.parametrize("away", [False, True])
def test_a_model_of_an_adapter_that_ray_replaced_is_explained(
    tmp_path: Path, hub: LoopbackHub, away: bool
) -> None:
    (tmp_path / "crucible.toml").write_text(OF_TORCH)
    if away:
        hub.close()
    command = [*COMMAND, "run", "adapters.training_client=ray"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    error, *notes = done.stderr.splitlines()[-2:]
    assert "the hub cannot be reached" in error if away else "no model 'small'" in error
    assert notes == [
        "adapters.training_client.models.small is set for 'torch' (crucible.toml), which 'ray' "
        "(argument adapters.training_client=) replaced together with its options: set it for "
        "'ray', too, or write use = \"ray\" there"
    ]


def test_the_adapters_are_listed_without_importing_ray_or_torch() -> None:
    program = """
import crucible_adapter_ray.training_client, crucible_adapter_ray.completer, sys
assert not {"ray", "torch", "transformers"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
