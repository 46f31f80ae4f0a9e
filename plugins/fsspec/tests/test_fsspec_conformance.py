"""The conformance suite on local disk and in memory; `test_fsspec_s3.py` has S3."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from crucible_kitchen import BlobStore
from crucible_kitchen.testing import LEVEL, BlobStoreConformance, bound

Reopen = Callable[[], AbstractContextManager[BlobStore]]


class TestLocalDisk(BlobStoreConformance):
    variant = "local disk"
    level = LEVEL

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: bound("blob_store", "fsspec", url=str(tmp_path / "blobs"))

    @pytest.fixture
    def blob_store(self, reopen: Reopen) -> Iterator[BlobStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Callable[[str], bytes | None]:
        def look_up(path: str) -> bytes | None:
            file = tmp_path / "blobs" / path
            return file.read_bytes() if file.is_file() else None

        return look_up

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "blobs"


class TestMemory(BlobStoreConformance):
    variant = "memory"
    ephemeral = "the blobs are in memory"
    level = LEVEL

    @pytest.fixture
    def reopen(self) -> Reopen:
        name = uuid.uuid4().hex
        return lambda: bound("blob_store", "fsspec", url=f"memory://{name}")

    @pytest.fixture
    def blob_store(self, reopen: Reopen) -> Iterator[BlobStore]:
        with reopen() as store:
            yield store
