"""The settings that the scripts of this folder write beside their results."""
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.device import versions
from utils.files import BadInput, write_json


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
    write_json(path, {**record, "versions": versions()})
