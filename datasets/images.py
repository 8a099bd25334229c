"""Images and labels of one half of a data set, as one array or as JPEG files."""
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mindspore.dataset import vision

from files import BadInput


@dataclass(frozen=True)
class Split:
    """Images and their labels in the data set's own order.

    Args:
        images: uint8 (n, h, w, 3), which may be a memory map, or the contents of n JPEG files of one image
            size.
        labels: int32 (n,).
        names: the JPEG files' paths, for error messages.
    """
    images: np.ndarray | Sequence[bytes]
    labels: np.ndarray
    names: Sequence[str] = ()

    def pixels(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images of these ids, uint8 (len(ids), h, w, 3), a copy.

        Raises:
            BadInput: a JPEG file cannot be decoded.
        """
        if isinstance(self.images, np.ndarray):
            return np.array(self.images[ids])
        decode = vision.Decode()
        return np.stack([self._decode(decode, i) for i in ids])

    def _decode(self, decode: vision.Decode, i: int) -> np.ndarray:
        try:
            return decode(np.frombuffer(self.images[i], np.uint8))
        except RuntimeError as error:
            name = self.names[i] if self.names else f"image {i}"
            raise BadInput(f"{name}: damaged; unpack the data set again") from error

    def sha256(self) -> str:
        """Of the images and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for part in [self.images] if isinstance(self.images, np.ndarray) else self.images:
            digest.update(np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part)
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()
