"""Batches of (index, image, label) from a split, made with numpy."""
from collections.abc import Iterator

import numpy as np

from datasets import DataSet, Split

PADDING = -1  # index and label of the rows that fill up a last batch


class EvaluationBatches:
    """The whole split in its own order, normalised, the last batch filled up with rows of index and label -1.

    Filled up so that one compiled graph serves every batch.
    """

    def __init__(self, data: DataSet, split: Split, batch_size: int) -> None:
        self.split = split
        self.batch_size = min(batch_size, len(split.labels))
        self.normalise = Normaliser(data)

    def __len__(self) -> int:
        return -(-len(self.split.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        n = len(self.split.labels)
        for start in range(0, n, self.batch_size):
            rows = np.arange(start, start + self.batch_size)
            index = np.where(rows < n, rows, PADDING).astype(np.int32)
            label = np.where(rows < n, self.split.labels[index], PADDING).astype(np.int32)
            yield index, self.normalise(self.split.images[index].transpose(0, 3, 1, 2)), label


class TrainingBatches:
    """The images that `keep` names, in a new order each epoch, cropped at random after padding, flipped, normalised.

    An epoch's order and transforms depend on `seed` and the epoch's number alone.
    """

    def __init__(self, data: DataSet, keep: np.ndarray, batch_size: int, seed: int) -> None:
        pad = data.padding
        self.side = data.train.images.shape[1]
        self.shifts = 2 * pad + 1
        padded = np.pad(data.train.images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        # (n, shifts, shifts, 3, side, side): every crop as a view
        self.crops = np.lib.stride_tricks.sliding_window_view(padded, (self.side, self.side), axis=(1, 2))
        self.labels = data.train.labels
        self.keep = keep
        self.batch_size = batch_size
        self.seed = seed
        self.normalise = Normaliser(data)

    def __len__(self) -> int:
        return -(-len(self.keep) // self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The batches of one epoch; the last one may be smaller."""
        generator = np.random.default_rng([self.seed, number])
        order = generator.permutation(self.keep)
        for start in range(0, len(order), self.batch_size):
            index = order[start:start + self.batch_size]
            top, left = generator.integers(0, self.shifts, (2, len(index)))
            image = self.crops[index, top, left]
            flip = generator.random(len(index)) < 0.5
            image[flip] = image[flip, ..., ::-1]
            yield index.astype(np.int32), self.normalise(image), self.labels[index]


class Normaliser:
    """uint8 (n, 3, h, w) to float32 (x / 255 - mean) / std."""

    def __init__(self, data: DataSet) -> None:
        mean, std = np.array(data.mean), np.array(data.std)
        self.scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
        self.shift = (-mean / std).astype(np.float32)[:, None, None]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        result = np.multiply(image, self.scale, dtype=np.float32, order="C")
        result += self.shift
        return result
