"""Batches of (index, image, label) from a split: transformed, normalized while the step before runs."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from datasets import DataSet
from datasets.images import Split
from utils.device import random_stream

PADDING = -1  # index and label of the rows that fill up a last batch
THREADS = 2  # that make batches
AHEAD = 2  # batches made before they are asked for
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # index (n,), image (n, 3, h, w), label (n,)


class EvaluationBatches:
    """The whole split in its own order, normalized, the last batch filled up with rows of index and label -1.

    Filled up so that one compiled graph serves every batch.

    Args:
        share: (rank, size): every size-th batch from batch number `rank` on. All ranks have as many; the last
            ones' last may have no image.
        transform: done to the images, uint8 (n, h, w, 3), before; None: they stay as they are, as features
            need them.
    """

    def __init__(self, data: DataSet, split: Split, batch_size: int,
                 transform: Callable[[np.ndarray], np.ndarray] | None = None,
                 share: tuple[int, int] = (0, 1)) -> None:
        self.split = split
        self.batch_size = min(batch_size, len(split.labels))
        self.transform = transform
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
        step = self.batch_size * self.ranks
        first = image + self.rank * self.batch_size
        return in_threads(self._batch, range(first, first + self._batches_from(image) * step, step))

    def _batch(self, start: int) -> Batch:
        n = len(self.split.labels)
        rows = np.arange(start, start + self.batch_size)
        index = np.where(rows < n, rows, PADDING).astype(np.int32)
        label = np.where(rows < n, self.split.labels[index], PADDING).astype(np.int32)
        image = self.split.pixels(index)
        if self.transform:
            image = self.transform(image)
        return index, self.normalize(image.transpose(0, 3, 1, 2)), label


class TrainingBatches:
    """The images `keep`, in a new order each epoch, transformed as the data set has it, flipped, normalized.

    An epoch's order and transforms depend on `seed` and the epoch's number alone.

    Args:
        share: (rank, size): of each batch every size-th image from number `rank` on, so that as many ranks
            share it. One that gets none of a last batch gets its first with index and label -1.
    """

    def __init__(self, data: DataSet, keep: np.ndarray, batch_size: int, seed: int,
                 share: tuple[int, int] = (0, 1)) -> None:
        self.split = data.train
        self.size = data.train.image_shape[:2]
        self.transform = data.source.train_transform
        self.keep = keep
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.ranks = share
        self.normalize = Normalizer(data)

    def __len__(self) -> int:
        return -(-len(self.keep) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch; the last one may be smaller."""
        return in_threads(self._batch, self._draw(number))

    def _draw(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
        """All that is random: the images of each batch, what their transform needs, which are flipped.

        Drawn for the whole batch; of this rank's share, and whether that counts.
        """
        generator = random_stream(self.seed, "epoch", number)
        order = generator.permutation(self.keep)
        for start in range(0, len(order), self.batch_size):
            index = order[start:start + self.batch_size]
            drawn = self.transform.draw(generator, len(index), *self.size)
            flip = generator.random(len(index)) < 0.5
            share = slice(self.rank, None, self.ranks) if self.rank < len(index) else slice(1)
            yield index[share], drawn[:, share], flip[share], self.rank < len(index)

    def _batch(self, plan: tuple[np.ndarray, np.ndarray, np.ndarray, bool]) -> Batch:
        index, drawn, flip, counts = plan
        image = self.transform(self.split.pixels(index), drawn).transpose(0, 3, 1, 2)
        image[flip] = image[flip, ..., ::-1]
        label = self.split.labels[index]
        if not counts:
            index, label = np.full_like(index, PADDING), np.full_like(label, PADDING)
        return index.astype(np.int32), self.normalize(image), label


def in_threads(make: Callable[[Any], Batch], plans: Iterable[Any]) -> Iterator[Batch]:
    """make(plan) of each plan, in their order, made in threads some batches before they are asked for."""
    pool = ThreadPoolExecutor(THREADS)
    pending = deque()
    try:
        for plan in plans:
            pending.append(pool.submit(make, plan))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the caller stops early
        pool.shutdown(cancel_futures=True)


class Normalizer:
    """uint8 (n, 3, h, w) to float32 (x / 255 - mean) / std."""

    def __init__(self, data: DataSet) -> None:
        mean, std = np.array(data.source.mean), np.array(data.source.std)
        self.scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
        self.shift = (-mean / std).astype(np.float32)[:, None, None]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        result = np.multiply(image, self.scale, dtype=np.float32, order="C")
        result += self.shift
        return result
