"""CIFAR-100, python version: cifar-100-python/{train,test,meta}."""
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from datasets.images import Split, as_labels
from utils.errors import BadInput
from utils.pickles import unpickle

FOLDER = "cifar-100-python"
OFFICIAL_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
SIDE = 32


def read_cifar100(root: Path) -> tuple[Split, Split, list[str]]:
    """Training split, test split and the class names of the folder cifar-100-python in `root`, or of `root`.

    A folder in the same layout with other images works too; a line says that it is not the official release.

    Raises:
        BadInput: a file is missing, or meta holds no names.
    """
    folder = root if all(os.path.isfile(root / name) for name in OFFICIAL_MD5) else root / FOLDER
    contents = {}
    for name in OFFICIAL_MD5:
        if not os.path.isfile(folder / name):
            raise BadInput(f"{folder / name}: missing; python -m datasets.download CIFAR100 --data {root} "
                           "puts it there")
        contents[name] = (folder / name).read_bytes()
    if any(hashlib.md5(contents[name], usedforsecurity=False).hexdigest() != md5
           for name, md5 in OFFICIAL_MD5.items()):
        print(f"{folder}: not the official release of CIFAR-100 (md5 differs); using it as it is")
    classes = read_table(contents["meta"], folder / "meta").get("fine_label_names")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise BadInput(f"{folder / 'meta'}: no list of class names under 'fine_label_names'; put a "
                       "whole file in its place")
    train, test = (read_split(contents[name], folder / name, len(classes)) for name in ("train", "test"))
    return train, test, classes


def read_table(content: bytes, path: Path) -> dict[Any, Any]:
    """The dictionary in a file; {} where it holds something else."""
    table = unpickle(content, path)
    return {key.decode() if isinstance(key, bytes) else key: value
            for key, value in table.items()} if isinstance(table, dict) else {}


def read_split(content: bytes, path: Path, num_classes: int) -> Split:
    """Images, uint8 (n, 32, 32, 3), and labels of one file; raises BadInput where it does not hold them."""
    table = read_table(content, path)
    data = table.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or not len(data) or (
            data.shape[1] != 3 * SIDE * SIDE):
        raise BadInput(f"{path}: 'data' is not a uint8 array of {3 * SIDE * SIDE} columns; put a whole "
                       "file in its place")
    labels = as_labels(table.get("fine_labels"), len(data), num_classes)
    if labels is None:
        raise BadInput(f"{path}: 'fine_labels' is not a list of {len(data)} labels from 0 to "
                       f"{num_classes - 1}; put a whole file in its place")
    images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)
