"""Tensors go to another process in memory that both share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

# vLLM leaves sockets to be closed when they are collected, perhaps while these tests run.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed context", "ignore:Exception ignored in")

torch = pytest.importorskip("torch", reason="torch is not installed")
memory = pytest.importorskip("crucible_adapter_vllm.shared_memory", exc_type=ImportError)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.int64, torch.bool]


def tensor(shape: list[int], dtype: Any) -> Any:
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)


@hypothesis.given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 5), max_size=3), st.sampled_from(DTYPES)), max_size=6
    )
)
def test_tensors_of_any_shape_and_type_arrive_as_they_are(
    described: list[tuple[list[int], Any]],
) -> None:
    given = [(str(k), tensor(*each)) for k, each in enumerate(described)]
    with memory.shared(given) as chunk:
        arrived = list(memory.mapped(chunk))
    assert [name for name, _ in arrived] == [name for name, _ in given]
    for (_, found), (_, expected) in zip(arrived, given, strict=True):
        assert found.dtype is expected.dtype
        assert torch.equal(found, expected)


def test_a_tensor_that_is_not_contiguous_arrives_in_its_order() -> None:
    turned = tensor([3, 4], torch.float32).T
    with memory.shared([("turned", turned)]) as chunk:
        [(_, found)] = memory.mapped(chunk)
    assert torch.equal(found, turned)


def test_another_process_reads_what_this_one_wrote() -> None:
    code = (
        "import json, sys; from crucible_adapter_vllm.shared_memory import Chunk, mapped\n"
        "[(_, found)] = mapped(Chunk(**json.loads(sys.argv[1]))); print(found.tolist())"
    )
    with memory.shared([("few", tensor([4], torch.float32))]) as chunk:
        command = [sys.executable, "-c", code, json.dumps(asdict(chunk))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[0.0, 1.0, 2.0, 3.0]\n"


def test_who_maps_a_chunk_keeps_it_and_cannot_change_it_for_others() -> None:
    with memory.shared([("few", tensor([4], torch.float32))]) as chunk:
        [(_, mine)] = memory.mapped(chunk)
        [(_, theirs)] = memory.mapped(chunk)
    mine.zero_()
    assert theirs.tolist() == [0, 1, 2, 3]


def test_the_memory_is_not_held_beyond_its_block() -> None:
    before = os.listdir("/proc/self/fd")
    with memory.shared([("few", tensor([4], torch.float32))]) as chunk:
        pass
    assert os.listdir("/proc/self/fd") == before
    assert not os.path.exists(chunk.path)


@hypothesis.given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 100))
def test_chunks_are_within_their_size_unless_one_tensor_is_larger(
    sizes: list[int], most: int
) -> None:
    given = [(str(k), torch.empty(size, dtype=torch.int8)) for k, size in enumerate(sizes)]
    chunks = list(memory.in_chunks(given, most))
    assert [name for chunk in chunks for name, _ in chunk] == [name for name, _ in given]
    for chunk in chunks:
        assert len(chunk) == 1 or sum(each.nbytes for _, each in chunk) <= most
