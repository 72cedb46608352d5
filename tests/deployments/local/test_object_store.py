"""The object store refuses what does not fit, instead of writing it to a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.local import object_store
from tests.deployments.system import ROOT

MIB = 1024**2


@pytest.mark.parametrize(
    ("free", "size", "warns"),
    [(1024, 512, False), (512, 512, False), (100, 100, False), (75, 75, False), (74, 75, True), (0, 75, True)],
)
def test_the_store_takes_what_shared_memory_has(
    free: int, size: int, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=free * 256, f_frsize=4096))
    assert object_store.store_bytes(tmp_path) == size * MIB
    assert bool(object_store.warning(tmp_path)) is warns
    if warns:
        assert f"has {free} MiB" in object_store.warning(tmp_path)
        assert "--shm-size=512m" in object_store.warning(tmp_path)


def test_without_shared_memory_nothing_is_said(tmp_path: Path) -> None:
    assert object_store.store_bytes(tmp_path / "none") == 512 * MIB
    assert object_store.warning(tmp_path / "none") == ""


FILL = """
from pathlib import Path
from deployments.local import __main__ as starter, cluster, object_store

object_store.BYTES = object_store.MIN_BYTES
starter._set_environment()
with starter._temporary_directory() as directory:
    cluster._start(directory)
    import ray

    kept = []
    try:
        for _ in range(20):
            kept.append(ray.put(bytes(10 * 1024**2)))
    except ray.exceptions.OutOfDiskError:
        print("refused after", len(kept))
    # The store's own file, and any that would take its place, have no name any more, but are mapped into this process.
    maps = [line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if "/plasma" in line]
    print("mapped", sorted({path.rpartition("/")[0] for path in maps}))
    print("large files", [str(path) for path in directory.rglob("*") if path.is_file() and path.stat().st_size > 2**20])
    ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and at shared memory")
def test_a_full_store_refuses_and_no_file_takes_its_place() -> None:
    command = [sys.executable, "-c", FILL]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    said = ended.stdout.splitlines()
    assert said == ["refused after 7", "mapped ['/dev/shm']", "large files []"], ended.stdout + ended.stderr
