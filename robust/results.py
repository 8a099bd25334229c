"""The files that the scripts of this folder write."""
import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import runtime
from files import BadInput, read_bytes, replacing


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file in one step.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def save_blocks(path: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write a uint8 .npy file in one step from blocks of its rows, of which one at a time is in memory.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(npy_header(shape))
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.uint8))


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The head of a .npy file of uint8 in C order."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


@contextlib.contextmanager
def recording(path: Path, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Write a record beside results: gone while they are written, there again once they are whole.

    So it never describes files of another run, wherever that was stopped.

    Args:
        record: may be added to meanwhile.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be replaced ({error.strerror}); name another folder") from error
    yield record
    save_record(path, record)


def save_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record, with the versions that it depends on, as JSON.

    Raises:
        BadInput: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**record, "versions": runtime.versions()}, indent=2) + "\n")


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """A record's content; {} where there is none.

    Raises:
        BadInput: the file is no JSON object; `remedy` says what to do.
    """
    if not os.path.exists(path):
        return {}
    try:
        record = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise BadInput(f"{path}: not a record in JSON; {remedy}")
    return record
