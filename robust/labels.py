"""Label noise of the paper's complex scenes."""
from pathlib import Path

import numpy as np

from datasets import DataSet
from datasets.images import Split
from robust.records import recording
from utils.arrays import write_blocks
from utils.device import random_stream
from utils.files import BadInput, locked, write_array

BLOCK = 1000  # images decoded at one time


def flip_labels(labels: np.ndarray, classes: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric label noise: each label becomes, with probability `rate`, a uniformly drawn other one.

    Args:
        labels: (n,), from 0 on.
        classes: the first ones, whose labels change, into one another; labels of other classes stay.
        rate: from 0 to 1; the paper's are 0.2 and 0.35.

    Returns:
        The labels, int64 (n,), and which were changed, bool (n,).

    Raises:
        BadInput: there is no other label.
    """
    if classes < 2:
        raise BadInput(f"{classes} class: there is no other label; use a data set of 2 classes or more")
    generator = random_stream(seed, "label noise")
    changed = (generator.random(len(labels)) < rate) & (labels < classes)
    shift = generator.integers(1, classes, len(labels))
    return np.where(changed, (labels + shift) % classes, labels).astype(np.int64), changed


def mislabel_to_files(data: DataSet, rate: float, seed: int, labels_path: Path, changed_path: Path,
                      record_path: Path, images_path: Path | None = None, classes: int | None = None) -> None:
    """Write a data set's training labels with noise, which were changed, and the settings; print how many.

    Args:
        classes: the first ones, in which labels change; None: all.
        images_path: for the images too, uint8 (n, h, w, 3), a block in memory at one time; None: not needed.

    Raises:
        BadInput: files cannot be written; an image cannot be decoded; there are not as many classes.
    """
    train, n = data.train, len(data.train.labels)
    classes = len(data.classes) if classes is None else classes
    if classes > len(data.classes):
        raise BadInput(f"--classes {classes}: {data.name} has {len(data.classes)}; name as many or fewer")
    noisy, changed = flip_labels(train.labels, classes, rate, seed)
    settings = {"rate": rate, "seed": seed, "classes": classes, "images": n}
    with locked(record_path.parent), recording(record_path, settings) as record:
        images = train.images
        if images_path:
            blocks = (train.pixels(range(start, min(start + BLOCK, n))) for start in range(0, n, BLOCK))
            write_blocks(images_path, blocks)
            images = np.load(images_path, mmap_mode="r")
        write_array(labels_path, noisy)
        write_array(changed_path, changed)
        record |= {"changed": int(changed.sum()),
                   "images_sha256": Split(images, noisy.astype(np.int32)).sha256()}
    n = (train.labels < classes).sum()
    print(f"{labels_path}: {changed.sum()} of {n} labels changed, {100 * changed.sum() / n:.2f} %")
