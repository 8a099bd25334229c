"""Your own images: train/<class>/... and val/<class>/..., as torchvision's ImageFolder has them, on disk."""
import functools
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from utils.errors import BadInput
from utils.options import warn
from utils.progress import ProgressBar

# Of what Pillow opens: no images, or left to other programs (EPS would run Ghostscript on a stranger's file).
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
LAYOUT = "put images into train/<class>/ and val/<class>/ and name the folder of these two in --data"


@dataclass(frozen=True)
class FileSplit:
    """Images that stay on disk, otherwise as datasets.images.Split."""
    root: Path  # folder of the class folders
    paths: list[bytes]  # n paths below it, each from its class folder on
    labels: np.ndarray  # int32 (n,), ascending
    digest: str  # SHA-256 of the paths and file sizes of all classes, in hexadecimal
    subset: np.ndarray | None = None  # as of datasets.images.Split
    mislabelled = corrupted = None  # it is not known

    @property
    def ids(self) -> np.ndarray:
        """The number of each image in the data set, int64 (n,)."""
        return np.arange(len(self.labels)) if self.subset is None else self.subset

    @property
    def file_names(self) -> list[bytes]:
        """The path of each image from the data set's folder on, such as train/bee/1.jpg."""
        return [b"%b/%b" % (os.fsencode(self.root.name), path) for path in self.paths]

    def pixels(self, positions: Sequence[int] | np.ndarray) -> Iterator[Image.Image]:
        """The images of these positions, RGB, of any sizes, each decoded when its turn comes."""
        return (read_image(os.path.join(self.root, os.fsdecode(self.paths[i]))) for i in positions)

    def without(self, rows: Sequence[int] | np.ndarray) -> "FileSplit":
        """The images but those at these positions; they keep their labels and numbers in the data set."""
        keep = np.delete(np.arange(len(self.labels)), rows)
        return replace(self, paths=[self.paths[i] for i in keep], labels=self.labels[keep],
                       subset=self.ids[keep])

    def sha256(self) -> str:
        """Of the paths and file sizes, in hexadecimal."""
        return self.digest


def read_folder(folder: Path) -> tuple[FileSplit, FileSplit, list[str]]:
    """Training split, validation split and class names of a folder with train/<class>/ and val/<class>/.

    Labels follow the sorted class folders of train/; ids the class, then the order of torchvision's
    ImageFolder. Links are followed. Hidden files and folders are skipped, and so are files whose suffix is
    none of Pillow's. No file is opened.

    Raises:
        BadInput: a class of val/ is not in train/, or there is one class only.
    """
    # Of odd metadata, large images and palettes: they would stand between the lines of a run.
    warnings.filterwarnings("ignore", module="PIL")
    train, val = folder / "train", folder / "val"
    classes, val_classes = class_names(train), class_names(val)
    if unknown := sorted(set(val_classes) - set(classes)):
        raise BadInput(f"{val / os.fsdecode(unknown[0])}: a class that {train} lacks; put its training "
                       "images there or delete it")
    if len(classes) < 2:
        raise BadInput(f"{train}: holds one class folder, and a network tells classes apart; {LAYOUT}")
    # For the screen, which refuses what is not UTF-8.
    shown = [name.decode("utf8", "replace") for name in classes]
    return read_split(train, classes, classes), read_split(val, val_classes, classes), shown


def class_names(part: Path) -> list[bytes]:
    """The names of the class folders of train/ or val/, sorted; files beside them are skipped.

    Raises:
        BadInput: there are none, a link leads to nothing, or the folder cannot be read.
    """
    try:
        with os.scandir(os.fsencode(part)) as scan:
            entries = [entry for entry in scan if entry.name[:1] != b"."]
    except OSError as error:
        raise BadInput(f"{part}: cannot be read ({error.strerror}); {LAYOUT}") from error
    for entry in entries:
        if not entry.is_dir() and not entry.is_file():
            raise BadInput(f"{part / os.fsdecode(entry.name)}: not a folder, or a link to nothing; put the "
                           "images of this class there or delete it")
    if images := sum(entry.is_file() and is_image(entry.name) for entry in entries):
        warn(f"{part}: images that lie in no class folder are skipped: {images}; {LAYOUT}")
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        raise BadInput(f"{part}: holds no class folder; {LAYOUT}")
    return names


def read_split(part: Path, present: list[bytes], classes: list[bytes]) -> FileSplit:
    """The images of the class folders `present` of train/ or val/, labels by their position in `classes`.

    Raises:
        BadInput: a class has no image.
    """
    top, digest = os.path.join(os.fsencode(part), b""), hashlib.sha256()
    paths, counts, skipped = [], [], 0
    with ProgressBar(f"listing {part}", len(present), "class") as bar:
        for name in present:
            records = []  # path, a zero byte, which no path has, and file size
            for entry in files_below(top + name):
                if is_image(entry.name):
                    records.append(b"%b\0%d" % (entry.path[len(top):], entry.stat().st_size))
                else:
                    skipped += 1
            if not records:
                raise BadInput(f"{part / os.fsdecode(name)}: holds no image by its suffix; put the class's "
                               "images there or delete it")
            records.sort(key=lambda record: record.rpartition(b"/")[::2])  # by folder, then by name
            digest.update(b"\n".join(records) + b"\n")
            paths += [record.partition(b"\0")[0] for record in records]
            counts.append(len(records))
            bar.update()
    if skipped:
        print(f"{part}: skipped {skipped} files without an image extension")
    number = {name: label for label, name in enumerate(classes)}
    labels = np.repeat(np.array([number[name] for name in present], np.int32), counts)
    return FileSplit(part, paths, labels, digest.hexdigest())


def files_below(folder: bytes, above: frozenset[bytes] = frozenset()) -> Iterator[os.DirEntry[bytes]]:
    """The files in a folder and in the folders below it, links followed, hidden ones skipped.

    Args:
        above: real paths of the folders above it; by default they are found.

    Raises:
        BadInput: a link leads to a folder above it or to nothing.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise BadInput(f"{os.fsdecode(folder)}: a link to a folder above it; delete it")
    above = (above or frozenset(map(os.fsencode, Path(os.fsdecode(real)).parents))) | {real}
    with os.scandir(folder) as scan:
        for entry in scan:
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir():
                yield from files_below(entry.path, above)
            elif entry.is_file():
                yield entry
            else:
                raise BadInput(f"{os.fsdecode(entry.path)}: not a file, or a link to none; put the image "
                               "there or delete it")


@functools.cache
def formats() -> list[str]:
    """The formats that Pillow decodes, those it knows best first."""
    Image.init()
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # else a long text is taken for damage
    return [name for name in Image.ID if name not in NOT_DECODED]


@functools.cache
def suffixes() -> frozenset[bytes]:
    """The suffixes of these formats' files, in small letters."""
    return frozenset(suffix.encode() for suffix, name in Image.registered_extensions().items()
                     if name in (*formats(), "MPO"))  # JPEG files of several images, which it opens as JPEG


def is_image(name: bytes) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in suffixes()


def read_image(path: str) -> Image.Image:
    """An image file's pixels as RGB, as torchvision's loader has them, but of 16-bit ones the upper 8 bits.

    Transparency is dropped, an animation's first image is taken, and EXIF orientation is ignored.

    Raises:
        BadInput: it is damaged, no image, or its pixels have no known range.
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
    except (BadInput, FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:
        raise BadInput(f"{path}: needs more memory than there is; make it smaller") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path}: more pixels than Pillow's limit; make it smaller") from error
    except Exception as error:  # a damaged file can raise anything
        raise BadInput(f"{path}: damaged, or not an image; put a whole file in its place or delete "
                       "it") from error
