"""Tiny ImageNet: wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/ regrouped by class or as released."""
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from datasets.images import Split, decode_jpeg
from utils.files import BadInput, read_bytes

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIDE = 64
CLASS_NAME = re.compile(r"n\d+")
IMAGE_NAME = re.compile(r"\w[\w.-]*\.jpe?g", re.IGNORECASE | re.ASCII)
LARGEST = 2 ** 20  # bytes of an image file; the release's largest has some 10 kB


def read_tiny(folder: Path) -> tuple[Split, Split, list[str]]:
    """Training split, validation split and class names of a folder tiny-imagenet-200, of any classes.

    Labels follow the sorted class folders of train/, ids the sorted class folders and in them the sorted file
    names, as torchvision's ImageFolder gives them. val/ may be regrouped by convert-tiny.sh, wholly, in part
    or not at all.

    Links are followed.

    Raises:
        BadInput: files are missing, damaged, no JPEG images of 64x64 pixels, or of an unknown class.
    """
    for part in ("train", "val"):
        if not os.path.isdir(folder / part):
            raise BadInput(f"{folder / part}: missing; download {URL}, unpack it and name its folder: "
                           "--data data/tiny-imagenet-200")
    train = class_folders(folder / "train")
    wnids = sorted(train)
    if not wnids:
        raise BadInput(f"{folder / 'train'}: holds no class folder; download {URL} and unpack it again")
    val = validation_files(folder / "val", wnids)
    splits = [read_split(files, wnids, part)
              for files, part in ((train, folder / "train"), (val, folder / "val"))]
    note_missing_classes(folder / "wnids.txt", wnids)
    return *splits, class_names(folder / "words.txt", wnids)


def entries(folder: Path) -> list[os.DirEntry]:
    """A folder's entries by name, without hidden ones.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        with os.scandir(folder) as scan:
            return sorted((entry for entry in scan if not entry.name.startswith(".")),
                          key=lambda entry: entry.name)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def images_in(folder: Path) -> list[str]:
    """The paths of the images of one class in `folder` and in the folder images/ in it, by file name.

    Raises:
        BadInput: a folder cannot be read; an image is not a file, or is in both places.
    """
    found = entries(folder)
    if any(entry.name == "images" and entry.is_dir() for entry in found):
        found += entries(folder / "images")
    found = [entry for entry in found if IMAGE_NAME.fullmatch(entry.name)]
    for entry in found:
        if not entry.is_file():
            raise BadInput(f"{entry.path}: not a file; put the image there")
    return by_name([entry.path for entry in found])


def by_name(paths: list[str]) -> list[str]:
    """The paths of a class by file name.

    Raises:
        BadInput: two files have one name.
    """
    paths = sorted(paths, key=os.path.basename)
    for first, second in zip(paths, paths[1:]):
        if os.path.basename(first) == os.path.basename(second):
            raise BadInput(f"{first}: also in {os.path.dirname(second)}; delete one of the two")
    return paths


def class_folders(part: Path, beside: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """The images of each class folder in train/ or val/.

    Args:
        beside: folders that may be there too.

    Raises:
        BadInput: as `images_in`; a folder has no class's name.
    """
    found = {}
    for entry in entries(part):
        if not entry.is_dir() or entry.name in beside:
            continue
        if not CLASS_NAME.fullmatch(entry.name):
            raise BadInput(f"{entry.path}: not a class, whose folder would be n and digits; move it "
                           "elsewhere")
        found[entry.name] = images_in(Path(entry.path))
    return found


def validation_files(val: Path, wnids: list[str]) -> dict[str, list[str]]:
    """The validation images of each class: in its folder and, through val_annotations.txt, in val/images/.

    Raises:
        BadInput: as `class_folders`; an image has no class or an unknown one, or is there twice or missing.
    """
    grouped = class_folders(val, frozenset({"images"}))
    loose = images_in(val / "images") if os.path.isdir(val / "images") else []
    annotations = val / "val_annotations.txt"
    table = read_annotations(annotations) if loose or os.path.isfile(annotations) else {}
    for path in loose:
        if os.path.basename(path) not in table:
            raise BadInput(f"{path}: not in {annotations}; add its class there or delete it")
        grouped.setdefault(table[os.path.basename(path)], []).append(path)
    present = {os.path.basename(path) for paths in grouped.values() for path in paths}
    for name, wnid in table.items():
        if name not in present and wnid in wnids:
            raise BadInput(f"{val / 'images' / name}: missing; put it there, or delete its line in "
                           f"{annotations}")
    for wnid, paths in grouped.items():
        if paths and wnid not in wnids:
            raise BadInput(f"{paths[0]}: its class {wnid} has no folder in {val.parent / 'train'}; add the "
                           "class's training images or delete it")
    return {wnid: by_name(grouped.get(wnid, [])) for wnid in wnids}


def read_annotations(path: Path) -> dict[str, str]:
    """The class of each validation image, by file name.

    Raises:
        BadInput: the file is missing, or a line is not an image name, a tab and a class.
    """
    if not os.path.isfile(path):
        raise BadInput(f"{path}: missing, and it gives the classes of {path.parent / 'images'}; put it there")
    table = {}
    for number, line in enumerate(read_bytes(path).decode("latin1").splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if (not IMAGE_NAME.fullmatch(name) or not CLASS_NAME.fullmatch(wnid)
                or table.setdefault(name, wnid) != wnid):
            raise BadInput(f"{path}: line {number} is not an image name, a tab and its one class; correct it")
    return table


def read_split(files: dict[str, list[str]], wnids: list[str], part: Path) -> Split:
    """The contents of the files of each class, in order.

    Raises:
        BadInput: a class has no image; a file is unreadable, damaged or no JPEG image of 64x64 pixels.
    """
    for wnid, paths in files.items():
        if not paths:
            raise BadInput(f"{part / wnid}: holds no .JPEG image; put the class's images there")
    names = [path for wnid in wnids for path in files[wnid]]
    labels = np.repeat(np.arange(len(wnids), dtype=np.int32), [len(files[wnid]) for wnid in wnids])
    with ThreadPoolExecutor() as pool:
        return Split(list(pool.map(read_jpeg, names)), labels, names)


def read_jpeg(path: str) -> bytes:
    """The content of an image file of the data set, which is decoded once to see that it is whole.

    Raises:
        BadInput: it is unreadable, damaged or no JPEG image of 64x64 pixels.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if len(content) > LARGEST:
        raise BadInput(f"{path}: larger than {LARGEST >> 20} MB, so not an image of {SIDE}x{SIDE} pixels; "
                       "put a whole file in its place")
    height, width, _ = decode_jpeg(content, path).shape
    if (height, width) != (SIDE, SIDE):
        raise BadInput(f"{path}: {width}x{height} pixels, not {SIDE}x{SIDE}; resize it")
    return content


def note_missing_classes(path: Path, wnids: list[str]) -> None:
    """Say that wnids.txt, where there is one, names classes that the training images do not have."""
    if os.path.isfile(path):
        named = read_bytes(path).decode("latin1").split()
        if set(named) - set(wnids):
            print(f"{path} names {len(named)} classes, train has {len(wnids)} of them; using those in train")


def class_names(path: Path, wnids: list[str]) -> list[str]:
    """The first word for each class in words.txt, the wnid itself where there is none."""
    words = {}
    if os.path.isfile(path):
        for line in read_bytes(path).decode("utf8", "replace").splitlines():
            wnid, _, names = line.partition("\t")
            words[wnid] = names.split(",")[0].strip()
    return [words.get(wnid) or wnid for wnid in wnids]
