""".npy files: read without trust and in bounded memory, and grown row by row, so that a stopped run's
successor goes on."""
import io
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils import ranks
from utils.files import BadInput, read_json, replacing, write_json

RESIDENT_BYTES = 2 ** 30  # of a file, as much as is held at a time
NEIGHBORS = 2 ** 20  # Linux maps pages before the one asked for too, 64 KiB unless set otherwise


def read_array(path: Path, remedy: str) -> np.ndarray:
    """The array of a .npy file, memory-mapped, so that a header cannot ask for more memory than the file has.

    Raises:
        BadInput: it is missing or damaged, or no array of numbers; `remedy` says what to do.
    """
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing; {remedy}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a broken header can raise anything
        raise BadInput(f"{path}: not a whole .npy file of numbers; {remedy}") from error
    if not isinstance(array, np.ndarray):
        raise BadInput(f"{path}: not a .npy file; {remedy}")
    return array


def stays(array: np.ndarray) -> bool:
    """Whether an array may be in memory as a whole: it is already, or it is mapped and small."""
    return not isinstance(array, np.memmap) or array.nbytes <= RESIDENT_BYTES


def release(array: np.ndarray) -> None:
    """Take a part of a memory-mapped file, read and done with, out of this process's resident memory.

    Without that a pass over the file ends with all of it resident, as long as the machine has memory. It
    stays in the system's page cache, and the array may be read again. Arrays that are not mapped, to be
    read only, from files larger than RESIDENT_BYTES are left as they are.
    """
    if isinstance(array, np.memmap) and array.mode == "r" and len(array._mmap) > RESIDENT_BYTES:
        start = np.frombuffer(array._mmap, np.uint8).ctypes.data
        first, end = (address - start for address in np.byte_bounds(array))
        first = max(0, first - NEIGHBORS)
        first -= first % mmap.PAGESIZE
        array._mmap.madvise(mmap.MADV_DONTNEED, first, end - first)


class GrowingArray:
    """A .npy file that grows: at any moment the whole array of the rows appended so far.

    Rows are written behind the last one and then counted in the header, in which numpy leaves room for the
    count to grow; a kill in between leaves bytes that do not count. np.lib.format.open_memmap in its place
    would want the final size from the start and, on a full disk, end the process with SIGBUS.

    Raises:
        BadInput: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
        self.empty = np.empty((0, 0))  # an array of the file's row shape and type
        self.rows = 0
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.flags.c_contiguous and array.ndim:
                self.empty, self.rows = np.empty((0, *array.shape[1:]), array.dtype), len(array)
        except Exception:  # new, cut off, or no array: begun anew
            pass
        self.found = self.rows

    def __enter__(self) -> "GrowingArray":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def append(self, rows: np.ndarray) -> None:
        """Add rows (k, ...); the first ones of a file give it their shape and type.

        Raises:
            BadInput: the rows are of another shape or type than the file's, or the disk is full; then what
                this run has added is removed.
        """
        if not self.rows:
            self.empty = np.empty((0, *rows.shape[1:]), rows.dtype)
            self.keep(0)
        if (rows.shape[1:], rows.dtype) != (self.empty.shape[1:], self.empty.dtype):
            raise BadInput(f"{self.path}: holds rows of another shape or type; delete it")
        self._write(self._end(self.rows), np.ascontiguousarray(rows).data.cast("B"))
        self.keep(self.rows + len(rows))

    def keep(self, rows: int) -> None:
        """Count that many rows, and none after them."""
        self._write(0, self._header(rows))
        self.file.truncate(self._end(rows))
        self.rows = rows
        self.found = min(self.found, rows)

    def _header(self, rows: int) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {
            **np.lib.format.header_data_from_array_1_0(self.empty), "shape": (rows, *self.empty.shape[1:])})
        return file.getvalue()

    def _end(self, rows: int) -> int:
        """Where row number `rows` begins, in bytes; every header has one length."""
        return len(self._header(rows)) + rows * self.empty.itemsize * int(np.prod(self.empty.shape[1:]))

    def _write(self, position: int, content: bytes | memoryview) -> None:
        self.file.seek(position)
        left = memoryview(content)
        try:
            while left:
                left = left[self.file.write(left):]
        except OSError as error:
            if self.found:
                self.file.truncate(self._end(self.found))
                self.file.seek(0)
                self.file.write(self._header(self.found))
            else:
                self.path.unlink(missing_ok=True)
            raise BadInput(f"{self.path}: cannot be written: {error.strerror}; make room or name another "
                           "folder") from error


def write_blocks(path: Path, blocks: Iterable[np.ndarray]) -> None:
    """Write a .npy file in one step from blocks of its rows, of which one at a time is in memory.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary, GrowingArray(temporary) as array:
        array.keep(0)  # a kill may have left one
        for block in blocks:
            array.append(block)


class GrowingArrays:
    """Arrays that grow by the same rows, each a file, and the key of what they are computed from.

    The first rank has the files; in the others only the number of rows is known.

    Args:
        paths: of the arrays, by name.
        key_path: JSON file of the key. Where it holds another key, or is missing, the arrays are begun anew.

    Raises:
        BadInput: a file cannot be opened or written.
    """

    def __init__(self, paths: dict[str, Path], key_path: Path, key: dict[str, Any]) -> None:
        self.paths, self.key_path = paths, key_path
        self.arrays = self._open(key) or {}
        # A kill may leave one ahead.
        self.keep(ranks.from_first(lambda: min(array.rows for array in self.arrays.values())))

    @ranks.by_first
    def _open(self, key: dict[str, Any]) -> dict[str, GrowingArray]:
        if read_key(self.key_path) != key:
            for path in self.paths.values():
                path.unlink(missing_ok=True)
            write_json(self.key_path, key)
        return {name: GrowingArray(path) for name, path in self.paths.items()}

    def __enter__(self) -> "GrowingArrays":
        return self

    def __exit__(self, *_: object) -> None:
        for array in self.arrays.values():
            array.file.close()

    def append(self, **rows: np.ndarray) -> None:
        """Add the same number of rows to each array.

        Raises:
            BadInput: as GrowingArray.append; where nothing was there before, the key goes too.
        """
        try:
            for name, array in self.arrays.items():
                array.append(rows[name])
        except BadInput:
            if not all(array.found for array in self.arrays.values()):
                self.remove()
            raise
        self.rows += len(next(iter(rows.values())))

    def keep(self, rows: int) -> None:
        """Count that many rows, and none after them."""
        for array in self.arrays.values():
            if array.rows > rows:
                array.keep(rows)
        self.rows = rows

    @ranks.by_first
    def remove(self) -> None:
        """Delete the files."""
        for path in (*self.paths.values(), self.key_path):
            path.unlink(missing_ok=True)


def read_key(path: Path) -> dict[str, Any] | None:
    """The key beside growing arrays; None where there is none or it cannot be read."""
    try:
        return read_json(path, "")
    except BadInput:
        return None
