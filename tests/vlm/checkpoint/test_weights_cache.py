"""Parameters that processes share: made once, mapped by all, and never trusted where others could have written them."""

from __future__ import annotations

import json
import logging
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.oracle import MINIATURES
from vlm.checkpoint import weights_cache
from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weights_cache import SUFFIX, UNFINISHED, Layout, WeightsCache, identity
from vlm.errors import CheckpointError

SIZES = {"matrix": torch.Size((3, 5)), "scalar": torch.Size(()), "large": torch.Size((70, 64))}
LAYOUT = Layout("blip", "a checkpoint", SIZES, torch.float32)
VALUES = {name: torch.randn(size, generator=torch.Generator().manual_seed(1)) for name, size in SIZES.items()}


class Filling:
    """Fills in VALUES, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, tensors: Mapping[str, Tensor]) -> None:
        self.count += 1
        assert tensors.keys() == VALUES.keys()
        for name, tensor in tensors.items():
            tensor.copy_(VALUES[name])


@pytest.fixture
def fill() -> Filling:
    return Filling()


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "made" / "cache", max_bytes=1 << 20)


def use(cache: WeightsCache, fill: weights_cache.Fill, layout: Layout = LAYOUT) -> None:
    """Take parameters from the cache, and check that they are the right ones."""
    found = cache.parameters(layout, fill)
    assert found is not None
    for name, tensor in found.items():
        assert torch.equal(tensor, VALUES[name].to(layout.dtype))
        assert tensor.data_ptr() % 64 == 0


def only_file(cache: WeightsCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_what_one_has_made_the_next_one_maps(cache: WeightsCache, fill: Filling) -> None:
    for _ in range(3):
        use(cache, fill)
    assert fill.count == 1
    assert only_file(cache).name.startswith("blip-float32-")
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert only_file(cache).stat().st_mode & 0o777 == 0o600


def test_who_writes_to_a_tensor_changes_it_for_nobody_else(cache: WeightsCache, fill: Filling) -> None:
    use(cache, fill)
    mine = cache.parameters(LAYOUT, fill)
    assert mine is not None
    mine["matrix"].zero_()
    use(cache, fill)
    assert fill.count == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(LAYOUT, key="another checkpoint"),
        replace(LAYOUT, dtype=torch.bfloat16),
        replace(LAYOUT, sizes=dict(reversed(SIZES.items()))),
    ],
    ids=["key", "dtype", "order"],
)
def test_whatever_decides_about_the_bytes_has_a_file_of_its_own(
    other: Layout, cache: WeightsCache, fill: Filling
) -> None:
    use(cache, fill)
    use(cache, fill, other)
    assert fill.count == 2
    assert len(list(cache.folder.iterdir())) == 2


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 64)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def without_its_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4160] + bytes(128) + content[4288:])


def open_to_others(path: Path) -> None:
    path.chmod(0o620)


@pytest.mark.parametrize("spoil", [cut_short, zeroed, without_its_middle, open_to_others])
def test_a_file_that_cannot_be_trusted_is_made_again(
    spoil: Callable[[Path], None],
    cache: WeightsCache,
    fill: Filling,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use(cache, fill)
    spoil(only_file(cache))
    use(cache, fill)
    assert fill.count == 2
    assert "it is made again" in caplog.text
    use(cache, fill)
    assert fill.count == 2


def test_a_file_that_another_process_has_made_again_is_kept(
    cache: WeightsCache, fill: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(cache, fill)
    path = only_file(cache)
    checked = weights_cache._checked

    def too_late(file: int, layout: Layout) -> mmap.mmap:
        monkeypatch.setattr(weights_cache, "_checked", checked)
        path.unlink()
        use(cache, fill)  # as the other process does
        raise weights_cache._Unusable("was damaged")

    monkeypatch.setattr(weights_cache, "_checked", too_late)
    use(cache, fill)
    assert fill.count == 2


def test_pages_that_the_disk_does_not_give_are_not_read(cache: WeightsCache, tmp_path: Path) -> None:
    """Whoever reads them is ended by a signal. A file that is cut short once it is mapped has such pages, too."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(8 * mmap.PAGESIZE))
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    os.truncate(path, 0)
    with pytest.raises(weights_cache._Unusable, match="cannot be read"):
        weights_cache._read_ahead(memory)


def test_a_folder_that_others_can_write_to_is_not_used(
    cache: WeightsCache, fill: Filling, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.mkdir(parents=True)
    cache.folder.chmod(0o777)
    assert cache.parameters(LAYOUT, fill) is None
    assert fill.count == 0
    assert "is not used: the folder can be written by other users (mode 777)" in caplog.text


def test_neither_is_that_of_another_user(
    cache: WeightsCache, fill: Filling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert cache.parameters(LAYOUT, fill) is None
    assert "is not used: the folder belongs to another user" in caplog.text


def test_nor_one_that_cannot_be_written(tmp_path: Path, fill: Filling, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert WeightsCache(tmp_path / "file" / "cache", 1 << 20).parameters(LAYOUT, fill) is None
    assert "is not used: " in caplog.text


def test_a_full_disk_costs_a_line_and_leaves_nothing(
    cache: WeightsCache, fill: Filling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    assert cache.parameters(LAYOUT, fill) is None
    assert "No space left on device" in caplog.text
    assert not list(cache.folder.iterdir())


def test_a_link_in_place_of_a_file_is_not_followed(cache: WeightsCache, fill: Filling, tmp_path: Path) -> None:
    use(cache, fill)
    path = only_file(cache)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.parameters(LAYOUT, fill) is None
    assert fill.count == 1


def test_a_checkpoint_that_does_not_fit_is_the_same_error_as_ever(cache: WeightsCache, fill: Filling) -> None:
    def refuse(_: Mapping[str, Tensor]) -> None:
        raise CheckpointError("does not fit")

    with pytest.raises(CheckpointError, match="does not fit"):
        cache.parameters(LAYOUT, refuse)
    assert not list(cache.folder.iterdir())
    use(cache, fill)


def test_others_wait_for_the_one_that_makes_it(cache: WeightsCache, fill: Filling) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(tensors: Mapping[str, Tensor]) -> None:
        begun.set()
        assert go_on.wait(60)
        fill(tensors)

    first = threading.Thread(target=use, args=(cache, slowly))
    first.start()
    assert begun.wait(60)
    others = [threading.Thread(target=use, args=(cache, fill)) for _ in range(3)]
    for other in others:
        other.start()
    go_on.set()
    for thread in (first, *others):
        thread.join(60)
        assert not thread.is_alive()
    assert fill.count == 1
    only_file(cache)


def test_what_a_killed_process_left_is_removed_or_taken_over(cache: WeightsCache, fill: Filling) -> None:
    cache.folder.mkdir(parents=True)
    left = [cache.folder / f"{name}{UNFINISHED}" for name in (LAYOUT.file, replace(LAYOUT, key="other").file)]
    for path in left:
        path.write_bytes(b"half")
    use(cache, fill)
    assert only_file(cache).name == LAYOUT.file


def test_the_file_that_was_not_used_for_longest_makes_room(cache: WeightsCache, fill: Filling) -> None:
    layouts = [replace(LAYOUT, key=key) for key in "abcd"]
    small = replace(cache, max_bytes=3 * LAYOUT.size)
    for number, layout in enumerate(layouts[:3]):
        use(small, fill, layout)
        os.utime(small.folder / layout.file, (number, number))
    theirs = {"notes.txt", f"yolov3{SUFFIX}", f"yolov3{SUFFIX}{UNFINISHED}"}
    for name in theirs:
        (small.folder / name).write_text("somebody's own")
    use(small, fill, layouts[0])  # which is then the one that was used last
    use(small, fill, layouts[3])
    kept = {path.name for path in small.folder.iterdir()}
    assert kept == {*theirs, *(layouts[index].file for index in (0, 2, 3))}


def test_what_is_larger_than_the_cache_is_not_kept(
    cache: WeightsCache, fill: Filling, caplog: pytest.LogCaptureFixture
) -> None:
    assert replace(cache, max_bytes=1000).parameters(LAYOUT, fill) is None
    assert f"the parameters take {LAYOUT.size} bytes, and it may hold 1000" in caplog.text


def test_it_says_what_it_made(cache: WeightsCache, fill: Filling, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        use(cache, fill)
    assert "of parameters for every process of this machine" in caplog.text


def test_weights_that_cannot_be_read_are_the_same_error_as_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "blip"
    shutil.copytree(MINIATURES / "blip-large", folder)
    checkpoint = Checkpoint.open(folder)

    def refuse(path: Path, *_: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"model\.safetensors in .* cannot be read"):
        identity(checkpoint)


def test_a_checkpoint_is_known_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "blip"
    shutil.copytree(MINIATURES / "blip-large", folder)
    first = identity(Checkpoint.open(folder))
    assert identity(Checkpoint.open(folder)) == first
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "changed": True}))
    second = identity(Checkpoint.open(folder))
    weights = folder / "model.safetensors"
    times = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as who copies a file with its times does
    assert len({first, second, identity(Checkpoint.open(folder))}) == 3
