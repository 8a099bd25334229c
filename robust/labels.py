"""Label noise of the paper's complex scenes."""
from pathlib import Path

import numpy as np

from datasets.images import Split
from robust.options import begin_files, write_record
from utils.arrays import create_array
from utils.device import random_stream
from utils.errors import BadInput
from utils.files import locked, replacing, write_array

BLOCK = 1000  # images decoded at once


def flip_labels(labels: np.ndarray, classes: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric label noise: with probability `rate`, each label becomes another one, drawn uniformly.

    Args:
        labels: (n,), starting at 0.
        classes: only labels below this number change, to one another.
        rate: from 0 to 1; the paper uses 0.2 and 0.35.

    Returns:
        The labels, int64 (n,), and which were changed, bool (n,).
    """
    if classes < 2:
        raise BadInput(f"{classes} class: there is no other label; use a data set with 2 classes or more")
    generator = random_stream(seed, "label noise")
    changed = (generator.random(len(labels)) < rate) & (labels < classes)
    shift = generator.integers(1, classes, len(labels))
    return np.where(changed, (labels + shift) % classes, labels).astype(np.int64), changed


def mislabel_to_files(train: Split, classes: int, rate: float, seed: int, labels_path: Path,
                      images_path: Path | None = None, first: int | None = None) -> None:
    """Write training labels with noise, which of them were changed, and the settings; print how many.

    Args:
        classes: of the data set.
        labels_path: <name>.npy or <name>_target.npy; the others are <name>_changed.npy and <name>.json.
        images_path: the images are written here, block by block, uint8 (n, h, w, 3); None: they are not.
        first: change only labels of this many classes, the first ones; None: of all.
    """
    first, n = first or classes, len(train.labels)
    name = labels_path.stem.removesuffix("_target")
    changed_path, record_path = map(labels_path.with_name, (f"{name}_changed.npy", f"{name}.json"))
    paths = [path for path in (labels_path, changed_path, images_path) if path]
    if first > classes:
        raise BadInput(f"--classes {first}: the data set has {classes} classes; pass {classes} or fewer")
    noisy, changed = flip_labels(train.labels, first, rate, seed)
    with locked(record_path.parent):
        begin_files(record_path, *paths)
        images = train.images
        if images_path:
            with replacing(images_path) as temporary:
                images = create_array(temporary, (n, *train.image_shape), np.uint8)
                for start in range(0, n, BLOCK):
                    images[start:start + BLOCK] = train.pixels(range(start, min(start + BLOCK, n)))
                images.flush()
        write_array(labels_path, noisy)
        write_array(changed_path, changed)
        write_record(record_path, {"rate": rate, "seed": seed, "classes": first, "images": n,
                                   "changed": int(changed.sum()),
                                   "images_sha256": Split(images, noisy.astype(np.int32)).sha256()}, *paths)
    n = (train.labels < first).sum()
    print(f"{labels_path}: {changed.sum()} of {n} labels changed, {100 * changed.sum() / n:.2f} %")
