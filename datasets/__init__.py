"""The data sets, by name: images, labels, and the paper's settings for each."""
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import utils  # noqa: F401  first: it says what to do if NumPy is not installed

# isort: split
import numpy as np

from datasets import cifar, folder, scenes, tiny, toy, transforms
from datasets.images import Split
from utils.errors import BadInput

Transform = Callable[[transforms.Images], np.ndarray]
SMALLEST, SMALLEST_OF_IMAGENET = 8, 64  # smallest side in pixels: of any image; for the ImageNet variants


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a data set."""
    epochs: int  # length of the run that `milestones` refer to
    milestones: tuple[int, ...]  # epochs (from 0) at which the learning rate is multiplied by gamma
    gamma: float
    weight_decay: float  # on every parameter
    clip_norm: float | None = None  # largest global gradient norm; None: gradients are not clipped
    lr: float = 0.1  # initial learning rate
    lr_batch: int | None = None  # batch size of `lr`, which scales linearly with it; None: it does not

    def start(self, batch_size: int) -> float:
        """The default initial learning rate."""
        return self.lr * batch_size / self.lr_batch if self.lr_batch else self.lr

    def learning_rate(self, start: float, epoch: int, epochs: int) -> float:
        """The rate of an epoch (from 0) in a run of `epochs`; milestones keep their fraction of the run."""
        passed = sum(epoch >= milestone * epochs / self.epochs for milestone in self.milestones)
        return start * self.gamma ** passed


@dataclass(frozen=True)
class Source:
    """One row of the table: where a data set comes from and how networks are trained on it."""
    read: Callable[[Path], tuple[Split, Split, list[str]]]  # folder -> training, test, class names
    mean: tuple[float, float, float]  # per channel, of images scaled to [0, 1]
    std: tuple[float, float, float]
    small_images: bool  # whether networks use their CIFAR variant, not their ImageNet variant
    recipe: Recipe
    side: int  # of the images that networks get, in pixels
    sizes: tuple[int, ...]  # the sides that --image_size accepts; (): any of SMALLEST or more
    train_transform: transforms.RandomTransform  # before a horizontal flip with probability 1/2
    test_transform: Transform = transforms.as_array
    # For training images when features are computed; by default, as in the release, they are not changed.
    feature_transform: Transform = transforms.as_array

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor and summand, float32 (3, 1, 1), that normalize gray levels, (n, 3, h, w)."""
        mean, std = (np.array(values)[:, None, None] for values in (self.mean, self.std))
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def of_side(self, side: int) -> "Source":
        """The row for images of another side, in pixels."""
        if isinstance(self.train_transform, transforms.PadAndCrop):  # padding scales with the side
            padding = self.train_transform.padding * side // self.side
            return replace(self, side=side, train_transform=transforms.PadAndCrop(padding))
        if self.sizes and isinstance(self.test_transform, transforms.ResizeAndCenterCrop):  # Tiny ImageNet
            crop, resize = (round(length * side / self.side)
                            for length in (self.train_transform.crop, self.test_transform.resize))
            return replace(self, side=side, small_images=True,
                           train_transform=transforms.RandomResizedCrop(crop, side),
                           test_transform=transforms.ResizeAndCenterCrop(resize, side))
        evaluation = transforms.ResizeAndCenterCrop(round(side * 256 / 224), side)  # ImageNet's at 224
        return replace(self, side=side, small_images=side < SMALLEST_OF_IMAGENET,
                       train_transform=transforms.RandomResizedCrop(side, side), test_transform=evaluation,
                       feature_transform=evaluation)


@dataclass(frozen=True)
class DataSet:
    """A data set as the scripts use it: its images and its row of the table."""
    name: str  # in the paths of folders and files that the scripts write
    train: Split
    test: Split
    classes: list[str]
    source: Source
    # Of all training images and labels at their original size, so that an index is valid for all sizes; for
    # a folder of images, of their paths and file sizes.
    images_sha256: str

    @property
    def image_size(self) -> int:
        """Side of the images that networks get, in pixels."""
        return self.source.side

    @property
    def perturbed(self) -> np.ndarray | None:
        """Which training images are mislabelled or corrupted, bool (n,); None: unknown."""
        marks = [mark for mark in (self.mislabelled, self.train.corrupted) if mark is not None]
        return np.logical_or.reduce(marks) if marks else None

    @property
    def mislabelled(self) -> np.ndarray | None:
        """Which training images are mislabelled, bool (n,); None: none is, or unknown."""
        marks = self.train.mislabelled
        return marks if marks is not None and marks.any() else None

    def without(self, train: Sequence[int], test: Sequence[int]) -> "DataSet":
        """The data set without the images at these positions of its two halves."""
        return replace(self, train=self.train.without(train), test=self.test.without(test))

    def pictures(self, positions: np.ndarray) -> np.ndarray:
        """Training images as features are computed from them, uint8 (k, h, w, 3); damaged ones are gray."""
        images = np.full((len(positions), self.image_size, self.image_size, 3), 128, np.uint8)
        for image, i in zip(images, positions, strict=True):
            with contextlib.suppress(BadInput, OSError):
                image[:] = self.source.feature_transform(self.train.pixels([i]))[0]
        return images


CIFAR_RECIPE = Recipe(epochs=200, milestones=(60, 120, 160), gamma=0.2, weight_decay=5e-4)
TINY_RECIPE = Recipe(epochs=90, milestones=(30, 60), gamma=0.1, weight_decay=1e-4, clip_norm=1.0)
IMAGENET_RECIPE = Recipe(epochs=90, milestones=(30, 60), gamma=0.1, weight_decay=1e-4, lr_batch=256)
FOLDER = "folder"
SOURCES = {
    "CIFAR100": Source(cifar.read_cifar, mean=(0.50707, 0.48654, 0.44091), std=(0.26733, 0.25643, 0.27615),
                       small_images=True, recipe=CIFAR_RECIPE, side=32, sizes=(32, 16, 8),
                       train_transform=transforms.PadAndCrop(4)),
    "tiny": Source(tiny.read_tiny, mean=(0.4802, 0.4481, 0.3975), std=(0.2302, 0.2265, 0.2262),
                   small_images=False, recipe=TINY_RECIPE, side=64, sizes=(64, 32, 16),
                   train_transform=transforms.RandomResizedCrop(crop=55, side=64),
                   test_transform=transforms.ResizeAndCenterCrop(resize=73, side=64)),
    "toy": Source(toy.make_toy, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), small_images=True,
                  recipe=CIFAR_RECIPE, side=16, sizes=(16,), train_transform=transforms.PadAndCrop(2)),
    FOLDER: Source(folder.read_folder, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
                   small_images=False, recipe=IMAGENET_RECIPE, side=224, sizes=(),
                   train_transform=transforms.RandomResizedCrop(224, 224)).of_side(224),
}
SOURCES["CIFAR10"] = replace(SOURCES["CIFAR100"], read=partial(cifar.read_cifar, name="CIFAR10"),
                             mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
SCENES: dict[str, dict[str, Callable[[Path], scenes.Splits]]] = {
    **{name: {f"{name}C": partial(scenes.read_cifar_c, name=name),
              f"{name}A": partial(scenes.read_cifar_arrays, name=name, part="attack"),
              f"{name}N": partial(scenes.read_cifar_arrays, name=name, part="noisy")}
       for name in cifar.RELEASES},
    "tiny": {"tinyC": scenes.read_tinyc,
             "tinyA": partial(scenes.read_tiny_arrays, part="attack"),
             "tinyN": partial(scenes.read_tiny_arrays, part="noisy")},
}
SOURCES |= {name: replace(SOURCES[parent], read=read) for parent, readers in SCENES.items()
            for name, read in readers.items()}


def open_dataset(name: str, path: Path, image_size: int | None = None, classes: int | None = None,
                 own_name: str | None = None) -> DataSet:
    """Read a data set into memory, or list its files if its images stay on disk.

    Args:
        path: its folder.
        image_size: side in pixels; None: the data set's own. Smaller images are box averages, as in
            downsampled ImageNet (Chrabaszcz, Loshchilov, Hutter, arXiv:1707.08819); a folder's images, which
            have any size, are resized by their transforms.
        classes: use this many classes, the first ones; None: all.
        own_name: for a folder of your own images; None: `name`.

    Raises:
        BadInput: an option does not fit the data set.
    """
    source = SOURCES[name]
    side = image_size or source.side
    if own_name is not None and name != FOLDER:
        raise BadInput(f"--name {own_name}: only for --dataset {FOLDER}; omit it")
    if own_name != FOLDER and own_name in SOURCES:
        raise BadInput(f"--name {own_name}: the name of another data set; choose another name")
    if not source.sizes and side < SMALLEST:
        raise BadInput(f"--image_size {side}: too small; pass {SMALLEST} or more")
    if source.sizes and side not in source.sizes:
        raise BadInput(f"--image_size {side}: images of {name} can have "
                       f"{' or '.join(map(str, source.sizes))} pixels; pass one of these or omit the option")
    train, test, names = source.read(path)
    sha256, used = train.sha256(), classes or len(names)
    changed = train.record.get("classes")
    if changed not in (None, used) and train.record.get("images_sha256") == sha256:
        raise BadInput(f"--classes {used}: images or labels of {name} were changed in the first {changed} "
                       f"classes; pass --classes {changed}, or run the script in robust/ again with "
                       f"--classes {used}")
    if classes is not None and not 2 <= used <= len(names):
        raise BadInput(f"--classes {used}: {name} has {len(names)}; pass a number from 2 to {len(names)}")
    if used < len(names):
        train, test = (half.without(np.flatnonzero(half.labels >= used)) for half in (train, test))
        names = names[:used]
        if not len(test.labels):
            raise BadInput(f"--classes {used}: {name} has no test image of these; pass a larger number")
    if side != source.side:
        if source.sizes:  # others are resized by their transforms
            train, test = train.shrunk(source.side // side), test.shrunk(source.side // side)
        source = source.of_side(side)
    return DataSet(own_name or name, train, test, names, source, sha256)
