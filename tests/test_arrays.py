"""Arrays in files: created, filled by a pass that may be stopped, on a full disk, read without trust."""
import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from conftest import Payload, names, npy
from utils import arrays
from utils.arrays import ResumableArrays, create_array, read_array
from utils.errors import BadInput

ROWS = np.arange(12, dtype=np.float32).reshape(-1, 2)
FLAGS = np.arange(6) % 2 == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npy"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full where a file has that size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Created

@pytest.fixture(params=["Linux", "macOS"])
def allocate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "macOS":
        monkeypatch.delattr(os, "posix_fallocate")


def test_a_new_array_takes_its_room_at_once(path: Path, allocate: None) -> None:
    array = create_array(path, (1000, 3), np.float16)
    assert path.stat().st_blocks * 512 >= 6000
    array[2] = 1
    array.flush()
    assert np.load(path).sum() == 3 and np.load(path).dtype == np.float16


@pytest.mark.parametrize("size", [5, 140, 500])  # in the header, in the numbers
def test_a_full_disk_is_an_error_and_leaves_nothing(path: Path, size: int, allocate: None) -> None:
    with largest_file(size), pytest.raises(BadInput, match="x.npy: cannot be written: File too large"):
        create_array(path, (100, 2), np.float32)
    assert not path.exists()


# Filled by a pass that may be stopped

def resumable(folder: Path, key: object = 1, n: int = 6) -> ResumableArrays:
    return ResumableArrays({name: folder / f"{name}.npy" for name in ("a", "b")}, n, {"of": key})


def write(given: ResumableArrays, first: int, last: int) -> None:
    given.write(a=ROWS[first:last], b=FLAGS[first:last])


def test_arrays_appear_once_they_are_whole(tmp_path: Path) -> None:
    with resumable(tmp_path) as given:
        write(given, 0, 4)
        assert names(tmp_path) == {".a.npy", ".b.npy", ".a.json"}
        write(given, 4, 6)
        given.finish()
    assert names(tmp_path) == {"a.npy", "b.npy"}
    assert (np.load(tmp_path / "a.npy") == ROWS).all() and (np.load(tmp_path / "b.npy") == FLAGS).all()


def test_one_of_them_is_kept(tmp_path: Path) -> None:
    with resumable(tmp_path) as given:
        write(given, 0, 6)
        given.finish("a")
    assert names(tmp_path) == {"a.npy"}


@pytest.mark.parametrize("key, rows", [(1, 4), (2, 0)])
def test_a_stopped_pass_is_resumed_with_the_same_key_alone(tmp_path: Path, key: int, rows: int) -> None:
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path) as given:
        write(given, 0, 4)
        raise KeyboardInterrupt
    with resumable(tmp_path, key) as given:
        assert given.rows == rows
        write(given, rows, 6)
        given.finish()
    assert (np.load(tmp_path / "a.npy") == ROWS).all()


@pytest.mark.parametrize("seconds, rows", [(0, 5), (100, 2)])
def test_a_killed_pass_is_resumed_where_it_was_last_recorded(tmp_path: Path, seconds: int, rows: int,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "RECORD_SECONDS", seconds)
    given = resumable(tmp_path)
    write(given, 0, 2)
    write(given, 2, 5)
    assert resumable(tmp_path).rows == rows


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / ".a.json").write_text("["), lambda folder: (folder / ".b.npy").unlink(),
    lambda folder: os.truncate(folder / ".a.npy", 130), lambda folder: (folder / ".b.npy").write_text("x"),
    lambda folder: np.save(folder / ".a.npy", ROWS[:5]),
    lambda folder: (folder / ".a.json").write_text('{"key": {"of": 1}, "rows": 7}'),
    lambda folder: (folder / ".a.json").write_text('{"key": {"of": 1}, "rows": null}'),
    lambda folder: (folder / ".a.json").write_text('{"key": {"of": 1}}')])
def test_damaged_files_are_begun_anew(tmp_path: Path, damage: object) -> None:
    with resumable(tmp_path) as given:
        write(given, 0, 4)
    damage(tmp_path)
    assert resumable(tmp_path).rows == 0


def test_a_full_disk_leaves_nothing_of_a_pass(tmp_path: Path) -> None:
    with largest_file(150), pytest.raises(BadInput, match=".a.npy: cannot be written"):
        with resumable(tmp_path) as given:
            given.write(b=FLAGS[:1], a=ROWS[:1])
    assert names(tmp_path) == set()


# Read without trust

def npz(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


LARGE = npy(ROWS).replace(b"(6, 2), }" + 12 * b" ", b"(6000000000000, 2), }")  # asks for terabytes


@pytest.mark.parametrize("content", [npy(np.array([Payload()], object)), LARGE, npz(ROWS), None],
                         ids=["objects", "terabytes", "archive", "missing"])
def test_what_is_not_an_array_of_numbers_is_refused_with_its_remedy_and_not_run(
        path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    if content:
        path.write_bytes(content)
    with pytest.raises(BadInput, match="x.npy: .*; do this"):
        read_array(path, "do this")
    assert names(path.parent) <= {"x.npy"} and len(LARGE) == len(npy(ROWS)) and LARGE != npy(ROWS)


def test_a_file_that_is_cut_off_anywhere_is_refused(path: Path) -> None:
    whole = npy(ROWS)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(BadInput, match="do this"):
            read_array(path, "do this")
