"""One Ray for all tests; a trainer and the actors that sample from what it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import Completer, Kitchen, SessionConfig, Unavailable
from crucible_kitchen.testing import bound
from vllm_model import MODELS, TEMPLATE, train

CPU = {"models": MODELS, "device": "cpu"}


@pytest.fixture(scope="session", autouse=True)
def local_ray() -> Iterator[None]:
    """One Ray for all tests: adapters that want a Ray of their own hold this one, too."""
    pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    from crucible_adapter_ray.cluster import connect
    from crucible_adapter_ray.options import ClusterOptions

    opts = ClusterOptions(object_store_memory=200_000_000)
    try:
        cluster = connect(opts)
    except Unavailable:  # Ray gives itself 30 s, which a busy machine may not suffice for
        cluster = connect(opts)
    yield
    cluster.close()


@pytest.fixture(scope="module")
def same_ray(local_ray: None) -> Iterator[None]:
    """Have other processes use this Ray: to start one of their own takes each of them long."""
    import ray

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield


@pytest.fixture(scope="session")
def kitchen(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """A trainer of one worker, and two actors that sample."""
    folder = tmp_path_factory.mktemp("checkpoints")
    template = tmp_path_factory.mktemp("template") / "chat.jinja"
    template.write_text(TEMPLATE)
    speaks = {"tiny": {**MODELS["tiny"], "chat_template": str(template)}}
    adapters = {
        "training_client": {"use": "ray", "checkpoint_dir": str(folder), **CPU, "models": speaks},
        "completer": {"use": "ray", "actors": 2, "model": "tiny", **CPU},
    }
    with Kitchen(adapters=adapters) as kitchen:
        yield kitchen


@pytest.fixture(scope="session")
def taught(kitchen: Kitchen) -> tuple[Any, Path]:
    """A session whose model answers in words, and mostly comes to an end; its weights as they are
    then, in a folder.
    """
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, 62)
    return session, Path(client.save_weights_for_sampler(session, "answers"))


@pytest.fixture(scope="session")
def session(taught: tuple[Any, Path]) -> Any:
    return taught[0]


@pytest.fixture(scope="session")
def folder(taught: tuple[Any, Path]) -> Path:
    return taught[1]


@pytest.fixture(scope="session")
def one_actor(local_ray: None) -> Iterator[Completer]:
    with bound("completer", "ray", model="tiny", **CPU) as completer:
        yield completer


@pytest.fixture(scope="session")
def two_actors(kitchen: Kitchen) -> Completer:
    return kitchen.completer
