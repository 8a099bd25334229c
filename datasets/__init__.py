"""The data sets, by name: images, labels, and the paper's settings for each."""
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import cifar, toy
from files import BadInput


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a data set.

    Args:
        epochs: the run that `milestones` belong to.
        milestones: first epochs (from 0) of a lower learning rate.
        factor: what the learning rate is multiplied by at each.
        weight_decay: on every parameter.
    """
    epochs: int
    milestones: tuple[int, ...]
    factor: float
    weight_decay: float

    def learning_rate(self, start: float, epoch: int, epochs: int) -> float:
        """The rate of an epoch (from 0) in a run of `epochs`; milestones keep their share of the run."""
        passed = sum(epoch >= milestone * epochs / self.epochs for milestone in self.milestones)
        return start * self.factor ** passed


@dataclass(frozen=True)
class Split:
    """Images, uint8 (n, h, w, 3), and their labels, int32 (n,), in the data set's own order."""
    images: np.ndarray
    labels: np.ndarray

    def sha256(self) -> str:
        """Of the images and labels, in hexadecimal."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


@dataclass(frozen=True)
class DataSet:
    """A data set as the scripts use it.

    Args:
        mean, std: of each channel, of images scaled to [0, 1].
        padding: of the random crop in training, in pixels.
    """
    name: str
    train: Split
    test: Split
    classes: list[str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: int
    small_images: bool
    recipe: Recipe


@dataclass(frozen=True)
class Source:
    """One row of the table: `read` gives ((images, labels), (images, labels), class names) of a folder."""
    read: Callable[[Path], tuple]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: int
    small_images: bool
    recipe: Recipe


CIFAR_RECIPE = Recipe(epochs=200, milestones=(60, 120, 160), factor=0.2, weight_decay=5e-4)
SOURCES = {
    "CIFAR100": Source(cifar.read_cifar100, mean=(0.50707, 0.48654, 0.44091), std=(0.26733, 0.25643, 0.27615),
                       padding=4, small_images=True, recipe=CIFAR_RECIPE),
    "toy": Source(toy.make_toy, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), padding=2, small_images=True,
                  recipe=CIFAR_RECIPE),
}


def open_dataset(name: str, folder: Path) -> DataSet:
    """Read a data set into memory.

    Raises:
        BadInput: unknown name; missing or damaged files.
    """
    if name not in SOURCES:
        raise BadInput(f"--dataset {name}: unknown; known are {', '.join(SOURCES)}")
    source = SOURCES[name]
    train, test, classes = source.read(folder)
    return DataSet(name, Split(*train), Split(*test), classes, source.mean, source.std, source.padding,
                   source.small_images, source.recipe)
