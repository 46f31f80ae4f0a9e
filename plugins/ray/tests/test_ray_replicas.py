"""What an actor keeps of the weights of sessions: here in the process of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray
from crucible_adapter_ray import live
from crucible_adapter_ray.live import Live
from crucible_kitchen import Completer, NotFound, SessionConfig
from crucible_kitchen.testing import bound
from vllm_model import MODELS

torch = pytest.importorskip("torch", reason="torch is not installed")

CONFIG = SessionConfig("tiny")
TEXT = [[1, 2, 3, 4]]


@pytest.fixture(scope="module")
def published(
    local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Live, Live]]:
    """Weights of a session at two times."""
    from crucible_adapter_torch.distributed import LiveWeights, Rank
    from crucible_adapter_torch.options import TrainingClientOptions

    folder = tmp_path_factory.mktemp("checkpoints")
    opts: Any = TrainingClientOptions(models=MODELS, device="cpu", checkpoint_dir=folder)
    rank = Rank(opts, CONFIG)
    first = rank.live()
    assert first is not None
    arrays: Any = {name: np.multiply(array, 0.5) for name, array in first.arrays.items()}
    then = replace(first, arrays=arrays)
    assert isinstance(then, LiveWeights)
    references = [live.publish(ray.put(weights), opts, CONFIG) for weights in (first, then)]
    yield live.find(references[0]), live.find(references[1])
    for reference in references:
        live.withdraw(reference)


@pytest.fixture
def completer() -> Iterator[Completer]:
    with bound("completer", "torch", device="cpu") as completer:
        yield completer


def replicas() -> Any:
    from crucible_adapter_ray.sampling.options import CompleterOptions
    from crucible_adapter_ray.sampling.replicas import Replicas

    return Replicas(CompleterOptions(device="cpu"))


def test_weights_are_taken_once_and_make_room_for_others_of_their_session(
    published: tuple[Live, Live], completer: Completer
) -> None:
    first, then = published
    kept = replicas()
    name = kept.name_of(first)
    assert kept.name_of(first) == name
    [before] = completer.score(TEXT, name)
    other = kept.name_of(then)
    assert other != name
    [after] = completer.score(TEXT, other)
    assert np.abs(before - after).max() > 1e-4
    with pytest.raises(NotFound):
        completer.score(TEXT, name)
    [again] = completer.score(TEXT, kept.name_of(first))
    np.testing.assert_array_equal(again, before)


def test_the_model_of_a_session_that_has_nothing_published_any_more_is_freed(
    published: tuple[Live, Live], completer: Completer
) -> None:
    first, _ = published
    kept = replicas()
    name = kept.name_of(first)
    kept.keep(live.models())
    completer.score(TEXT, name)
    kept.keep(frozenset())
    with pytest.raises(NotFound):
        completer.score(TEXT, name)


def test_weights_that_could_not_be_taken_are_taken_when_they_are_asked_for_again(
    published: tuple[Live, Live], completer: Completer
) -> None:
    first, then = published
    kept = replicas()
    [before] = completer.score(TEXT, kept.name_of(first))
    broken = Live("ray-live:broken", ray.put("not weights"), then.opts, then.config)
    with pytest.raises(AttributeError):
        kept.name_of(broken)
    [again] = completer.score(TEXT, kept.name_of(first))
    np.testing.assert_array_equal(again, before)
