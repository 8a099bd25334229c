"""Arrays in pieces, of rows or of classes: features, logits and dynamics may be larger than memory."""
from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 8 * 2 ** 20


def blocks(array: np.ndarray, row_bytes: int = 0) -> Iterator[slice]:
    """The rows of an array, as many at a time as fit into BLOCK_BYTES.

    Args:
        row_bytes: bytes of what is made from a row, if that is more than the row.
    """
    rows = max(1, BLOCK_BYTES // max(row_bytes, array[:1].nbytes))
    return (slice(first, first + rows) for first in range(0, len(array), rows))


def members_of_classes(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of each class present, ascending."""
    by_class = np.argsort(labels, kind="stable")
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
