"""Images and labels of one half of a data set, as one array or as JPEG files."""
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.errors import BadInput

BLOCK = 1000  # images shrunk at once


@dataclass(frozen=True)
class Split:
    """Images and their labels in the data set's order."""
    images: np.ndarray | Sequence[bytes]  # uint8 (n, h, w, 3), or contents of n JPEG files of one size
    labels: np.ndarray  # int32 (n,)
    names: Sequence[str] = ()  # the JPEG files' paths
    folder: Path = Path()  # of the data set; these paths begin with it
    subset: np.ndarray | None = None  # ids of these images in the data set, ascending; None: it is complete
    mislabelled: np.ndarray | None = None  # which images are, bool (n,); None: unknown
    corrupted: np.ndarray | None = None  # as `mislabelled`
    record: dict[str, Any] = field(default_factory=dict)  # of the script that made images or labels

    @property
    def ids(self) -> np.ndarray:
        """The number of each image in the data set, int64 (n,)."""
        return np.arange(len(self.labels)) if self.subset is None else self.subset

    @property
    def file_names(self) -> list[bytes]:
        """The path of each JPEG file relative to the data set's folder."""
        return [os.fsencode(os.path.relpath(name, self.folder)) for name in self.names]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(h, w, 3)"""
        return self.pixels([0]).shape[1:]

    def pixels(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of the images at these positions, uint8 (len(positions), h, w, 3)."""
        if isinstance(self.images, np.ndarray):
            return np.array(self.images[positions])
        return np.stack([decode_jpeg(self.images[i], self.names[i] if self.names else f"image {i}")
                         for i in positions])

    def without(self, rows: Sequence[int] | np.ndarray) -> "Split":
        """All images except those at these positions, with unchanged labels and ids."""
        keep = np.delete(np.arange(len(self.labels)), rows)
        images = self.images[keep] if isinstance(self.images, np.ndarray) else [self.images[i] for i in keep]
        marks = self.mislabelled, self.corrupted
        mislabelled, corrupted = (mark if mark is None else mark[keep] for mark in marks)
        return replace(self, images=images, labels=self.labels[keep], subset=self.ids[keep],
                       names=[self.names[i] for i in keep] if self.names else (),
                       mislabelled=mislabelled, corrupted=corrupted)

    def shrunk(self, factor: int) -> "Split":
        """With images of 1 / factor of the side, in which a pixel is the rounded mean of factor x factor."""
        n, (height, width, _) = len(self.labels), self.image_shape
        images = np.empty((n, height // factor, width // factor, 3), np.uint8)
        for i in range(0, n, BLOCK):
            block = self.pixels(range(i, min(i + BLOCK, n)))
            boxes = block.reshape(-1, height // factor, factor, width // factor, factor, 3)
            images[i:i + BLOCK] = np.rint(boxes.mean((2, 4), np.float32))
        return replace(self, images=images)

    def sha256(self) -> str:
        """Of the images and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(image if isinstance(image, bytes) else image.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def as_labels(values: object, n: int, classes: int) -> np.ndarray | None:
    """Labels, int32 (n,), from a list or array of n whole numbers from 0 to classes - 1, else None."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list) or len(values) != n or not all(
            isinstance(value, (int, np.integer)) and 0 <= value < classes for value in values):
        return None
    return np.array(values, np.int32)


def decode_jpeg(content: bytes, name: str) -> np.ndarray:
    """The pixels of a JPEG file, uint8 (h, w, 3); BadInput, with `name`, if it is damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.mode in ("L", "RGB"):
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # a damaged file can raise anything
        raise BadInput(f"{name}: damaged, or not a JPEG image; replace it with an intact copy") from error
    raise BadInput(f"{name}: an image of mode {image.mode}, neither grayscale nor RGB; convert it")
