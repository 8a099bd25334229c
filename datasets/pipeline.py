"""Batches of (index, image, label) from a split: transformed, normalized while the step before runs."""
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from datasets import AnySplit, DataSet, Source, Transform
from datasets.transforms import as_array
from utils.device import random_stream
from utils.distributed import cores
from utils.errors import BadInput
from utils.progress import ProgressBar

PADDING = -1  # index and label of the rows that fill up a last batch
AHEAD = 2  # batches made before they are asked for
PIECE = 8  # images of a batch that a worker makes at one time, or more
CHECKED = 256  # images between two states of the bar of a check
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # index (n,), image (n, 3, h, w), label (n,)
# index (n,), label (n,), and arrays (..., n) of what is random
Plan = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]


def evaluation_batches(data: DataSet, split: AnySplit, batch_size: int, transform: Transform = as_array,
                       workers: int | None = None, shard: tuple[int, int] = (0, 1), start: int = 0
                       ) -> Iterator[Batch]:
    """The whole split in its own order, normalized, the last batch filled up with rows of index and label -1.

    Filled up, with zeros, so that one compiled graph serves every batch.

    Args:
        transform: done to the images before; by default they stay as they are.
        workers: threads that make batches; None: one per core.
        shard: (rank, size): every size-th batch from batch number `rank` on. All ranks have as many batches;
            the last batch of some ranks may have no image.
        start: the first image, with which a batch begins.
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
    """The images `keep` in the order of an epoch, transformed as the data set has it, flipped, normalized.

    Order and transforms depend on `seed` and the epoch's number alone; the last batch may be smaller.

    Args:
        workers: threads that make batches; None: one per core.
        shard: (rank, size): from each batch every size-th image from number `rank` on. A rank that gets no
            image of a last batch gets a row of zeros with index and label -1.
    """
    split, transform, (rank, ranks) = data.train, data.source.train_transform, shard

    def plans() -> Iterator[Plan]:
        # All that is random is drawn for the whole batch, of which this rank takes its shard.
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
    """The batches of `plans` in their order, made in threads some batches before they are asked for.

    Threads, not processes: Pillow and numpy release the interpreter's lock while they decode, resize and
    normalize. All of them work at one batch, so that no more than AHEAD + 1 are in memory.

    Args:
        fill: writes images, float32 (k, 3, side, side), to its first argument; the others are their index
            and what is random of them. Rows of index PADDING are left zero.
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


def damaged_images(split: AnySplit, workers: int | None) -> dict[int, str]:
    """Decode all images once; return what is wrong with those that are damaged or missing, by position."""
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
