"""CIFAR-100 and CIFAR-10 in their Python versions: cifar-100-python and cifar-10-batches-py."""
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.images import Split, as_labels
from utils.errors import BadInput
from utils.pickles import unpickle

SIDE = 32


@dataclass(frozen=True)
class Release:
    """The official files of one of the two, and the names of the files that robust/ writes for it."""
    folder: str
    md5: dict[str, str]  # by file: training images, test images, class names
    labels: str  # key of the labels
    classes: str  # key of the class names
    corrupt: str  # folder of corrupted images
    prefix: str  # of the files of attacked images and noisy labels


RELEASES = {
    "CIFAR100": Release("cifar-100-python", {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48"},
        "fine_labels", "fine_label_names", "cifar-100-corrupt", "cifar"),
    "CIFAR10": Release("cifar-10-batches-py", {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        "labels", "label_names", "cifar-10-corrupt", "cifar10"),
}


def read_cifar(root: Path, name: str = "CIFAR100") -> tuple[Split, Split, list[str]]:
    """Training split, test split and class names from a release's folder in `root`, or from `root` itself.

    A folder with other images in the same layout works too; a line says that it is not the official release.
    Raises BadInput if a file is missing or damaged.
    """
    release = RELEASES[name]
    folder = root if all(os.path.isfile(root / file) for file in release.md5) else root / release.folder
    contents = {}
    for file in release.md5:
        if not os.path.isfile(folder / file):
            raise BadInput(f"{folder / file}: missing; python -m datasets.download {name} --data {root} "
                           "downloads it")
        contents[file] = (folder / file).read_bytes()
    if any(hashlib.md5(contents[file], usedforsecurity=False).hexdigest() != md5
           for file, md5 in release.md5.items()):
        print(f"{folder}: not the official release of {name} (MD5 differs); using it anyway")
    *images, meta = release.md5
    classes = read_table(contents[meta], folder / meta).get(release.classes)
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise BadInput(f"{folder / meta}: no list of class names under {release.classes!r}; replace it with "
                       "an intact copy")
    *parts, test = (read_split(contents[file], folder / file, release.labels, len(classes))
                    for file in images)
    train = Split(np.concatenate([part.images for part in parts]),
                  np.concatenate([part.labels for part in parts]))
    return train, test, classes


def read_table(content: bytes, path: Path) -> dict[Any, Any]:
    """The dictionary in a file; {} if it holds something else."""
    table = unpickle(content, path)
    return {key.decode() if isinstance(key, bytes) else key: value
            for key, value in table.items()} if isinstance(table, dict) else {}


def read_split(content: bytes, path: Path, key: str, num_classes: int) -> Split:
    """Images, uint8 (n, 32, 32, 3), and the labels under `key`, of one file; BadInput if there are none."""
    table = read_table(content, path)
    data = table.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or not len(data) or (
            data.shape[1] != 3 * SIDE * SIDE):
        raise BadInput(f"{path}: 'data' is not a uint8 array of {3 * SIDE * SIDE} columns; replace it with "
                       "an intact copy")
    labels = as_labels(table.get(key), len(data), num_classes)
    if labels is None:
        raise BadInput(f"{path}: {key!r} is not a list of {len(data)} labels from 0 to {num_classes - 1}; "
                       "replace it with an intact copy")
    images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)
