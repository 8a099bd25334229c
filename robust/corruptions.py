"""The five corruptions of the paper's complex scenes, and which image gets which.

A corruption maps uint8 images (..., h, w, 3), one or a stack, and a generator to new ones of the same shape.
Constants and formulas are those of the authors' release, except that results on [0, 1] are clipped and
rounded back to 0..255.
"""
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.images import Split
from datasets.scenes import CLEAN
from utils.device import random_stream
from utils.progress import ProgressBar

# The release's kernel: the diagonal of a 15 x 15 matrix, rotated by 45 degrees about (7.5, 7.5) with bilinear
# interpolation. Rows 7 and 8 both have these taps, in 1/1024, as OpenCV computes them.
BLUR_TAPS = (378, 432, 272, 341, 420, 348, 278, 400, 400, 278, 348, 420, 341, 272, 432)
BLUR_CENTER = 7
FOG_BRIGHTNESS, FOG_THICKNESS = 0.5, 0.4  # A and beta
REDUCTION = 4
RECTANGLE_START = 5
RECTANGLE_END = {32: 20, 64: 45}  # by the image's side; both corners belong to the rectangle
NOISE_MEAN, NOISE_DEVIATION = 0.2, 1.0
Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def to_unit(images: np.ndarray) -> np.ndarray:
    """Gray levels as float32 on [0, 1]."""
    return np.divide(images, 255, dtype=np.float32)


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Values on [0, 1] as gray levels, clipped and rounded."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def motion_blur(images: np.ndarray, _: np.random.Generator | None = None) -> np.ndarray:
    """Correlation with the kernel divided by 15, rounded; then each image is stretched to 0..255.

    The border is mirrored (101). The stretch maps the smallest value of the three channels to 0 and the
    largest to 255; an image of one value becomes black. Within three levels of OpenCV's `filter2D` and
    `normalize` with NORM_MINMAX.
    """
    height, width = images.shape[-3:-1]
    lead = [(0, 0)] * (images.ndim - 3)
    columns = BLUR_CENTER, len(BLUR_TAPS) - 1 - BLUR_CENTER
    padded = np.pad(images, [*lead, (0, 1), columns, (0, 0)], "reflect").astype(np.int32)
    rows = padded[..., :height, :, :] + padded[..., 1:, :, :]
    total = np.zeros(images.shape, np.int32)
    for column, tap in enumerate(BLUR_TAPS):
        total += tap * rows[..., column:column + width, :]
    blurred = np.rint(total / (1024 * len(BLUR_TAPS)))
    least = blurred.min((-3, -2, -1), keepdims=True)
    return to_uint8((blurred - least) / np.maximum(np.ptp(blurred, (-3, -2, -1), keepdims=True), 1))


def fog(images: np.ndarray, _: np.random.Generator | None = None) -> np.ndarray:
    """Atmospheric scattering: x t + A (1 - t) on [0, 1], t = exp(-beta d), d = sqrt(long side) - 0.04 r.

    r is the distance from the middle pixel (h // 2, w // 2) in pixels.
    """
    height, width = images.shape[-3:-1]
    r = np.hypot(*np.ogrid[-(height // 2):height - height // 2, -(width // 2):width - width // 2])
    t = np.exp(-FOG_THICKNESS * (np.sqrt(max(height, width)) - 0.04 * r)).astype(np.float32)[..., None]
    return to_uint8(to_unit(images) * t + np.float32(FOG_BRIGHTNESS) * (1 - t))


def low_resolution(images: np.ndarray, _: np.random.Generator | None = None) -> np.ndarray:
    """Resize to a quarter of the side, 32 to 8 or 64 to 16 pixels, and back, by Pillow's default filter."""
    height, width = images.shape[-3:-1]
    small = width // REDUCTION, height // REDUCTION
    coarse = [np.asarray(Image.fromarray(image).resize(small).resize((width, height)))
              for image in images.reshape(-1, height, width, 3)]
    return np.stack(coarse).reshape(images.shape)


def rectangle(images: np.ndarray, _: np.random.Generator | None = None) -> np.ndarray:
    """A black rectangle from (5, 5) to (20, 20) in images of 32 pixels, to (45, 45) in images of 64."""
    covered = images.copy()
    inside = slice(RECTANGLE_START, RECTANGLE_END[images.shape[-2]] + 1)
    covered[..., inside, inside, :] = 0
    return covered


def gaussian_noise(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Noise of N(0.2, 1) on [0, 1], drawn for each pixel and channel."""
    noise = NOISE_MEAN + NOISE_DEVIATION * generator.standard_normal(images.shape, np.float32)
    return to_uint8(to_unit(images) + noise)


CORRUPTIONS: dict[str, Corruption] = {
    "motion blur": motion_blur,
    "fog": fog,
    "resolution": low_resolution,
    "rectangle": rectangle,
    "gaussian": gaussian_noise,
}


def choose_kinds(images: int, rate: float, seed: int) -> np.ndarray:
    """Which image gets which corruption: round(images * rate) of each kind, drawn without overlap.

    Args:
        rate: fraction of the images for each of the five kinds, at most a fifth of them, rounded down.

    Returns:
        Strings (images,): a name in CORRUPTIONS, or "clean".
    """
    each = min(round(images * rate), images // len(CORRUPTIONS))
    kinds = np.full(images, CLEAN, f"U{max(map(len, CORRUPTIONS))}")
    order = random_stream(seed, "corrupted images").permutation(images)
    for number, name in enumerate(CORRUPTIONS):
        kinds[order[number * each:(number + 1) * each]] = name
    return kinds


def corrupt(images: np.ndarray, kinds: np.ndarray, seed: int) -> np.ndarray:
    """A copy of images, uint8 (n, h, w, 3), each corrupted according to `kinds` (n,)."""
    corrupted = images.copy()
    for name in set(kinds) - {CLEAN}:
        corrupted[kinds == name] = CORRUPTIONS[name](images[kinds == name], random_stream(seed, name))
    return corrupted


def corrupt_files(train: Split, kinds: np.ndarray, seed: int) -> list[bytes]:
    """Corrupt image files in place and return the contents of all files.

    A corrupted image depends only on the image, its id, its entry in `kinds` (n,) and the seed.
    """
    contents: list[bytes] = list(train.images)
    chosen = np.flatnonzero(kinds != CLEAN)
    with ProgressBar("corrupt", len(chosen), "image") as bar:
        for i in chosen:
            pixels = CORRUPTIONS[kinds[i]](train.pixels([i])[0], random_stream(seed, "corruption", i))
            path = Path(train.names[i])
            path.unlink()  # a copy made of hard links shares the file with the original
            Image.fromarray(pixels).save(path, format="JPEG", quality=95, subsampling=0)
            contents[i] = path.read_bytes()
            bar.update()
    return contents


def describe(kinds: np.ndarray) -> str:
    """How many images have which corruption, in words."""
    counts = ", ".join(f"{(kinds == name).sum()} {name}" for name in CORRUPTIONS)
    return f"{(kinds != CLEAN).sum()} of {len(kinds)} images corrupted: {counts}"
