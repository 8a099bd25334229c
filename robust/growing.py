"""A .npy file that is made in hours and may be stopped at any moment."""
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from files import BadInput, read_bytes, replacing
from robust.results import npy_header


class GrowingArray:
    """A uint8 .npy file that grows by batches of rows under a hidden name and goes on where it was after any stop.

    Beside it a log holds the key, then a line a batch: its rows' SHA-256 and what the caller knows of them. Only
    batches that the log has and whose SHA-256 is right count, so a kill between or within two writes does no harm.
    One process at a time: the caller holds `files.locked` on the folder.

    Args:
        path: of the finished file.
        shape: of the finished array.
        batch: rows that are added at a time, except for the last time.
        key: settings that the rows depend on, to be written as JSON.

    Attributes:
        lines: what the log has of each batch that is done.

    Raises:
        BadInput: there is unfinished work with another key; a file cannot be read or written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], batch: int, key: dict[str, Any]) -> None:
        self.path, self.shape, self.batch = path, shape, batch
        self.key = json.loads(json.dumps(key))
        self.batches = -(-shape[0] // batch)
        self.row_bytes = int(np.prod(shape[1:]))
        self.part = path.with_name(f".{path.stem}.partial.npy")
        self.log = path.with_name(f".{path.stem}.partial.jsonl")
        self.lines = self._read_log()
        if len(self.lines) == self.batches and not self.part.exists() and self._sound(path) == self.batches:
            return  # stopped after finish() had moved the file
        del self.lines[self._sound(self.part):]
        try:
            self.part.touch()
            with open(self.part, "r+b") as file:
                file.write(npy_header(shape))
                file.truncate(len(npy_header(shape)) + self._rows_before(len(self.lines)) * self.row_bytes)
        except OSError as error:
            raise BadInput(f"{self.part}: cannot be written ({error.strerror}); delete it to start anew") from error
        with replacing(self.log) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in (self.key, *self.lines)))

    def append(self, rows: np.ndarray, **known: Any) -> None:
        """Add the next batch of rows, and to the log what is known of them.

        Raises:
            BadInput: they cannot be written.
        """
        content = np.ascontiguousarray(rows, np.uint8)
        line = {"sha256": hashlib.sha256(content).hexdigest(), **known}
        try:
            for path, data in ((self.part, content), (self.log, (json.dumps(line) + "\n").encode())):
                with open(path, "ab") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise BadInput(f"{path}: cannot be written ({error.strerror}); run again to go on") from error
        self.lines.append(line)

    def finish(self) -> None:
        """Move the whole file into place; the log stays until `forget`.

        Raises:
            BadInput: it cannot be moved.
        """
        try:
            if self.part.exists():
                os.replace(self.part, self.path)
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be written ({error.strerror}); run again to go on") from error

    def forget(self) -> None:
        """Remove the log, after all that belongs to the file is written."""
        self.log.unlink(missing_ok=True)

    def _rows_before(self, batch: int) -> int:
        return min(batch * self.batch, self.shape[0])

    def _read_log(self) -> list[dict[str, Any]]:
        """What the log has of each batch.

        Raises:
            BadInput: it is no log, or belongs to another key.
        """
        if not self.log.exists():
            return []
        try:
            # what follows the last end of line was cut off
            lines = [json.loads(line) for line in read_bytes(self.log).split(b"\n")[:-1]]
        except (ValueError, RecursionError):
            lines = [None]
        if not all(isinstance(line, dict) for line in lines):
            raise BadInput(f"{self.log}: not a log of an unfinished file; delete it to start anew")
        first = lines[0] if lines else self.key
        differing = [name for name in {**first, **self.key} if first.get(name) != self.key.get(name)]
        if differing:
            raise BadInput(f"{self.log}: unfinished work with " + ", ".join(
                f"{name} {first.get(name)} (not {self.key.get(name)})" for name in differing)
                + "; finish it with those, or delete this file to start anew")
        return lines[1:]

    def _sound(self, path: Path) -> int:
        """How many batches, from the first on, a file holds as the log has them.

        Raises:
            BadInput: it cannot be read.
        """
        try:
            with open(path, "rb") as file:
                if file.read(len(npy_header(self.shape))) != npy_header(self.shape):
                    return 0
                for number, line in enumerate(self.lines):
                    size = (self._rows_before(number + 1) - self._rows_before(number)) * self.row_bytes
                    content = file.read(size)
                    if len(content) < size or hashlib.sha256(content).hexdigest() != line.get("sha256"):
                        return number
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); delete it to start anew") from error
        return len(self.lines)
