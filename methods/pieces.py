"""Features, logits and dynamics in pieces: they may be memory maps of files larger than memory."""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils import arrays

BLOCK_BYTES = 8 * 2 ** 20


def blocks(*sources: "np.ndarray | Rows", row_bytes: int = 0) -> Iterator[slice]:
    """The rows of sources of one length, as many at a time as fit into BLOCK_BYTES.

    When the next ones are asked for, these leave resident memory.

    Args:
        row_bytes: of what is made of a row, if that is more than the row.
    """
    rows = max(1, BLOCK_BYTES // max(row_bytes, *(array[:1].nbytes for array in sources)))
    for first in range(0, len(sources[0]), rows):
        yield slice(first, first + rows)
        for array in sources:
            if isinstance(array, np.ndarray):
                arrays.release(array[first:first + rows])


def members_of_classes(labels: np.ndarray) -> list[np.ndarray]:
    """The ids of each class present, ascending."""
    by_class = np.argsort(labels, kind="stable")
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)


def rows_of(ids: np.ndarray) -> np.ndarray | slice:
    """Ascending ids as a row index: a slice, which copies nothing, where they are consecutive."""
    return slice(ids[0], ids[-1] + 1) if ids[-1] - ids[0] == len(ids) - 1 else ids


def copy_rows(array: np.ndarray, ids: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Rows of an array, ids ascending, in memory; a file is read once from its beginning to its end."""
    out = np.empty((len(ids), *array.shape[1:]), array.dtype) if out is None else out
    for rows in blocks(out, row_bytes=array.strides[0]):  # of some columns too a page of the row is mapped
        some = ids[rows]
        out[rows] = array[some]
        arrays.release(array[some[0]:some[-1] + 1])
    return out


@dataclass(frozen=True)
class Rows:
    """Rows of an array that are read when they are asked for.

    Args:
        array: (n, d).
        ids: of the rows, ascending.
    """
    array: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | int) -> np.ndarray:
        """As of an array (len(ids), d)."""
        if not isinstance(rows, slice):
            return self.array[self.ids[rows]]
        if arrays.stays(self.array):
            return self.array[rows_of(self.ids[rows])]
        return copy_rows(self.array, self.ids[rows])

    def columns(self) -> Iterator[np.ndarray]:
        """All rows, as many columns at a time as fit into BLOCK_BYTES, (len(ids), columns).

        Of a file larger than RESIDENT_BYTES many such ranges are read in one pass.
        """
        d = self.array.shape[1]
        column_bytes = self.array.itemsize * len(self)
        width = max(1, BLOCK_BYTES // column_bytes)
        if arrays.stays(self.array):
            rows = rows_of(self.ids)
            yield from (self.array[rows, first:first + width] for first in range(0, d, width))
            return
        together = width * max(1, arrays.RESIDENT_BYTES // (width * column_bytes))
        memory = np.empty((len(self), together), self.array.dtype)
        for left in range(0, d, together):
            part = self.array[:, left:left + together]
            part = Rows(copy_rows(part, self.ids, memory[:, :part.shape[1]]), np.arange(len(self)))
            yield from part.columns()


def of_classes(features: np.ndarray, classes: list[np.ndarray]) -> Iterator[tuple[int, Rows]]:
    """The features of one class after the other, with its position in `classes`, its members' ids.

    A file larger than RESIDENT_BYTES is read from front to back once for every group of classes that fit in
    there together: one by one, the rows of classes that are mixed lie all over the file, and each of them
    would cost a seek, or a read as long as the system reads ahead. Classes that lie in the file one after
    another are read where they lie, so that all groups take one pass. A larger class stays on disk.
    """
    if arrays.stays(features):
        yield from ((i, Rows(features, members)) for i, members in enumerate(classes))
        return
    most = arrays.RESIDENT_BYTES // features[:1].nbytes
    memory = np.empty((most, *features.shape[1:]), features.dtype)  # of one group after the other
    for group in groups(classes, most):
        ids = np.sort(np.concatenate([classes[i] for i in group]))
        if len(ids) > most:
            yield group[0], Rows(features, ids)
            continue
        rows = rows_of(ids)
        held = features[rows] if isinstance(rows, slice) else copy_rows(features, ids, memory[:len(ids)])
        for i in group:
            yield i, Rows(held, np.searchsorted(ids, classes[i]))
        arrays.release(held)


def groups(classes: list[np.ndarray], most: int) -> list[list[int]]:
    """Positions of classes of at most that many images together, by their first ids; larger ones alone."""
    together, room = [], 0
    for i in sorted(range(len(classes)), key=lambda i: classes[i][0]):
        if len(classes[i]) > room:
            together.append([])
            room = most
        together[-1].append(i)
        room -= len(classes[i])
    return together
