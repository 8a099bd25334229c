"""Arrays in .npy files: checked when they are read, memory-mapped, filled by passes that can be resumed."""
import contextlib
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils import distributed
from utils.errors import BadInput, FolderUnavailable
from utils.files import cannot_write, read_json_or_nothing, rename, write_json
from utils.progress import ProgressBar

RECORD_SECONDS = 5  # between two records of the number of finished rows


def read_array(path: Path, remedy: str) -> np.ndarray:
    """The array of a .npy file, memory-mapped: no header can claim more memory than the file has.

    Raises:
        BadInput: the file is missing, damaged, or not an array of numbers; `remedy` says what to do.
    """
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing; {remedy}")
    try:
        return np.lib.format.open_memmap(path, "r")
    except Exception as error:  # a broken header can raise anything
        raise BadInput(f"{path}: not an intact .npy file of numbers; {remedy}") from error


def open_array(path: Path, remedy: str) -> np.memmap:
    """As read_array, for reading and writing."""
    read_array(path, remedy)  # NumPy would extend a file that was cut off
    return np.lib.format.open_memmap(path, "r+")


def create_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """A new .npy file of zeros, memory-mapped for reading and writing; FolderUnavailable if there is no room.

    The disk space is allocated now: when the system writes pages to a full disk, the process gets a SIGBUS.
    """
    try:
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        with open(path, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
            else:  # macOS
                file.seek(array.offset)
                file.write(bytes(array.nbytes))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FolderUnavailable(cannot_write(path, error)) from error
    return array


class ResumableArrays(contextlib.AbstractContextManager["ResumableArrays"]):
    """Arrays of n rows that a long pass fills from the first to the last; a stopped pass can be resumed.

    Until `finish` they are hidden files beside their final `paths`. A JSON file beside them holds the number
    of finished rows and `key`, all that the rows depend on. The files belong to the first rank; every rank
    knows `rows`, the number of finished rows.
    """

    def __init__(self, paths: dict[str, Path], n: int, key: dict[str, Any]) -> None:
        self.paths, self.n, self.key = paths, n, key
        self.hidden = {name: path.with_name(f".{path.name}") for name, path in paths.items()}
        self.record = record_path(next(iter(paths.values())))
        self.arrays: dict[str, np.memmap] = {}
        self.recorded = -math.inf  # time of the last record
        self.rows = distributed.broadcast(self._open)

    def _open(self) -> int:
        record = read_json_or_nothing(self.record)
        rows = record.get("rows")
        if record.get("key") != self.key or not isinstance(rows, int):
            return 0
        with contextlib.suppress(BadInput):
            self.arrays = {name: open_array(path, "") for name, path in self.hidden.items()}
        if not 0 < rows <= min(map(len, self.arrays.values()), default=0) == self.n:
            self.arrays, rows = {}, 0
        return rows

    def __exit__(self, *_: object) -> None:
        if self.arrays and self.rows:  # neither finished nor removed
            self._record()
        elif self.arrays:
            self.remove()

    def fill(self, title: str, batches: Iterable[dict[str, np.ndarray]]) -> None:
        """Write the rows of each batch and show a progress bar."""
        if self.rows:
            print(f"resuming after image {self.rows} of {self.n}", flush=True)
        with ProgressBar(title, self.n, "image", self.rows) as bar:
            try:
                for rows in batches:
                    self.write(**rows)
                    bar.update(self.rows - bar.n)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"{self.rows} of {self.n} images are done; repeat the command to "
                                        "resume") from None

    def write(self, **rows: np.ndarray) -> None:
        """Write the next rows of all arrays, the same number of each."""
        count = len(next(iter(rows.values())))
        if distributed.is_first():
            for name, values in rows.items():
                if self.rows == 0:
                    shape = self.n, *values.shape[1:]
                    self.arrays[name] = create_array(self.hidden[name], shape, values.dtype)
                self.arrays[name][self.rows:self.rows + count] = values
        self.rows += count
        if distributed.is_first() and time.monotonic() > self.recorded + RECORD_SECONDS:
            self._record()

    def _record(self) -> None:
        for array in self.arrays.values():
            array.flush()
        write_json(self.record, {"key": self.key, "rows": self.rows})
        self.recorded = time.monotonic()

    @distributed.on_first
    def finish(self, *names: str) -> None:
        """Move arrays to their final paths, those of these names or all, and delete the rest."""
        self._record()
        self.arrays = {}
        for name in names or self.paths:
            rename(self.hidden[name], self.paths[name])
        self.remove()

    @distributed.on_first
    def remove(self) -> None:
        """Delete the hidden files."""
        self.arrays = {}
        for path in (*self.hidden.values(), self.record):
            path.unlink(missing_ok=True)


def record_path(path: Path) -> Path:
    """The JSON file of an unfinished pass whose first array goes to `path`."""
    return path.with_name(f".{path.stem}.json")
