"""What data sets do to images, uint8 (n, h, w, 3) to uint8 (n, side, side, 3), before normalization.

Resizing is Pillow's, bilinear and antialiased where it shrinks, as torchvision's transforms have it.

A transform for training has two halves: `draw` takes all that is random for a batch from a generator,
`__call__` does the work with it. So the work may be done in any thread and still depends on the seed alone.
"""
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR
TRIES = 10  # boxes that a random resized crop draws before it takes the central one, as torchvision does


class RandomTransform(Protocol):
    """A transform for training."""

    def draw(self, generator: np.random.Generator, n: int, height: int, width: int) -> np.ndarray:
        """What is random for n images of one size, int (k, n)."""

    def __call__(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The transformed images."""


@dataclass(frozen=True)
class PadAndCrop:
    """A crop of the image's own size at a random place after `padding` black pixels on each side."""
    padding: int

    def draw(self, generator: np.random.Generator, n: int, height: int, width: int) -> np.ndarray:
        """Top and left, int (2, n)."""
        return generator.integers(0, 2 * self.padding + 1, (2, n))

    def __call__(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        pad = self.padding
        n, height, width, _ = images.shape
        padded = np.zeros((n, height + 2 * pad, width + 2 * pad, 3), np.uint8)
        padded[:, pad:pad + height, pad:pad + width] = images
        # (n, 2 pad + 1, 2 pad + 1, 3, height, width): every crop as a view
        crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        return crops[np.arange(n), drawn[0], drawn[1]].transpose(0, 2, 3, 1)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to `crop` pixels square and from there to `side`.

    The part's area is uniform in `scale` times the image's, the logarithm of its ratio, width to height,
    uniform between those of `ratio`; after ten such parts that do not fit, the largest central part whose
    ratio lies in `ratio` (torchvision's RandomResizedCrop.get_params).
    """
    crop: int
    side: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, generator: np.random.Generator, n: int, height: int, width: int) -> np.ndarray:
        """Top, left, height and width of each part, int (4, n)."""
        area = height * width * generator.uniform(*self.scale, (n, TRIES))
        ratio = np.exp(generator.uniform(*np.log(self.ratio), (n, TRIES)))
        widths = np.rint(np.sqrt(area * ratio)).astype(int)
        heights = np.rint(np.sqrt(area / ratio)).astype(int)
        fits = (0 < widths) & (widths <= width) & (0 < heights) & (heights <= height)
        first = np.arange(n), fits.argmax(1)
        low, high = self.ratio
        central = min(height, round(width / low)), min(width, round(height * high))
        heights = np.where(fits.any(1), heights[first], central[0])
        widths = np.where(fits.any(1), widths[first], central[1])
        places = generator.random((2, n))
        tops = np.where(fits.any(1), places[0] * (height - heights + 1), (height - heights) // 2).astype(int)
        lefts = np.where(fits.any(1), places[1] * (width - widths + 1), (width - widths) // 2).astype(int)
        return np.stack([tops, lefts, heights, widths])

    def __call__(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        return np.stack([self._one(image, *box) for image, box in zip(images, drawn.T.tolist())])

    def _one(self, pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
        part = Image.fromarray(pixels).crop((left, top, left + width, top + height))
        part = part.resize((self.crop, self.crop), BILINEAR)
        return np.asarray(part.resize((self.side, self.side), BILINEAR))


@dataclass(frozen=True)
class ResizeAndCenterCrop:
    """The square image resized to `resize` pixels, then its central `side` pixels square."""
    resize: int
    side: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        resized = np.stack([np.asarray(Image.fromarray(image).resize((self.resize, self.resize), BILINEAR))
                            for image in images])
        first = round((self.resize - self.side) / 2)
        return resized[:, first:first + self.side, first:first + self.side]
