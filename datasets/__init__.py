"""The data sets, by name: images, labels, and the paper's settings for each."""
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets import cifar, scenes, tiny, toy
from datasets.images import Split
from datasets.transforms import PadAndCrop, RandomResizedCrop, RandomTransform, ResizeAndCentreCrop
from files import BadInput

TestTransform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a data set.

    Args:
        epochs: the run that `milestones` belong to.
        milestones: first epochs (from 0) of a lower learning rate.
        factor: what the learning rate is multiplied by at each.
        weight_decay: on every parameter.
        clip_norm: the most that the norm of all gradients together may be; None: they are not clipped.
    """
    epochs: int
    milestones: tuple[int, ...]
    factor: float
    weight_decay: float
    clip_norm: float | None = None

    def learning_rate(self, start: float, epoch: int, epochs: int) -> float:
        """The rate of an epoch (from 0) in a run of `epochs`; milestones keep their share of the run."""
        passed = sum(epoch >= milestone * epochs / self.epochs for milestone in self.milestones)
        return start * self.factor ** passed


@dataclass(frozen=True)
class DataSet:
    """A data set as the scripts use it.

    Args:
        mean, std: of each channel, of images scaled to [0, 1].
        small_images: whether networks take their CIFAR form, not their ImageNet form.
        train_transform: of training images, before a horizontal flip with probability 1/2.
        test_transform: of test images; None: they stay as they are. Features for a selection are of training
            images as they are, whatever these say.
    """
    name: str
    train: Split
    test: Split
    classes: list[str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    small_images: bool
    recipe: Recipe
    train_transform: RandomTransform
    test_transform: TestTransform | None = None


@dataclass(frozen=True)
class Source:
    """One row of the table; what is not named here: see DataSet.

    Args:
        read: a folder's training split, test split and class names.
    """
    read: Callable[[Path], tuple[Split, Split, list[str]]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    small_images: bool
    recipe: Recipe
    train_transform: RandomTransform
    test_transform: TestTransform | None = None


CIFAR_RECIPE = Recipe(epochs=200, milestones=(60, 120, 160), factor=0.2, weight_decay=5e-4)
TINY_RECIPE = Recipe(epochs=90, milestones=(30, 60), factor=0.1, weight_decay=1e-4, clip_norm=1.0)
SOURCES = {
    "CIFAR100": Source(cifar.read_cifar100, mean=(0.50707, 0.48654, 0.44091), std=(0.26733, 0.25643, 0.27615),
                       small_images=True, recipe=CIFAR_RECIPE, train_transform=PadAndCrop(4)),
    "tiny": Source(tiny.read_tiny, mean=(0.4802, 0.4481, 0.3975), std=(0.2302, 0.2265, 0.2262),
                   small_images=False, recipe=TINY_RECIPE,
                   train_transform=RandomResizedCrop(crop=55, side=64),
                   test_transform=ResizeAndCentreCrop(resize=73, side=64)),
    "toy": Source(toy.make_toy, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), small_images=True,
                  recipe=CIFAR_RECIPE, train_transform=PadAndCrop(2)),
}
SCENES = {
    "CIFAR100": {"CIFAR100C": scenes.read_cifar100c, "CIFAR100A": scenes.read_cifar100a,
                 "CIFAR100N": scenes.read_cifar100n},
    "tiny": {"tinyC": scenes.read_tinyc, "tinyA": scenes.read_tinya, "tinyN": scenes.read_tinyn},
}
SOURCES |= {name: replace(SOURCES[parent], read=read) for parent, readers in SCENES.items()
            for name, read in readers.items()}


def open_dataset(name: str, folder: Path) -> DataSet:
    """Read a data set into memory.

    Raises:
        BadInput: unknown name; missing or damaged files.
    """
    if name not in SOURCES:
        raise BadInput(f"--dataset {name}: unknown; known are {', '.join(SOURCES)}")
    source = SOURCES[name]
    train, test, classes = source.read(folder)
    return DataSet(name, train, test, classes, source.mean, source.std, source.small_images, source.recipe,
                   source.train_transform, source.test_transform)
