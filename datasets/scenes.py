"""The paper's complex scenes: training images or labels as robust/ wrote them, test images always clean.

The files are the PyTorch release's, and are read whichever of the two wrote them.
"""
import os
from pathlib import Path

import numpy as np

from datasets.cifar import read_cifar100
from datasets.images import Split
from datasets.tiny import read_tiny
from utils.arrays import read_array
from utils.files import BadInput, read_bytes, read_json
from utils.pickles import unpickle

CORRUPT = "cifar-100-corrupt"  # folder of CIFAR100C
NOTE = "corrupt.json"  # in a corrupted copy of Tiny ImageNet
FINISHED = "finished"  # its state
Splits = tuple[Split, Split, list[str]]


def read_cifar100c(root: Path) -> Splits:
    """CIFAR-100 with corrupted training images, from cifar-100-corrupt/img.bin and targets.bin.

    Raises:
        BadInput: a file is missing, damaged, or does not fit CIFAR-100.
    """
    clean, test, classes = read_cifar100(root)
    script = "robust/corrupt-cifar.py"
    images, targets = (root / CORRUPT / name for name in ("img.bin", "targets.bin"))
    return Split(check_images(read_pickle(images, script), clean, images, script),
                 check_labels(read_pickle(targets, script), clean, classes, targets, script)), test, classes


def read_cifar100a(root: Path) -> Splits:
    """CIFAR-100 with attacked training images, from attack/cifar_train.npy, and its own labels.

    Raises:
        BadInput: as `read_cifar100c`.
    """
    clean, test, classes = read_cifar100(root)
    script = "robust/attack-cifar.py"
    path = root / "attack" / "cifar_train.npy"
    images = check_images(read_array(path, make(script)), clean, path, script)
    return Split(np.array(images), clean.labels), test, classes


def read_cifar100n(root: Path) -> Splits:
    """CIFAR-100 with noisy training labels, from noisy/cifar.npy.

    Raises:
        BadInput: as `read_cifar100c`.
    """
    clean, test, classes = read_cifar100(root)
    script = "robust/noisy-cifar.py"
    path = root / "noisy" / "cifar.npy"
    labels = check_labels(read_array(path, make(script)), clean, classes, path, script)
    return Split(clean.images, labels), test, classes


def read_tinyc(folder: Path) -> Splits:
    """A copy of Tiny ImageNet that robust/corrupt-tiny.py has corrupted; it leaves val/ as it was.

    Raises:
        BadInput: as `read_cifar100c`; the copy is not corrupted, or not wholly.
    """
    remedy = "run robust/corrupt-tiny.py on a copy of tiny-imagenet-200 and name the copy in --data"
    path = folder / NOTE
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing, so this is no corrupted copy; {remedy}")
    if read_json(path, "run robust/corrupt-tiny.py again").get("state") != FINISHED:
        raise BadInput(f"{path}: does not say that the copy is {FINISHED}; run robust/corrupt-tiny.py again")
    return read_tiny(folder)


def read_tinya(folder: Path) -> Splits:
    """Tiny ImageNet with attacked training images: attack/tiny_img.npy, tiny_target.npy beside its folder.

    Raises:
        BadInput: as `read_cifar100c`.
    """
    return read_tiny_arrays(folder, "attack", "robust/attack-tiny.py")


def read_tinyn(folder: Path) -> Splits:
    """Tiny ImageNet with noisy training labels: noisy/tiny_img.npy, tiny_target.npy beside its folder.

    Raises:
        BadInput: as `read_cifar100c`.
    """
    return read_tiny_arrays(folder, "noisy", "robust/noisy-tiny.py")


def read_tiny_arrays(folder: Path, part: str, script: str) -> Splits:
    """Tiny ImageNet with the training images and labels of <part>/tiny_img.npy and tiny_target.npy.

    They are looked for in `folder` and in the folder above it, also above the folder that a link leads to.
    The images stay on disk, memory-mapped.

    Raises:
        BadInput: as `read_cifar100c`; more than one of these places has them.
    """
    clean, test, classes = read_tiny(folder)
    places = [folder / part, Path(os.path.realpath(folder)).parent / part, folder.parent / part]
    found = {os.path.realpath(place): place for place in places if os.path.isfile(place / "tiny_img.npy")}
    if len(found) > 1:
        raise BadInput(f"{' and '.join(map(str, found.values()))}: both hold tiny_img.npy; move the one away "
                       "that is not meant")
    place = next(iter(found.values()), places[1])
    images, targets = place / "tiny_img.npy", place / "tiny_target.npy"
    train = Split(check_images(read_array(images, make(script)), clean, images, script),
                  check_labels(read_array(targets, make(script)), clean, classes, targets, script))
    return train, test, classes


def read_pickle(path: Path, script: str) -> object:
    """What a pickle of plain arrays and lists holds.

    Raises:
        BadInput: it is missing, damaged or holds anything else.
    """
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing; {make(script)}")
    return unpickle(read_bytes(path), path)


def make(script: str) -> str:
    """What to do about a file that a script of robust/ makes."""
    return f"make it with {script}"


def check_images(images: object, clean: Split, path: Path, script: str) -> np.ndarray:
    """The images, if they are as many and of the size and type of the clean ones.

    Raises:
        BadInput: they are not.
    """
    shape = (len(clean.labels), *clean.image_shape)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != shape:
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise BadInput(f"{path}: {what}, not uint8 {shape} as the data set's training images; "
                       f"{make(script)}")
    return images


def check_labels(labels: object, clean: Split, classes: list[str], path: Path, script: str) -> np.ndarray:
    """The labels, int32 (n,), if they are whole numbers, one an image, each of a class.

    Raises:
        BadInput: they are not.
    """
    n = len(clean.labels)
    whole = isinstance(labels, list) and all(isinstance(label, (int, np.integer)) for label in labels) or (
        isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu")
    if not whole or len(labels) != n or not all(0 <= label < len(classes) for label in labels):
        raise BadInput(f"{path}: not {n} whole numbers from 0 to {len(classes) - 1}, a label an image; "
                       f"{make(script)}")
    return np.array(labels, np.int32)
