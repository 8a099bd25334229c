"""Files: replaced in one step, locked, hashed; the error that bad input raises."""
import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils import ranks


class BadInput(Exception):
    """What the user gave cannot be used; the message names it, what is wrong and what to do, in one line."""


class FolderInUse(BadInput):
    """A folder for results that another run is in, or that cannot be written to."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place on success, remove it on failure.

    Raises:
        BadInput: the folder cannot be made or written to.
    """
    make_folder(path.parent)
    # A name that the next run uses again: a kill leaves one at most.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder for results and make sure that files can be written to it.

    Raises:
        BadInput: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FolderInUse(f"{folder}: cannot be written to ({error.strerror}); name another "
                          "folder") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder for results and keep other runs out of it until the end of the block, or of the process.

    What was made and is still empty at the end is removed. The first rank's lock holds for all ranks.

    Raises:
        FolderInUse: another run is in it, or it cannot be written to; in every rank.
    """
    refusal = None
    with contextlib.ExitStack() as stack:
        try:
            if ranks.is_first():
                stack.enter_context(_locked(folder))
        except FolderInUse as error:
            refusal = error
        if ranks.from_first(lambda: refusal is not None):
            raise refusal or FolderInUse(f"{folder}: refused to the first rank")
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FolderInUse(f"{folder}: another run is writing to this folder; wait for its end or "
                                  "name another folder") from error
            # else a file system without locks: go on without
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        BadInput: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        BadInput: it is missing or unreadable.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(2 ** 20):
                digest.update(block)
    except OSError as error:
        raise cannot_read(path, error) from error
    return digest.hexdigest()


def cannot_read(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path}: cannot be read ({error.strerror}); check the path")


def one_line(error: Exception) -> str:
    """An error's first line, or its kind where it says nothing; at most 200 characters, all printable."""
    text = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file; {} where there is no file.

    Raises:
        BadInput: it is no JSON object; `remedy` says what to do.
    """
    if not os.path.exists(path):
        return {}
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: not an object in JSON; {remedy}")
    return content


def to_json(content: dict[str, Any]) -> str:
    """JSON text; what JSON does not know, such as a path, becomes its string."""
    return json.dumps(content, indent=2, default=str) + "\n"


@ranks.by_first
def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(to_json(content))


@ranks.by_first
def write_csv(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as a CSV file in one step.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@ranks.by_first
def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file in one step.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
