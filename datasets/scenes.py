"""The paper's complex scenes: training images or labels that robust/ or the PyTorch release wrote.

Test images are clean.
"""
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.cifar import RELEASES, read_cifar
from datasets.images import Split, as_labels
from datasets.tiny import read_tiny
from utils.arrays import read_array
from utils.errors import BadInput
from utils.files import read_json
from utils.pickles import unpickle

NOTE = "corrupt.json"  # the record of corrupted images
UNFINISHED = {"state": "unfinished"}  # a record's content while its files are written
FINISHED, CLEAN = "finished", "clean"  # its final state; the kind of an image that is not corrupted
COPY_AGAIN = "delete the folder, copy tiny-imagenet-200 again with cp -r and run robust/corrupt-tiny.py"
Splits = tuple[Split, Split, list[str]]


def read_cifar_c(root: Path, name: str) -> Splits:
    """CIFAR-100 or CIFAR-10 with corrupted training images, for example cifar-100-corrupt/img.bin."""
    clean, folder = read_cifar(root, name), root / RELEASES[name].corrupt
    train, test, classes = with_files(clean, f"robust/corrupt-cifar.py --dataset {name}", folder / NOTE,
                                      folder / "img.bin", folder / "targets.bin")
    changed = (np.asarray(train.images) != np.asarray(clean[0].images)).any((1, 2, 3))
    return replace(train, corrupted=changed), test, classes


def read_cifar_arrays(root: Path, name: str, part: str) -> Splits:
    """CIFAR-100 or CIFAR-10 with attacked training images (`part` "attack") or wrong labels ("noisy").

    They are in attack/cifar_train.npy and noisy/cifar.npy; for CIFAR-10 the names begin with cifar10.
    """
    record = root / part / f"{RELEASES[name].prefix}.json"
    images, labels = record.with_name(f"{record.stem}_train.npy"), record.with_suffix(".npy")
    return with_files(read_cifar(root, name), f"robust/{part}-cifar.py --dataset {name}", record,
                      images if part == "attack" else None, labels if part == "noisy" else None)


def read_tinyc(folder: Path) -> Splits:
    """A copy of Tiny ImageNet whose training images robust/corrupt-tiny.py has corrupted."""
    path = folder / NOTE
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing, so this is no corrupted copy; run robust/corrupt-tiny.py on a copy "
                       "of tiny-imagenet-200 and pass the copy as --data")
    note = read_json(path, COPY_AGAIN)
    if note.get("state") != FINISHED:
        raise BadInput(f"{path}: does not say that the corruption is {FINISHED}; {COPY_AGAIN}")
    train, test, classes = read_tiny(folder)
    kinds = note.get("kinds", {})  # by path relative to `folder`
    changed = [kinds.get(os.path.relpath(name, folder), CLEAN) != CLEAN for name in train.names]
    return replace(train, corrupted=np.array(changed)), test, classes


def read_tiny_arrays(folder: Path, part: str) -> Splits:
    """Tiny ImageNet with the training images and labels of <part>/tiny_img.npy and tiny_target.npy.

    <part> is in `folder` or beside it or, if it is a link, beside its target; BadInput if there are several.
    """
    default = Path(os.path.realpath(folder)).parent / part
    sources = {os.path.realpath(path): path for path in (folder / part, default, folder.parent / part)
               if os.path.isfile(path / "tiny_img.npy")}
    if len(sources) > 1:
        raise BadInput(f"{' and '.join(map(str, sources.values()))}: both hold tiny_img.npy; move away the "
                       "one that is not meant")
    source = next(iter(sources.values()), default)
    return with_files(read_tiny(folder), f"robust/{part}-tiny.py", source / "tiny.json",
                      source / "tiny_img.npy", source / "tiny_target.npy")


def with_files(clean: Splits, script: str, record_path: Path, images: Path | None = None,
               labels: Path | None = None) -> Splits:
    """A data set with training images, labels or both from these files; BadInput if they do not fit it.

    Args:
        script: it writes the files.
        record_path: its record; files from elsewhere have none.
    """
    train, test, classes = clean
    n, shape, remedy = len(train.labels), (len(train.labels), *train.image_shape), f"make it with {script}"
    record = read_json(record_path, f"run {script} again")
    if record == UNFINISHED:
        raise BadInput(f"{record_path}: {script} was stopped before its end; run it again, which replaces "
                       "its files, or delete this record if they are your own")
    if images:
        array = read_file(images, remedy)
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape != shape:
            kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise BadInput(f"{images}: {kind}, not uint8 {shape} as the data set's training images; {remedy}")
        train = replace(train, images=array)
    if labels:
        values = as_labels(read_file(labels, remedy), n, len(classes))
        if values is None:
            raise BadInput(f"{labels}: not {n} whole numbers from 0 to {len(classes) - 1}, one label per "
                           f"image; {remedy}")
        train = replace(train, labels=values, mislabelled=values != train.labels)
    return replace(train, record=record), test, classes


def read_file(path: Path, remedy: str) -> object:
    """The memory-mapped array of a .npy file, or a pickle's content; BadInput if it is missing."""
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing; {remedy}")
    return read_array(path, remedy) if path.suffix == ".npy" else unpickle(path.read_bytes(), path)
