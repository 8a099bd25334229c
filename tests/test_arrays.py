"""Arrays in files: grown, whole after every write and every cut, and on a full disk; read and released."""
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from utils import arrays
from utils.arrays import GrowingArray, GrowingArrays, read_array, write_blocks
from utils.files import BadInput

ROWS = np.arange(12, dtype=np.float32).reshape(-1, 2)
PARTS = ROWS[:3], ROWS[3:4], ROWS[4:]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npy"


def grow(path: Path, *parts: np.ndarray) -> None:
    with GrowingArray(path) as array:
        for part in parts:
            array.append(part)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full where a file has that size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# What is in the file

@pytest.mark.parametrize("part", [ROWS, np.ones((2, 3, 4), np.float16), np.arange(5), ROWS.T > 3])
def test_numpy_reads_what_was_appended(path: Path, part: np.ndarray) -> None:
    grow(path, part, part)
    array = np.load(path)
    assert array.dtype == part.dtype and array.tolist() == [*part.tolist(), *part.tolist()]


def test_the_next_run_appends_to_what_is_there(path: Path) -> None:
    for part in PARTS:
        grow(path, part)
    assert np.load(path).tolist() == ROWS.tolist()


def test_rows_are_kept_and_appended_to(path: Path) -> None:
    grow(path, *PARTS)
    with GrowingArray(path) as array:
        array.keep(2)
        assert np.load(path).tolist() == ROWS[:2].tolist()
        array.append(ROWS[5:])
    assert np.load(path).tolist() == [*ROWS[:2].tolist(), ROWS[5].tolist()]
    assert path.stat().st_size == np.load(path, mmap_mode="r").offset + 3 * ROWS[0].nbytes


@pytest.mark.parametrize("rows", [np.zeros((1, 3), np.float32), np.zeros((1, 2))])
def test_rows_of_another_shape_or_type_are_refused(path: Path, rows: np.ndarray) -> None:
    grow(path, ROWS)
    before = path.read_bytes()
    with GrowingArray(path) as array, pytest.raises(BadInput, match="x.npy: holds rows of another shape or"):
        array.append(rows)
    assert path.read_bytes() == before


def test_a_billion_rows_fit_into_the_header(path: Path) -> None:
    grow(path, np.full(1, 7, np.uint8))
    with GrowingArray(path) as array:
        array.keep(10 ** 9)  # a sparse file
    array = np.load(path, mmap_mode="r")
    assert array.shape == (10 ** 9,) and array[0] == 7


# Stops

class Recorder(io.FileIO):
    """A file that remembers its content after each change; a write takes a header at once, rows in parts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self.path, self.states = path, []

    def write(self, content: memoryview) -> int:
        written = super().write(content[:128])
        self.states.append(self.path.read_bytes())
        return written

    def truncate(self, size: int) -> int:
        size = super().truncate(size)
        self.states.append(self.path.read_bytes())
        return size


def test_a_kill_between_any_two_changes_leaves_whole_rows(path: Path, tmp_path: Path) -> None:
    rows = np.arange(200).reshape(100, 2)
    grow(path, rows[:9])
    with GrowingArray(path) as array:
        array.file.close()
        array.file = Recorder(path)
        array.append(rows[9:])
        states = array.file.states
    lengths = []
    for state in states:
        (tmp_path / "left.npy").write_bytes(state)
        left = np.load(tmp_path / "left.npy")
        assert left.tolist() == rows[:len(left)].tolist()
        lengths.append(len(left))
        grow(tmp_path / "left.npy", rows[:1])
        assert np.load(tmp_path / "left.npy").tolist() == [*left.tolist(), rows[0].tolist()]
    assert lengths == sorted(lengths) and set(lengths) == {9, 100}


def test_a_file_that_was_cut_off_anywhere_is_whole_or_begun_anew(path: Path) -> None:
    grow(path, *PARTS)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with GrowingArray(path) as array:
            assert array.rows == 0
            array.append(PARTS[1])
        assert np.load(path).tolist() == PARTS[1].tolist()


@pytest.mark.parametrize("content", [b"no array", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order'"])
def test_a_file_that_is_no_array_is_begun_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content * 100)
    grow(path, ROWS)
    assert np.load(path).tolist() == ROWS.tolist()


def test_an_array_in_fortrans_order_is_begun_anew(path: Path) -> None:
    np.save(path, np.asfortranarray(ROWS))
    grow(path, ROWS[:1])
    assert np.load(path).tolist() == ROWS[:1].tolist()


# Full disks

def test_a_full_disk_leaves_the_rows_of_an_earlier_run(path: Path) -> None:
    grow(path, PARTS[0])
    before = path.read_bytes()
    with GrowingArray(path) as array:
        array.append(PARTS[1])
        with largest_file(path.stat().st_size + 5), pytest.raises(BadInput, match="x.npy: cannot be written"):
            array.append(PARTS[2])
    assert path.read_bytes() == before


def test_a_full_disk_does_not_bring_dropped_rows_back(path: Path) -> None:
    grow(path, ROWS)
    with GrowingArray(path) as array:
        array.keep(2)
        with largest_file(path.stat().st_size + 5), pytest.raises(BadInput, match="x.npy: cannot be written"):
            array.append(PARTS[2])
    assert np.load(path).tolist() == ROWS[:2].tolist()


@pytest.mark.parametrize("size", [5, 140])  # within the header, within the rows
def test_a_full_disk_leaves_nothing_of_a_new_file(path: Path, size: int) -> None:
    with largest_file(size), pytest.raises(BadInput, match="x.npy: cannot be written: File too large"):
        grow(path, ROWS)
    assert not path.exists()


# Several files with one key

def test_arrays_are_begun_anew_for_another_key(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.npy" for name in ("a", "b")}
    for key, rows in (({"of": 1}, 0), ({"of": 1}, 3), ({"of": 2}, 0)):
        with GrowingArrays(paths, tmp_path / "key.json", key) as arrays:
            assert arrays.rows == rows
            arrays.append(a=PARTS[0], b=PARTS[0][:, 0])
    assert np.load(paths["b"]).tolist() == [0, 2, 4]


def test_an_array_that_is_ahead_of_the_others_is_cut(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.npy" for name in ("a", "b")}
    with GrowingArrays(paths, tmp_path / "key.json", {}) as arrays:
        arrays.append(a=PARTS[0], b=PARTS[0])
    grow(paths["a"], PARTS[1])
    with GrowingArrays(paths, tmp_path / "key.json", {}) as arrays:
        arrays.append(a=PARTS[1], b=PARTS[1])
    assert np.load(paths["a"]).tolist() == np.load(paths["b"]).tolist() == ROWS[:4].tolist()


@pytest.mark.parametrize("key", [b"", b"{", b"[]", b"[" * 100_000])
def test_a_damaged_key_fits_nothing(tmp_path: Path, key: bytes) -> None:
    paths = {"a": tmp_path / "a.npy"}
    grow(paths["a"], ROWS)
    (tmp_path / "key.json").write_bytes(key)
    with GrowingArrays(paths, tmp_path / "key.json", {"of": 1}) as arrays:
        assert arrays.rows == 0


def test_a_full_disk_leaves_no_key_without_arrays(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.npy" for name in ("a", "b")}
    with GrowingArrays(paths, tmp_path / "key.json", {}) as arrays:
        with largest_file(140), pytest.raises(BadInput, match="b.npy: cannot be written"):
            arrays.append(a=np.zeros(1, np.uint8), b=ROWS)
    assert not list(tmp_path.iterdir())


# Blocks into one file, at once

def test_blocks_are_written_in_one_step(path: Path) -> None:
    write_blocks(path, iter(PARTS))
    assert np.load(path).tolist() == ROWS.tolist()
    assert list(path.parent.iterdir()) == [path]


def test_blocks_that_end_early_leave_the_earlier_file(path: Path) -> None:
    def blocks() -> Iterator[np.ndarray]:
        yield PARTS[0]
        raise KeyboardInterrupt

    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write_blocks(path, blocks())
    assert path.read_text() == "earlier" and list(path.parent.iterdir()) == [path]


def test_blocks_do_not_follow_those_of_a_killed_run(path: Path) -> None:
    grow(path.with_name(".x.npy.tmp"), ROWS)
    write_blocks(path, iter(PARTS[1:]))
    assert np.load(path).tolist() == ROWS[3:].tolist()


# Read without trust

def make(path: Path, array: np.ndarray) -> bytes:
    np.save(path, array, allow_pickle=True)
    return path.read_bytes()


class Payload:
    """Makes a folder when it is unpickled without care."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("TRAP",)


def test_the_payload_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.load(io.BytesIO(make(tmp_path / "x.npy", np.array([Payload()], object))), allow_pickle=True)
    assert (tmp_path / "TRAP").exists()


def test_an_array_of_objects_is_refused_and_not_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    make(path, np.array([Payload()], object))
    with pytest.raises(BadInput, match="x.npy: not a whole .npy file of numbers; do this"):
        read_array(path, "do this")
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_cut_off_anywhere_is_refused(path: Path) -> None:
    whole = make(path, ROWS)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(BadInput, match="do this"):
            read_array(path, "do this")


def test_a_header_that_asks_for_terabytes_is_refused(path: Path) -> None:
    content = make(path, ROWS)
    large = content.replace(b"(6, 2), }" + 12 * b" ", b"(6000000000000, 2), }")
    assert len(large) == len(content) and large != content
    path.write_bytes(large)
    with pytest.raises(BadInput, match="do this"):
        read_array(path, "do this")


def test_an_archive_of_arrays_is_refused(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), ROWS)
    path.with_suffix(".npz").rename(path)
    with pytest.raises(BadInput, match="do this"):
        read_array(path, "do this")


def test_a_missing_file_is_named_with_its_remedy(path: Path) -> None:
    with pytest.raises(BadInput, match="x.npy: missing; do this"):
        read_array(path, "do this")


# Read in bounded memory

def test_a_small_file_may_stay_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(path, ROWS)
    mapped = np.load(path, mmap_mode="r")
    assert arrays.stays(ROWS) and arrays.stays(mapped)
    monkeypatch.setattr(arrays, "RESIDENT_BYTES", ROWS[:3].nbytes)
    assert arrays.stays(ROWS) and not arrays.stays(mapped) and arrays.stays(mapped[2:5])


def resident_files() -> int:
    """Bytes of files that are resident in this process."""
    words = Path("/proc/self/status").read_text().split()
    return 1024 * int(words[words.index("RssFile:") + 1])


@pytest.mark.parametrize("view", [lambda array: array, lambda array: array[100:], lambda array: array[:, 7:9],
                                  lambda array: array.T])
def test_what_is_released_leaves_memory_and_can_be_read_again(view: Callable, path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.arange(2 ** 22, dtype=np.float32).reshape(-1, 1024)  # 16 MiB
    np.save(path, content)
    part = view(np.load(path, mmap_mode="r"))
    monkeypatch.setattr(arrays, "RESIDENT_BYTES", 2 ** 20)
    before = resident_files()
    assert part.tobytes() == view(content).tobytes()
    assert resident_files() > before + 2 ** 23
    arrays.release(part)
    assert resident_files() < before + 2 ** 20
    assert part.tobytes() == view(content).tobytes()


@pytest.mark.parametrize("mode, resident", [("c", 0), ("r", 2 ** 24)])
def test_what_is_small_or_changed_is_not_released(mode: str, resident: int, path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(path, np.ones((1024, 1024), np.float32))
    monkeypatch.setattr(arrays, "RESIDENT_BYTES", resident)
    array = np.load(path, mmap_mode=mode)
    if mode == "c":
        array[:] = 2  # in memory alone
    total, before = array.sum(), resident_files()
    arrays.release(array)
    assert resident_files() > before - 2 ** 20
    assert array.sum() == total


def test_what_is_no_file_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "RESIDENT_BYTES", 0)
    arrays.release(ROWS)
    assert ROWS.sum() == 66
