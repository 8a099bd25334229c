"""Your own images, on disk: train/<class>/... and val/<class>/..., as in torchvision's ImageFolder."""
import functools
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from datasets.images import Split
from utils.errors import BadInput
from utils.options import warn
from utils.progress import ProgressBar

# Formats that Pillow opens but that are no images or need other programs (Ghostscript for EPS).
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
LAYOUT = "put images into train/<class>/ and val/<class>/ and pass the folder of these two as --data"


@dataclass(frozen=True)
class FileSplit(Split):
    """Images that stay on disk: `images` holds not their contents but their paths relative to `folder`."""
    digest: str = ""  # SHA-256 of the paths and file sizes of all classes, in hexadecimal

    @property
    def file_names(self) -> list[bytes]:
        """The path of each image relative to the data set's folder, such as train/bee/1.jpg."""
        return list(self.images)

    def pixels(self, positions: Sequence[int] | np.ndarray) -> Iterator[Image.Image]:  # type: ignore[override]
        """The images at these positions, RGB, of any sizes, each decoded when it is iterated over."""
        return (read_image(os.path.join(self.folder, os.fsdecode(self.images[i]))) for i in positions)

    def sha256(self) -> str:
        """Of the paths and file sizes, in hexadecimal."""
        return self.digest


def read_folder(folder: Path) -> tuple[FileSplit, FileSplit, list[str]]:
    """Training split, validation split and class names of a folder with train/<class>/ and val/<class>/.

    Labels follow the sorted class folders of train/. Images are ordered as in torchvision's ImageFolder.
    Links are followed; hidden files and files without an image extension are skipped. No file is opened.
    """
    # Pillow's warnings, about odd metadata, large images and palettes, would disturb a run's output.
    warnings.filterwarnings("ignore", module="PIL")
    train, val = folder / "train", folder / "val"
    classes, val_classes = class_names(train), class_names(val)
    if unknown := sorted(set(val_classes) - set(classes)):
        raise BadInput(f"{val / os.fsdecode(unknown[0])}: a class that {train} lacks; put its training "
                       "images there or delete it")
    if len(classes) < 2:
        raise BadInput(f"{train}: holds one class folder, but at least two classes are needed; {LAYOUT}")
    printable = [name.decode("utf8", "replace") for name in classes]
    return read_split(train, classes, classes), read_split(val, val_classes, classes), printable


def class_names(part: Path) -> list[bytes]:
    """The sorted names of the class folders of train/ or val/; BadInput if there are none."""
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
        warn(f"{part}: images outside of class folders are skipped: {images}; {LAYOUT}")
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        raise BadInput(f"{part}: holds no class folder; {LAYOUT}")
    return names


def read_split(part: Path, present: list[bytes], classes: list[bytes]) -> FileSplit:
    """The images in the class folders `present` of train/ or val/; a label is a position in `classes`."""
    top, digest = os.path.join(os.fsencode(part), b""), hashlib.sha256()
    prefix, paths, counts, skipped = os.fsencode(part.name) + b"/", [], [], 0
    with ProgressBar(f"listing {part}", len(present), "class") as bar:
        for name in present:
            records = []  # path, a zero byte and file size
            for entry in files_below(top + name):
                if is_image(entry.name):
                    records.append(b"%b\0%d" % (entry.path[len(top):], entry.stat().st_size))
                else:
                    skipped += 1
            if not records:
                raise BadInput(f"{part / os.fsdecode(name)}: holds no file with an image extension; put the "
                               "images of this class there or delete it")
            records.sort(key=lambda record: record.rpartition(b"/")[::2])  # by folder, then by name
            digest.update(b"\n".join(records) + b"\n")
            paths += [prefix + record.partition(b"\0")[0] for record in records]
            counts.append(len(records))
            bar.update()
    if skipped:
        print(f"{part}: skipped {skipped} files without an image extension")
    labels = np.repeat(np.searchsorted(classes, present).astype(np.int32), counts)
    return FileSplit(paths, labels, folder=part.parent, digest=digest.hexdigest())


def files_below(folder: bytes, above: frozenset[bytes] = frozenset()) -> Iterator[os.DirEntry[bytes]]:
    """The files in a folder and its subfolders; links are followed, hidden files and folders skipped.

    `above` holds the real paths of the folders above it, by default found from its own. Raises BadInput if a
    link leads to one of them or to nothing.
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
                raise BadInput(f"{os.fsdecode(entry.path)}: not a file, or a link to nothing; put the image "
                               "there or delete it")


@functools.cache
def formats() -> list[str]:
    """The formats that Pillow decodes, the most common ones first."""
    Image.init()
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # else a long text counts as damage
    return [name for name in Image.ID if name not in NOT_DECODED]


@functools.cache
def suffixes() -> frozenset[bytes]:
    """The file extensions of these formats, in lower case."""
    return frozenset(suffix.encode() for suffix, name in Image.registered_extensions().items()
                     if name in (*formats(), "MPO"))  # JPEG files of several images, which it opens as JPEG


def is_image(name: bytes) -> bool:
    """Whether a file has an image extension."""
    return os.path.splitext(name)[1].lower() in suffixes()


def read_image(path: str) -> Image.Image:
    """An image file's pixels as RGB, as torchvision's loader returns them; BadInput if it is damaged.

    Of 16 bits the upper 8 are used, of an animation the first image. Transparency and EXIF orientation are
    ignored.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            # Pillow opens 16-bit PGM files, and before version 10.3 PNG files, with 32 bits.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise BadInput(f"{path}: pixels of 32 bits, whose range is unknown; save it with 8 bits")
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (BadInput, FileNotFoundError, PermissionError):
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: needs more memory than there is, or has more pixels than Pillow's limit; "
                       "make it smaller") from error
    except Exception as error:  # a damaged file can raise anything
        raise BadInput(f"{path}: damaged, or not an image; replace it with an intact copy or delete "
                       "it") from error
