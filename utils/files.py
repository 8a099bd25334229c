"""Files: replaced in one step, locked, hashed."""
import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils import distributed
from utils.errors import BadInput, FolderUnavailable


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it replaces `path`; if it cannot be written, raise BadInput."""
    # Always the same name, so that a killed run leaves at most one such file.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        rename(temporary, path)
    except OSError as error:
        raise BadInput(cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[Path]:
    """Give a temporary folder; on success its files replace `paths`, which are all in one folder.

    Those of `paths` that are not in it are deleted. After a failure, such as a full disk (BadInput), the
    earlier files are intact.
    """
    written = paths[0].with_name(f".{paths[0].name}.tmp")
    try:
        shutil.rmtree(written, ignore_errors=True)  # of a killed run
        written.mkdir()
        yield written
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for path in paths:
            if (written / path.name).exists():
                rename(written / path.name, path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        path = paths[0].with_name(os.path.basename(error.filename or paths[0]))
        raise BadInput(cannot_write(path, error)) from error
    finally:
        shutil.rmtree(written, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> str:
    """The message for a file or folder that cannot be written."""
    return f"{path}: cannot be written: {error.strerror or error}; make room or choose another folder"


def rename(source: Path, target: Path) -> None:
    """Rename a file whose content is on the disk before: a power cut leaves the old or the new file."""
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder for results and lock it until the end of the block or the process; the first rank does.

    Raises:
        FolderUnavailable: in every rank, if another run is using it or it cannot be written to.
    """
    refusal = None
    with contextlib.ExitStack() as stack:
        try:
            if distributed.is_first():
                stack.enter_context(writable(folder))
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FolderUnavailable as error:
            refusal = error
        except (BlockingIOError, PermissionError):
            refusal = FolderUnavailable(f"{folder}: another run is writing to this folder; wait until it "
                                        "ends or choose another folder")
        except OSError:
            pass  # the file system has no locks
        if distributed.broadcast(lambda: refusal is not None):
            raise refusal or FolderUnavailable(f"{folder}: not available to the first rank")
        yield


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make a folder or raise FolderUnavailable; at the end of the block remove new folders without files."""
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FolderUnavailable(cannot_write(folder, error)) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2 ** 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file; {} if there is no file, BadInput with a `remedy` for other content."""
    if not os.path.exists(path):
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: not an object in JSON; {remedy}")
    return content


def read_json_or_nothing(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if there is no file or it is damaged."""
    try:
        return read_json(path, "")
    except (BadInput, OSError):
        return {}


def to_json(content: dict[str, Any]) -> str:
    """JSON text; other types, such as paths, become strings."""
    return json.dumps(content, indent=2, default=str) + "\n"


@distributed.on_first
def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write or replace a JSON file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(to_json(content))


@distributed.on_first
def write_csv(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write or replace a CSV file in one step, with six digits of each float."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf8",
                                            errors="surrogateescape") as file:  # for paths that are not UTF-8
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else value
                          for name, value in row.items()} for row in rows)


@distributed.on_first
def write_array(path: Path, array: np.ndarray) -> None:
    """Write or replace a .npy file in one step."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
