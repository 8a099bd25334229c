"""Transforms of images, each uint8 (h, w, 3) or a Pillow image, to uint8 (n, side, side, 3).

Resizing is Pillow's, bilinear and antialiased, as in torchvision's transforms.

A transform for training has two halves: `draw` draws all random numbers for n images, (k, n), before their
sizes are known; `__call__` applies them. So any thread can do the work, and results depend only on the seed.
"""
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR
TRIES = 10  # boxes that a random resized crop draws before it uses the central one, as in torchvision
Images = Iterable[np.ndarray | Image.Image]  # one array of images, or images of different sizes


def as_pillow(image: np.ndarray | Image.Image) -> Image.Image:
    """An image, uint8 (h, w, 3) or Pillow's, as a Pillow image."""
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def as_array(images: Images) -> np.ndarray:
    """Unchanged images of one size as one array, uint8 (n, h, w, 3)."""
    return images if isinstance(images, np.ndarray) else np.stack([np.asarray(image) for image in images])


@dataclass(frozen=True)
class PadAndCrop:
    """Pad images of one size by `padding` black pixels on each side, then crop that size at random."""
    padding: int

    def draw(self, generator: np.random.Generator, n: int) -> np.ndarray:
        """Top and left, int (2, n)."""
        return generator.integers(0, 2 * self.padding + 1, (2, n))

    def __call__(self, images: Images, drawn: np.ndarray) -> np.ndarray:
        array, both = as_array(images), (self.padding, self.padding)
        padded = np.pad(array, ((0, 0), both, both, (0, 0)))
        # (n, 2 padding + 1, 2 padding + 1, 1, 1, height, width, 3): a view of all crops
        crops = sliding_window_view(padded, (1, *array.shape[1:]))
        return crops[np.arange(len(array)), drawn[0], drawn[1], 0, 0]


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to `crop` pixels square, then to `side` pixels square.

    The part is chosen as in torchvision's RandomResizedCrop.get_params: its area, as a fraction of the
    image's, is uniform in `scale`, and the logarithm of width / height is uniform between those of `ratio`;
    if ten such parts do not fit, it is the largest central part with a ratio in `ratio`.
    """
    crop: int
    side: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, generator: np.random.Generator, n: int) -> np.ndarray:
        """Numbers in [0, 1) for area and ratio of each try, then for the position, float64 (22, n)."""
        return generator.random((2 * TRIES + 2, n))

    def __call__(self, images: Images, drawn: np.ndarray) -> np.ndarray:
        pairs = zip(map(as_pillow, images), drawn.T.tolist(), strict=True)
        return np.stack([self.resized(image, *self.box(numbers, image.height, image.width))
                         for image, numbers in pairs])

    def box(self, numbers: list[float], height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part."""
        smallest, largest = self.scale
        narrowest, widest = map(math.log, self.ratio)
        for i in range(TRIES):
            area = height * width * (smallest + (largest - smallest) * numbers[2 * i])
            ratio = math.exp(narrowest + (widest - narrowest) * numbers[2 * i + 1])
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(numbers[-2] * (height - h + 1)), int(numbers[-1] * (width - w + 1)), h, w
        h, w = min(height, round(width / self.ratio[0])), min(width, round(height * self.ratio[1]))
        return (height - h) // 2, (width - w) // 2, h, w

    def resized(self, image: Image.Image, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A part of an image, resized, uint8 (side, side, 3)."""
        part = image.crop((left, top, left + width, top + height))
        for side in (self.crop, self.side):
            part = part.resize((side, side), BILINEAR)
        return np.asarray(part)


RandomTransform = PadAndCrop | RandomResizedCrop


@dataclass(frozen=True)
class ResizeAndCenterCrop:
    """Resize the image's shorter side to `resize` pixels, then crop the central `side` pixels square."""
    resize: int
    side: int

    def __call__(self, images: Images) -> np.ndarray:
        return np.stack([self.cut(as_pillow(image)) for image in images])

    def cut(self, image: Image.Image) -> np.ndarray:
        """One image, resized and cropped, uint8 (side, side, 3)."""
        shorter = min(image.size)
        # As in torchvision's Resize, the longer side is rounded down.
        width, height = (self.resize * length // shorter for length in image.size)
        left, top = round((width - self.side) / 2), round((height - self.side) / 2)
        if width * height > (Image.MAX_IMAGE_PIXELS or math.inf):  # very thin: resize only the crop
            scale_x, scale_y = image.width / width, image.height / height
            box = (left * scale_x, top * scale_y, (left + self.side) * scale_x, (top + self.side) * scale_y)
            return np.asarray(image.resize((self.side, self.side), BILINEAR, box=box))
        image = image.resize((width, height), BILINEAR)
        return np.asarray(image.crop((left, top, left + self.side, top + self.side)))
