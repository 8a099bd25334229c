"""A small data set to try things on: letters in random colors, places and angles, some with wrong labels."""
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.images import Split

SIDE, TRAIN, TEST = 16, 3000, 1000
LETTERS = "ACEHKMRSTX"
MISLABELLED = 0.2  # fraction of the training images


def make_toy(_: Path) -> tuple[Split, Split, list[str]]:
    """Training split, test split and class names, always the same. Test labels are correct."""
    generator = np.random.default_rng(20230501)
    classes, test_classes = (np.arange(n) % len(LETTERS) for n in (TRAIN, TEST))
    mislabelled = generator.random(TRAIN) < MISLABELLED
    wrong = (classes + generator.integers(1, len(LETTERS), TRAIN)) % len(LETTERS)
    labels = np.where(mislabelled, wrong, classes).astype(np.int32)
    return (Split(draw(classes, generator), labels, mislabelled=mislabelled),
            Split(draw(test_classes, generator), test_classes.astype(np.int32)), list(LETTERS))


def draw(classes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One image per entry of `classes`, its letter on colored squares, uint8 (n, SIDE, SIDE, 3)."""
    n, letters = len(classes), []
    fonts = [ImageFont.load_default(size) for size in range(22, 30)]  # drawn at twice the size
    for number, size, (x, y), angle in zip(classes, generator.integers(0, len(fonts), n),
                                           generator.integers(-5, 6, (n, 2)),
                                           generator.uniform(-25, 25, n), strict=True):
        sheet = Image.new("L", (2 * SIDE, 2 * SIDE))
        ImageDraw.Draw(sheet).text((SIDE + x, SIDE + y), LETTERS[number], 255, fonts[size], "mm",
                                   stroke_width=1)
        letters.append(np.asarray(sheet.rotate(angle, Image.Resampling.BILINEAR).reduce(2)))
    letter = np.array(letters)[..., None] / 255
    ink, squares = generator.uniform(0.65, 1, (n, 1, 1, 3)), generator.uniform(0, 0.5, (n, 4, 4, 3))
    pixels = letter * ink + (1 - letter) * squares.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
    pixels = np.where(generator.random((n, 1, 1, 1)) < 0.5, pixels, 1 - pixels)
    noise = generator.normal(0, 0.05, pixels.shape)
    return np.clip(np.rint(255 * (pixels + noise)), 0, 255).astype(np.uint8)
