"""Batches of (index, image, label) from a split: transformed, normalized while the step before runs."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from datasets import DataSet
from datasets.folder import FileSplit
from datasets.images import Split
from datasets.transforms import Images
from utils.device import random_stream
from utils.processes import usable_cores
from utils.progress import progress_bar

PADDING = -1  # index and label of the rows that fill up a last batch
AHEAD = 2  # batches made before they are asked for
PIECE = 8  # images of a batch that a worker makes at one time, or more
CHECKED = 256  # images between two states of the bar of a check
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # index (n,), image (n, 3, h, w), label (n,)
# index (n,), label (n,), and arrays (..., n) of what is random
Plan = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]


class EvaluationBatches:
    """The whole split in its own order, normalized, the last batch filled up with rows of index and label -1.

    Filled up, with zeros, so that one compiled graph serves every batch.

    Args:
        transform: done to the images before; None: they stay as they are.
        workers: threads that make batches; None: one a core.
        share: (rank, size): every size-th batch from batch number `rank` on. All ranks have as many; the last
            ones' last may have no image.
    """

    def __init__(self, data: DataSet, split: Split | FileSplit, batch_size: int,
                 transform: Callable[[Images], np.ndarray] | None = None, workers: int | None = None,
                 share: tuple[int, int] = (0, 1)) -> None:
        self.split = split
        self.side = data.image_size
        self.batch_size = min(batch_size, len(split.labels))
        self.transform = transform
        self.workers = workers
        self.rank, self.ranks = share
        self.normalize = Normalizer(data)

    def __len__(self) -> int:
        return self._batches_from(0)

    def _batches_from(self, image: int) -> int:
        return -(-(len(self.split.labels) - image) // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[Batch]:
        return self.starting_at(0)

    def starting_at(self, image: int) -> Iterator[Batch]:
        """The batches from that image on, which begins one of them."""
        return in_threads(self._fill, self._plans(image), self.side, self.workers)

    def _plans(self, image: int) -> Iterator[Plan]:
        n, step = len(self.split.labels), self.batch_size * self.ranks
        first = image + self.rank * self.batch_size
        for start in range(first, first + self._batches_from(image) * step, step):
            rows = np.arange(start, start + self.batch_size)
            index = np.where(rows < n, rows, PADDING)
            yield index, np.where(rows < n, self.split.labels[index], PADDING), ()

    def _fill(self, result: np.ndarray, index: np.ndarray) -> None:
        images = self.split.pixels(index)
        self.normalize(self.transform(images) if self.transform else images, result)


class TrainingBatches:
    """The images `keep`, in a new order each epoch, transformed as the data set has it, flipped, normalized.

    An epoch's order and transforms depend on `seed` and the epoch's number alone.

    Args:
        workers: threads that make batches; None: one a core.
        share: (rank, size): of each batch every size-th image from number `rank` on, so that as many ranks
            share it. One that gets none of a last batch gets a row of zeros with index and label -1.
    """

    def __init__(self, data: DataSet, keep: np.ndarray, batch_size: int, seed: int,
                 workers: int | None = None, share: tuple[int, int] = (0, 1)) -> None:
        self.split = data.train
        self.side = data.image_size
        self.transform = data.source.train_transform
        self.keep = keep
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.rank, self.ranks = share
        self.normalize = Normalizer(data)

    def __len__(self) -> int:
        return -(-len(self.keep) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch; the last one may be smaller."""
        return in_threads(self._fill, self._plans(number), self.side, self.workers)

    def _plans(self, number: int) -> Iterator[Plan]:
        """All that is random: the images of each batch, what their transform needs, which are flipped.

        Drawn for the whole batch; of this rank's share.
        """
        generator = random_stream(self.seed, "epoch", number)
        order = generator.permutation(self.keep)
        for start in range(0, len(order), self.batch_size):
            index = order[start:start + self.batch_size]
            drawn = self.transform.draw(generator, len(index))
            flip = generator.random(len(index)) < 0.5
            share = slice(self.rank, None, self.ranks)
            if self.rank < len(index):
                yield index[share], self.split.labels[index[share]], (drawn[:, share], flip[share])
            else:
                yield np.array([PADDING]), np.array([PADDING]), ()

    def _fill(self, result: np.ndarray, index: np.ndarray, drawn: np.ndarray, flip: np.ndarray) -> None:
        images = self.transform(self.split.pixels(index), drawn)
        images[flip] = images[flip, :, ::-1]
        self.normalize(images, result)


def in_threads(fill: Callable[..., None], plans: Iterable[Plan], side: int, workers: int | None
               ) -> Iterator[Batch]:
    """The batches of `plans` in their order, made in threads some batches before they are asked for.

    Threads, not processes: Pillow and numpy release the interpreter's lock while they decode, resize and
    normalize. All of them work at one batch, so that no more than AHEAD + 1 are in memory.

    Args:
        fill: writes images, float32 (k, 3, side, side), to its first argument; the others are their index
            and what is random of them. Rows of index PADDING are left zero.
        workers: threads; None: one a core.
    """
    workers = workers or usable_cores()
    pool = ThreadPoolExecutor(workers)
    pending = deque()

    def finished() -> Batch:
        batch, pieces = pending.popleft()
        for piece in pieces:
            piece.result()
        return batch

    try:
        for index, label, random in plans:
            images = np.zeros((len(index), 3, side, side), np.float32)
            n = np.count_nonzero(index != PADDING)
            size = max(PIECE, -(-n // workers))
            parts = (slice(i, min(i + size, n)) for i in range(0, n, size))
            pieces = [pool.submit(fill, images[part], index[part], *(values[..., part] for values in random))
                      for part in parts]
            pending.append(((index.astype(np.int32), images, label.astype(np.int32)), pieces))
            if len(pending) > AHEAD:
                yield finished()
        while pending:
            yield finished()
    finally:  # also when the caller stops early
        pool.shutdown(cancel_futures=True)


def check_images(split: Split | FileSplit, index: np.ndarray, workers: int | None) -> None:
    """Decode the images `index` once, to see that they are whole.

    Raises:
        BadInput: the first one of them that is missing or damaged.
    """
    def decode(_: np.ndarray, ids: np.ndarray) -> None:
        for _ in split.pixels(ids):
            pass

    plans = ((ids, ids, ()) for ids in np.split(index, range(CHECKED, len(index), CHECKED)))
    with progress_bar("check", len(index), "image") as bar:
        for ids, _, _ in in_threads(decode, plans, 0, workers):
            bar.update(len(ids))


class Normalizer:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w): (x / 255 - mean) / std."""

    def __init__(self, data: DataSet) -> None:
        mean, std = np.array(data.source.mean), np.array(data.source.std)
        self.scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
        self.shift = (-mean / std).astype(np.float32)[:, None, None]

    def __call__(self, images: np.ndarray, result: np.ndarray) -> None:
        """Write the normalized images to `result`."""
        np.multiply(images.transpose(0, 3, 1, 2), self.scale, out=result, dtype=np.float32)
        result += self.shift
