"""Features in pieces: they may be a memory map larger than memory."""
from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 8 * 2 ** 20


def blocks(array: np.ndarray, row_bytes: int = 0) -> Iterator[slice]:
    """An array's rows, as many at a time as fit into BLOCK_BYTES.

    Args:
        row_bytes: of what is made of a row, if that is more than the row.
    """
    rows = max(1, BLOCK_BYTES // max(array[:1].nbytes, row_bytes))
    return (slice(first, first + rows) for first in range(0, len(array), rows))


def members_of_classes(labels: np.ndarray) -> list[np.ndarray]:
    """The ids of each class present, ascending."""
    by_class = np.argsort(labels, kind="stable")
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)


def rows_of(ids: np.ndarray) -> np.ndarray | slice:
    """Ascending ids as a row index: a slice, which copies nothing, where they are consecutive."""
    return slice(ids[0], ids[-1] + 1) if ids[-1] - ids[0] == len(ids) - 1 else ids
