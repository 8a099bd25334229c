"""One's own images: train/<class>/... and val/<class>/..., as torchvision's ImageFolder has them, on disk."""
import functools
import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from utils.files import BadInput, cannot_read
from utils.progress import progress_bar

# Of what Pillow opens: no images, or left to other programs (EPS would run Ghostscript on a stranger's file).
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
LAYOUT = "put images into train/<class>/ and val/<class>/ and name the folder of these two in --data"


@dataclass(frozen=True)
class FileSplit:
    """Images that stay on disk, otherwise as datasets.images.Split.

    Memory of an image: its path and 12 bytes.

    Args:
        root: folder of the class folders.
        paths: of all images in it, from its class folder on, one after the other.
        ends: int64 (n + 1,): the path of image i is paths[ends[i]:ends[i + 1]].
        labels: int32 (n,), ascending.
        digest: SHA-256 of paths and file sizes, of all classes, in hexadecimal.
    """
    root: Path
    paths: bytes
    ends: np.ndarray
    labels: np.ndarray
    digest: str

    @property
    def ids(self) -> np.ndarray:
        """The number of each image in the data set, int64 (n,)."""
        return np.arange(len(self.labels))

    def path(self, i: int) -> bytes:
        """Of image i, from its class folder on."""
        return self.paths[self.ends[i]:self.ends[i + 1]]

    def pixels(self, ids: Sequence[int] | np.ndarray) -> Iterator[Image.Image]:
        """The images of these ids, RGB, of any sizes, each decoded when its turn comes.

        Raises:
            BadInput: a file is missing or cannot be decoded.
        """
        return (read_image(os.path.join(self.root, os.fsdecode(self.path(i)))) for i in ids)

    def of_classes(self, classes: int) -> "FileSplit":
        """The images of the first classes; they keep their labels and their numbers in the data set."""
        n = int(np.searchsorted(self.labels, classes))
        return replace(self, ends=self.ends[:n + 1], labels=self.labels[:n])

    def sha256(self) -> str:
        """Of the paths and file sizes, in hexadecimal."""
        return self.digest


def read_folder(folder: Path) -> tuple[FileSplit, FileSplit, list[str]]:
    """Training split, validation split and class names of a folder with train/<class>/ and val/<class>/.

    Labels follow the sorted class folders of train/, ids the class, then the sorted path. Links are followed,
    hidden files and folders passed over, and so are files whose suffix is none of Pillow's. No file is
    opened.

    Raises:
        BadInput: a folder is missing or cannot be read; a class has no image or is not in train/; a path has
            a line break; a link leads to a folder above it, or an image's to no file.
    """
    # Of odd metadata, large images and palettes: they would stand between the lines of a run.
    warnings.filterwarnings("ignore", module="PIL")
    train, val = folder / "train", folder / "val"
    for part in (train, val):
        if not os.path.isdir(part):
            raise BadInput(f"{part}: missing; {LAYOUT}")
    names, val_names = class_names(train), class_names(val)
    if unknown := sorted(set(val_names) - set(names)):
        raise BadInput(f"{val / os.fsdecode(unknown[0])}: a class that {train} lacks; put its training "
                       "images there or delete it")
    # For the screen, which refuses what is not UTF-8.
    shown = [name.decode("utf8", "replace") for name in names]
    return read_split(train, names, names), read_split(val, val_names, names), shown


def class_names(part: Path) -> list[bytes]:
    """The names of the class folders of train/ or val/, sorted.

    Raises:
        BadInput: there are none, one is a link to nothing, or the folder cannot be read.
    """
    try:
        with os.scandir(os.fsencode(part)) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(b".")]
        for entry in entries:
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise BadInput(f"{os.fsdecode(entry.path)}: a link to nothing; put the class there or delete "
                               "it")
        names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise cannot_read(part, error) from error
    if not names:
        raise BadInput(f"{part}: holds no class folder; {LAYOUT}")
    return names


def read_split(part: Path, present: list[bytes], classes: list[bytes]) -> FileSplit:
    """The images of the class folders `present` of train/ or val/, labels by their place in `classes`.

    Raises:
        BadInput: as `read_folder`.
    """
    digest, passed_over, label_of = hashlib.sha256(), Counter(), {name: i for i, name in enumerate(classes)}
    paths, lengths, counts = [], [], []
    with progress_bar(f"listing {part}", len(present), "class") as bar:
        for name in present:
            # A class at a time: only its own paths are Python objects.
            found = sorted(images_below(part, name, passed_over))
            if not found:
                raise BadInput(f"{part / os.fsdecode(name)}: holds no image by its suffix; put the class's "
                               "images there or delete it")
            digest.update(b"\n".join(found) + b"\n")
            found = [record.partition(b"\0")[0] for record in found]
            paths.append(b"".join(found))
            lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
            counts.append(len(found))
            bar.update()
    if passed_over:
        print(f"{part}: passed over {passed_over.total()} files that are no images by their suffix: "
              f"{', '.join(sorted(passed_over))}")
    ends = np.concatenate([[0], *lengths]).cumsum()
    labels = np.repeat(np.array([label_of[name] for name in present], np.int32), counts)
    return FileSplit(part, b"".join(paths), ends, labels, digest.hexdigest())


def images_below(part: Path, name: bytes, passed_over: Counter[str]) -> Iterator[bytes]:
    """Of each image in a class folder or below it: its path from that folder on, a zero byte, its size.

    Args:
        passed_over: counts other files by their suffix.

    Raises:
        BadInput: as `read_folder`.
    """
    top = os.path.join(os.fsencode(part), b"")
    known = suffixes()
    parents = (os.stat(path) for path in (part, *part.resolve().parents))
    # Folders, and which ones are above each.
    pending = [(name, frozenset((status.st_dev, status.st_ino) for status in parents))]
    while pending:
        folder, above = pending.pop()
        try:
            status = os.stat(top + folder)
            place = status.st_dev, status.st_ino
            if place in above:
                raise BadInput(f"{os.fsdecode(top + folder)}: a link to a folder above it; delete it")
            with os.scandir(top + folder) as scan:
                for entry in scan:
                    path = folder + b"/" + entry.name
                    if entry.name.startswith(b"."):
                        continue
                    if b"\n" in path:
                        raise BadInput(f"{ascii(os.fsdecode(top + path))}: a line break in a name; rename it")
                    if entry.is_dir():
                        pending.append((path, above | {place}))
                    elif not entry.is_file():
                        raise BadInput(f"{os.fsdecode(top + path)}: not a file, or a link to none; put the "
                                       "image there or delete it")
                    elif (suffix := os.path.splitext(entry.name)[1].lower()) not in known:
                        passed_over[ascii(os.fsdecode(suffix)) if suffix else "none"] += 1
                    else:
                        yield b"%b\0%d" % (path, entry.stat().st_size)
        except OSError as error:
            raise cannot_read(Path(os.fsdecode(error.filename or top + folder)), error) from error


@functools.cache
def formats() -> list[str]:
    """The formats that Pillow decodes, those it knows best first."""
    Image.init()
    return [name for name in Image.ID if name not in NOT_DECODED]


@functools.cache
def suffixes() -> frozenset[bytes]:
    """Of these formats' files, in small letters."""
    known = formats()
    return frozenset(suffix.encode() for suffix, name in Image.registered_extensions().items()
                     if name in known)


def read_image(path: str) -> Image.Image:
    """An image file's pixels as RGB, as torchvision's loader has them, but of 16-bit ones the upper 8 bits.

    So transparency is dropped, an animation's first image taken, and a camera's note of how it was held not
    obeyed.

    Raises:
        BadInput: it is missing, damaged, no image, or its pixels have no known range.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            # Some of 16 bits come as 32: those of PGM files, and before Pillow 10.3 those of PNG files.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise BadInput(f"{path}: pixels of 32 bits, whose range is not known; save it with 8 bits")
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (BadInput, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path}: more than {2 * Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from error
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, OSError) and error.errno:
            raise cannot_read(Path(path), error) from error
        raise BadInput(f"{path}: damaged, or not an image; put a whole file in its place or delete "
                       "it") from error
