"""The data sets, by name: images, labels, and the paper's settings for each."""
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets import cifar, scenes, tiny, toy
from datasets.images import Split
from datasets.transforms import PadAndCrop, RandomResizedCrop, RandomTransform, ResizeAndCenterCrop
from utils.files import BadInput

TestTransform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a data set.

    Args:
        epochs: the run that `milestones` belong to.
        milestones: epochs (from 0) at which the learning rate is multiplied by gamma.
        gamma: see milestones.
        weight_decay: on every parameter.
        clip_norm: largest global gradient norm; None: gradients are not clipped.
    """
    epochs: int
    milestones: tuple[int, ...]
    gamma: float
    weight_decay: float
    clip_norm: float | None = None

    def learning_rate(self, start: float, epoch: int, epochs: int) -> float:
        """The rate of an epoch (from 0) in a run of `epochs`; milestones keep their fraction of the run."""
        passed = sum(epoch >= milestone * epochs / self.epochs for milestone in self.milestones)
        return start * self.gamma ** passed


@dataclass(frozen=True)
class Source:
    """One row of the table: where a data set comes from and how networks are trained on it.

    Args:
        read: a folder's training split, test split and class names.
        mean, std: of each channel, of images scaled to [0, 1].
        small_images: whether networks take their CIFAR variant, not their ImageNet variant.
        train_transform: of training images, before a horizontal flip with probability 1/2.
        test_transform: of test images; None: they stay as they are. Features for a selection are of training
            images as they are, whatever these say.
        sizes: sides that the images can have, in pixels; the first is their own.
    """
    read: Callable[[Path], tuple[Split, Split, list[str]]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    small_images: bool
    recipe: Recipe
    train_transform: RandomTransform
    test_transform: TestTransform | None = None
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set as the scripts use it: its images and its row of the table.

    Args:
        images_sha256: of all training images and labels at their own size, so that an index made at one size
            serves the others.
    """
    name: str
    train: Split
    test: Split
    classes: list[str]
    source: Source
    images_sha256: str


CIFAR_RECIPE = Recipe(epochs=200, milestones=(60, 120, 160), gamma=0.2, weight_decay=5e-4)
TINY_RECIPE = Recipe(epochs=90, milestones=(30, 60), gamma=0.1, weight_decay=1e-4, clip_norm=1.0)
SOURCES = {
    "CIFAR100": Source(cifar.read_cifar100, mean=(0.50707, 0.48654, 0.44091), std=(0.26733, 0.25643, 0.27615),
                       small_images=True, recipe=CIFAR_RECIPE, train_transform=PadAndCrop(4),
                       sizes=(32, 16, 8)),
    "tiny": Source(tiny.read_tiny, mean=(0.4802, 0.4481, 0.3975), std=(0.2302, 0.2265, 0.2262),
                   small_images=False, recipe=TINY_RECIPE,
                   train_transform=RandomResizedCrop(crop=55, side=64),
                   test_transform=ResizeAndCenterCrop(resize=73, side=64), sizes=(64,)),
    "toy": Source(toy.make_toy, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), small_images=True,
                  recipe=CIFAR_RECIPE, train_transform=PadAndCrop(2), sizes=(16,)),
}
SCENES = {
    "CIFAR100": {"CIFAR100C": scenes.read_cifar100c, "CIFAR100A": scenes.read_cifar100a,
                 "CIFAR100N": scenes.read_cifar100n},
    "tiny": {"tinyC": scenes.read_tinyc, "tinyA": scenes.read_tinya, "tinyN": scenes.read_tinyn},
}
SOURCES |= {name: replace(SOURCES[parent], read=read) for parent, readers in SCENES.items()
            for name, read in readers.items()}


def open_dataset(name: str, folder: Path, image_size: int | None = None, classes: int | None = None
                 ) -> DataSet:
    """Read a data set into memory.

    Args:
        image_size: side in pixels; None: the data set's own. Smaller images are box averages, as those of
            downsampled ImageNet (Chrabaszcz, Loshchilov, Hutter, arXiv:1707.08819), and crops move by as
            as much less.
        classes: take the images of that many classes, the first ones; None: of all.

    Raises:
        BadInput: unknown name or size; fewer classes than asked for; missing or damaged files.
    """
    if name not in SOURCES:
        raise BadInput(f"--dataset {name}: unknown; known are {', '.join(SOURCES)}")
    source = SOURCES[name]
    if image_size not in (None, *source.sizes):
        sizes = " or ".join(map(str, source.sizes))
        raise BadInput(f"--image_size {image_size}: images of {name} can have {sizes} pixels; name one of "
                       "these or leave it out")
    train, test, names = source.read(folder)
    sha256 = train.sha256()
    if classes is not None:
        if not 2 <= classes <= len(names):
            raise BadInput(f"--classes {classes}: {name} has {len(names)}; name a number from 2 to that")
        train, test, names = train.of_classes(classes), test.of_classes(classes), names[:classes]
    if image_size not in (None, source.sizes[0]):
        factor = source.sizes[0] // image_size
        train, test = train.shrunk(factor), test.shrunk(factor)
        source = replace(source, train_transform=PadAndCrop(source.train_transform.padding // factor))
    return DataSet(name, train, test, names, source, sha256)
