"""Loss, accuracy and speed of one pass over batches, and accuracy by class."""
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils import distributed

# For each batch: positions (b,), and a tensor of values by image.
ByImage = list[tuple[np.ndarray, Any]]


def confusion_matrix(predicted: ByImage, labels: np.ndarray, classes: int) -> np.ndarray:
    """The number of images of each class (row) predicted as each class (column), int64, over all ranks."""
    counts = np.zeros((1, classes, classes), np.int64)
    for positions, values in predicted:
        seen = positions >= 0  # without the padding of a batch
        np.add.at(counts[0], (labels[positions[seen]], values.asnumpy()[seen]), 1)
    return distributed.all_gather(counts).sum(axis=0)


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """The accuracy of each class that has images, in percent."""
    images = confusion.sum(axis=1)
    return 100 * (confusion.diagonal()[images > 0] / images[images > 0])


def mean_of_worst_tenth(accuracies: np.ndarray) -> float:
    """The mean over the ceil(k / 10) lowest of k accuracies."""
    return float(np.sort(accuracies)[:math.ceil(len(accuracies) / 10)].mean())


@dataclass
class Metrics:
    """The metrics of one pass. Losses stay on the device until `fetch`: reading one waits for its step."""
    started: float = field(default_factory=time.perf_counter)
    images: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    steps: int = 0
    diverged_at: int = 0  # the first step whose loss is not a finite number; 0: none
    seconds: float = 0.0
    untimed_seconds: float = 0.0
    untimed_images: int = 0
    pending: list = field(default_factory=list)

    def fetch(self) -> None:
        """Add up the losses and counts of the steps so far."""
        for loss, correct, count in self.pending:
            value = float(loss.asnumpy())
            self.steps += 1
            if not count:  # some ranks may have no image of the last batch
                continue
            if not math.isfinite(value) and not self.diverged_at:
                self.diverged_at = self.steps
            self.loss_sum += value * count
            self.correct += int(correct.asnumpy())
            self.images += count
        self.pending.clear()
        self.seconds = time.perf_counter() - self.started

    def over_ranks(self) -> None:
        """Add up the numbers of all ranks, except seconds; if one has diverged, all know it."""
        own = np.array([[self.loss_sum, self.correct, self.images, self.untimed_images, self.diverged_at]])
        by_rank = distributed.all_gather(own)
        self.loss_sum = float(by_rank[:, 0].sum())
        self.correct, self.images, self.untimed_images = (int(number) for number in by_rank[:, 1:4].sum(0))
        self.diverged_at = int(by_rank[:, 4].max())

    def describe(self) -> str:
        """The metrics so far, for a progress bar."""
        self.fetch()
        return f"loss {self.loss:.3f}, accuracy {self.accuracy:.2f} %, {self.images_per_second:.1f} img/s"

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return self.loss_sum / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.correct / max(self.images, 1)

    @property
    def images_per_second(self) -> float:
        """Without the first step of each batch size, which may compile, unless there are no others."""
        if self.images > self.untimed_images:
            return (self.images - self.untimed_images) / (self.seconds - self.untimed_seconds)
        return self.images / max(self.seconds, 1e-9)
