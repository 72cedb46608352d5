"""The outbox: what is marked as owed outlives its process, and nothing else is billed."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import outbox as module
from accounts.errors import AccountsError
from accounts.outbox import Outbox
from accounts.settlements import settlement_json, settlement_of
from accounts.types import Charge, Settlement

TEXT = st.text(max_size=8)
CHARGES = st.builds(Charge, TEXT, st.lists(TEXT, max_size=2).map(tuple), st.integers(0, 9))
SETTLEMENTS = st.builds(
    Settlement, TEXT, TEXT, TEXT, st.integers(0, 10**15), st.none() | CHARGES, st.just("completed"), TEXT,
    st.integers(0, 10**13), TEXT,
)  # fmt: skip


def owed(name: str) -> Settlement:
    return Settlement(name, "acct_1", "key_1", 5, Charge("m", ("caption",), 1), "completed", f"req-{name}", 7, "list")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    opened = Outbox(tmp_path)
    yield opened
    opened.close()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.outbox"))


def left_behind(folder: Path) -> tuple[list[str], list[str]]:
    """What another process finds: the holds of what is owed, and of what was not sent."""
    found = [(list(one.owed), list(one.unsent)) for one in Outbox(folder).abandoned()]
    return [one.hold for part, _ in found for one in part], [hold for _, part in found for hold in part]


@given(SETTLEMENTS)
def test_settlements_survive_their_json(settlement: Settlement) -> None:
    assert settlement_of(settlement_json(settlement)) == settlement


def test_what_is_owed_is_found_and_what_was_not_sent_is_told_apart(outbox: Outbox, tmp_path: Path) -> None:
    outbox.write([owed("a"), owed("b")]).owed()
    outbox.write([owed("c")])
    outbox.write([owed("d")]).void()
    assert "a" in outbox
    assert "d" not in outbox
    outbox.close()
    assert left_behind(tmp_path) == (["a", "b"], ["c", "d"])


def test_nobody_touches_the_file_of_a_process_that_lives(outbox: Outbox, tmp_path: Path) -> None:
    outbox.write([owed("a")]).owed()
    assert left_behind(tmp_path) == ([], [])
    assert list(outbox.abandoned()) == []


def test_only_one_finds_what_was_left_behind(outbox: Outbox, tmp_path: Path) -> None:
    outbox.write([owed("a")]).owed()
    outbox.close()
    for leftover in Outbox(tmp_path).abandoned():
        assert left_behind(tmp_path) == ([], [])
        leftover.remove()
    assert files(tmp_path) == []


def content(path: Path) -> bytes:
    """What was written into a file."""
    return path.read_bytes().rstrip(b"\0")


def test_a_file_takes_no_room_before_something_is_written(outbox: Outbox, tmp_path: Path) -> None:
    outbox.write([owed("a")])
    assert files(tmp_path)[0].stat().st_blocks * 512 < 64 * 1024


def test_a_record_behind_the_mapping_is_marked_too(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAPPED_BYTES", mmap.PAGESIZE)
    slots = [outbox.write([owed(f"{number}")]) for number in range(40)]
    assert slots[-1].start > mmap.PAGESIZE
    slots[-1].owed()
    outbox.close()
    assert left_behind(tmp_path)[0] == ["39"]


def test_a_file_begins_anew_when_all_of_it_is_settled(outbox: Outbox, tmp_path: Path) -> None:
    slots = [outbox.write([owed(name)]) for name in "abc"]
    for slot in slots:
        slot.owed()
    outbox.settled(["a", "b", "x"])
    assert content(files(tmp_path)[0])
    outbox.settled(["c"])
    assert not content(files(tmp_path)[0])
    assert len(outbox) == 0


def test_no_file_grows_for_ever_while_something_is_always_open(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 2000)
    outbox.write([owed("0")]).owed()
    for number in range(1, 200):
        outbox.write([owed(str(number))]).owed()
        outbox.settled([str(number - 1)])
    assert sum(len(content(path)) for path in files(tmp_path)) < 6000
    assert len(files(tmp_path)) < 5
    outbox.close()
    assert "199" in left_behind(tmp_path)[0], "beside some that are settled already, which changes nothing"


@given(st.integers(0, 400))
def test_a_torn_record_is_ignored(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    written = Outbox(folder)
    for name in "ab":
        written.write([owed(name)]).owed()
    written.close()
    (path,) = files(folder)
    whole = content(path)
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = "ab" if not cut else "a" if cut <= len(whole) // 2 else ""
    assert left_behind(folder) == (list(kept), [])


def test_a_damaged_record_ends_the_file(outbox: Outbox, tmp_path: Path) -> None:
    for name in "ab":
        outbox.write([owed(name)]).owed()
    outbox.close()
    (path,) = files(tmp_path)
    damaged = bytearray(content(path))
    damaged[-3] ^= 1
    path.write_bytes(damaged + b"\0" * 100)
    assert left_behind(tmp_path) == (["a"], [])


def test_a_mark_after_the_end_reaches_no_other_file(outbox: Outbox, tmp_path: Path) -> None:
    slot = outbox.write([owed("a")])
    outbox.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    slot.owed()
    slot.void()
    assert os.fstat(other).st_size == 0
    os.close(other)


def test_a_full_disk_refuses(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.write([owed("a")]).owed()
    program = f"""
import resource, signal, sys
from pathlib import Path
from accounts.errors import AccountsUnavailable
from tests.accounts.test_outbox import owed, Outbox
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
outbox = Outbox(Path({str(tmp_path)!r}))
outbox.write([owed("b")]).owed()
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
try:
    outbox.write([owed("c" * 30)])
except AccountsUnavailable:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7
    assert left_behind(tmp_path) == (["b"], [])
    outbox.close()


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    Outbox(tmp_path)
    (folder,) = tmp_path.iterdir()
    folder.chmod(0o755)
    with pytest.raises(AccountsError, match="no other may enter"):
        Outbox(tmp_path)
    with pytest.raises(AccountsError, match="cannot be made"):
        Outbox(Path("/proc/nothing"))
