"""Tiny ImageNet: wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/ regrouped by class or as released."""
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from datasets.folder import class_names, files_below
from datasets.images import Split, decode_jpeg
from utils.errors import BadInput

SIDE = 64


def read_tiny(folder: Path) -> tuple[Split, Split, list[str]]:
    """Training split, validation split and class names of a folder tiny-imagenet-200, with any classes.

    Labels follow the sorted class folders of train/. Images are ordered as in torchvision's ImageFolder.
    """
    train, val = folder / "train", folder / "val"
    for part in (train, val):
        if not os.path.isdir(part):
            raise BadInput(f"{part}: missing; python -m datasets.download tiny --data data creates "
                           "data/tiny-imagenet-200; pass that as --data")
    wnids = list(map(os.fsdecode, class_names(train)))
    images = [(label, path) for label, wnid in enumerate(wnids) for path in jpeg_files(train / wnid)]
    splits = read_split(images, wnids, train), read_split(validation_images(val, wnids), wnids, val)
    listed = "\n".join(read_lines(folder / "wnids.txt")).split()
    if set(listed) - set(wnids):
        print(f"{folder}/wnids.txt lists {len(listed)} classes, train has {len(wnids)} of them; using those")
    words = dict(line.split("\t", 1) for line in read_lines(folder / "words.txt") if "\t" in line)
    return *splits, [words.get(wnid, "").split(",")[0].strip() or wnid for wnid in wnids]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; [] if it is missing."""
    return path.read_bytes().decode("utf8", "replace").splitlines() if os.path.isfile(path) else []


def jpeg_files(folder: Path) -> list[str]:
    """The paths of the JPEG files in a folder and its subfolders, sorted by folder, then by name."""
    return sorted((os.fsdecode(entry.path) for entry in files_below(os.fsencode(folder))
                   if entry.name.lower().endswith((b".jpeg", b".jpg"))), key=os.path.split)


def validation_images(val: Path, wnids: list[str]) -> list[tuple[int, str]]:
    """Label and path of the validation images, sorted by class and file name.

    An image's class is its folder's name, or in val/images/ the one in val_annotations.txt. Raises BadInput
    if an image has no class or an unknown one, is in two folders, or is missing.
    """
    annotations, labels = val / "val_annotations.txt", {wnid: label for label, wnid in enumerate(wnids)}
    annotated = read_annotations(annotations)
    paths: dict[tuple[int, str], str] = {}
    for folder in map(os.fsdecode, class_names(val)):
        for path in jpeg_files(val / folder):
            *folders, name = Path(path).relative_to(val).parts
            wnid = next((part for part in folders if part != "images"), annotated.get(name))
            if wnid not in labels:
                raise BadInput(f"{path}: its class ({wnid or f'not in {annotations}'}) has no folder in "
                               f"{val.parent / 'train'}; correct that or delete the image")
            if other := paths.get((labels[wnid], name)):
                raise BadInput(f"{path}: also in {os.path.dirname(other)}; delete one of the two")
            paths[labels[wnid], name] = path
    for name, wnid in annotated.items():
        if wnid in labels and (labels[wnid], name) not in paths:
            raise BadInput(f"{annotations}: {name!r} of class {wnid} is missing; put it into "
                           f"{val / 'images'} or delete its line")
    return [(label, path) for (label, _), path in sorted(paths.items())]


def read_annotations(path: Path) -> dict[str, str]:
    """The class of each validation image, by file name; {} if the file is missing."""
    classes: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        if not rest or classes.setdefault(name, rest[0]) != rest[0]:
            raise BadInput(f"{path}: line {number} is not an image name, a tab and its one class; correct it")
    return classes


def read_split(images: list[tuple[int, str]], wnids: list[str], part: Path) -> Split:
    """The contents of the images' files; BadInput if a class has no image."""
    labels, names = np.array([label for label, _ in images], np.int32), [path for _, path in images]
    if missing := set(range(len(wnids))) - set(labels.tolist()):
        raise BadInput(f"{part / wnids[min(missing)]}: holds no .JPEG image; put the images of this class "
                       "there or delete it")
    with ThreadPoolExecutor() as pool:
        return Split(list(pool.map(read_jpeg, names)), labels, names, part.parent)


def read_jpeg(path: str) -> bytes:
    """An image file's content; BadInput if it is damaged or does not have 64x64 pixels."""
    content = Path(path).read_bytes()
    height, width, _ = decode_jpeg(content, path).shape
    if (height, width) != (SIDE, SIDE):
        raise BadInput(f"{path}: {width}x{height} pixels, not {SIDE}x{SIDE}; resize it")
    return content
