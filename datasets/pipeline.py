"""Batches of (index, image, label) from a split, prepared in threads while earlier batches are used."""
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from datasets import DataSet, Source, Transform
from datasets.images import Split
from datasets.transforms import as_array
from utils.device import random_stream
from utils.distributed import cores
from utils.errors import BadInput
from utils.progress import ProgressBar

PADDING = -1  # index and label of the rows that pad the last batch
AHEAD = 2  # batches prepared in advance
PIECE = 8  # smallest number of images that a thread prepares at once
CHECKED = 256  # images between two updates of the progress bar of a check
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # index (n,), image (n, 3, h, w), label (n,)
# index (n,), label (n,), and arrays of random numbers (..., n)
Plan = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]


def evaluation_batches(data: DataSet, split: Split, batch_size: int, transform: Transform = as_array,
                       workers: int | None = None, shard: tuple[int, int] = (0, 1), start: int = 0
                       ) -> Iterator[Batch]:
    """All images of a split in order, normalized. Zeros with index and label -1 pad the last batch.

    With padding, all batches use one compiled graph.

    Args:
        transform: applied to the images before normalization.
        workers: threads that prepare batches; None: one per core.
        shard: (rank, size): every size-th batch, starting with batch number `rank`. All ranks get the same
            number of batches; the last one of some ranks may have no image.
        start: position of the first image.
    """
    n, (rank, ranks) = len(split.labels), shard
    batch_size = min(batch_size, n)

    def plans() -> Iterator[Plan]:
        for first in range(start, n, batch_size * ranks):
            rows = np.arange(first + rank * batch_size, first + (rank + 1) * batch_size)
            index = np.where(rows < n, rows, PADDING)
            yield index, np.where(rows < n, split.labels[index], PADDING), ()

    def fill(result: np.ndarray, index: np.ndarray) -> None:
        normalize(transform(split.pixels(index)), data.source, result)

    return in_threads(fill, plans(), data.image_size, workers)


def training_batches(data: DataSet, keep: np.ndarray, batch_size: int, seed: int, epoch: int,
                     workers: int | None = None, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """The images `keep` in an epoch's random order, transformed by the data set's transform and normalized.

    Order and transforms depend only on `seed` and the epoch's number; the last batch may be smaller.

    Args:
        workers: threads that prepare batches; None: one per core.
        shard: (rank, size): every size-th image of each batch, starting with number `rank`. A rank without
            an image of the last batch gets a row of zeros with index and label -1.
    """
    split, transform, (rank, ranks) = data.train, data.source.train_transform, shard

    def plans() -> Iterator[Plan]:
        # Random numbers are drawn for the complete batch; this rank uses its shard of them.
        generator = random_stream(seed, "epoch", epoch)
        order = generator.permutation(keep)
        for start in range(0, len(order), batch_size):
            index = order[start:start + batch_size]
            drawn = transform.draw(generator, len(index))
            flip = generator.random(len(index)) < 0.5
            own = slice(rank, None, ranks)
            if rank < len(index):
                yield index[own], split.labels[index[own]], (drawn[:, own], flip[own])
            else:
                yield np.array([PADDING]), np.array([PADDING]), ()

    def fill(result: np.ndarray, index: np.ndarray, drawn: np.ndarray, flip: np.ndarray) -> None:
        images = transform(split.pixels(index), drawn)
        images[flip] = images[flip, :, ::-1]
        normalize(images, data.source, result)

    return in_threads(fill, plans(), data.image_size, workers)


def in_threads(fill: Callable[..., None], plans: Iterable[Plan], side: int, workers: int | None
               ) -> Iterator[Batch]:
    """The batches of `plans` in order, prepared in threads ahead of their use.

    Threads are enough, since Pillow and NumPy release the interpreter's lock while they decode, resize and
    normalize. All threads share a batch, so at most AHEAD + 1 batches are in memory.

    Args:
        fill: writes images, float32 (k, 3, side, side), to its first argument, from their index and random
            numbers, the other arguments. Rows with index PADDING stay zero.
        workers: threads; None: one per core.
    """
    threads = workers or len(cores())
    pool = ThreadPoolExecutor(threads)

    def begin(index: np.ndarray, label: np.ndarray, random: tuple[np.ndarray, ...]
              ) -> tuple[Batch, list[Future[None]]]:
        images = np.zeros((len(index), 3, side, side), np.float32)
        n = np.count_nonzero(index != PADDING)
        size = max(PIECE, -(-n // threads))
        parts = (slice(i, min(i + size, n)) for i in range(0, n, size))
        pieces = [pool.submit(fill, images[part], index[part], *(values[..., part] for values in random))
                  for part in parts]
        return (index.astype(np.int32), images, label.astype(np.int32)), pieces

    try:
        begun = itertools.starmap(begin, plans)
        pending = deque(itertools.islice(begun, AHEAD))
        while pending:
            pending.extend(itertools.islice(begun, 1))
            batch, pieces = pending.popleft()
            for piece in pieces:
                piece.result()
            yield batch
    finally:  # also when the caller stops early
        pool.shutdown(cancel_futures=True)


def damaged_images(split: Split, workers: int | None) -> dict[int, str]:
    """Decode all images once; return the errors of those that are damaged or missing, by position."""
    damaged, index = dict[int, str](), np.arange(len(split.labels))

    def decode(_: np.ndarray, rows: np.ndarray) -> None:
        for row in rows.tolist():
            try:
                deque(split.pixels([row]), maxlen=0)
            except (BadInput, OSError) as error:
                damaged[row] = str(error)

    plans = ((rows, rows, ()) for rows in np.split(index, range(CHECKED, len(index), CHECKED)))
    with ProgressBar("check", len(index), "image") as bar:
        for rows, _, _ in in_threads(decode, plans, 0, workers):
            bar.update(len(rows))
    return dict(sorted(damaged.items()))


def normalize(images: np.ndarray, source: Source, result: np.ndarray) -> None:
    """Write uint8 (n, h, w, 3) to `result`, float32 (n, 3, h, w), as (x / 255 - mean) / std."""
    scale, shift = source.scale_and_shift()
    np.multiply(images.transpose(0, 3, 1, 2), scale, out=result, dtype=np.float32)
    result += shift
