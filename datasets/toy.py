"""A small data set made in memory, for a first try: classes with easy, typical and mislabelled members."""
from pathlib import Path

import numpy as np

from datasets.images import Split

SIDE = 16
CLASSES = 10
TRAIN, TEST = 3000, 1000
EASY, MISLABELLED = 0.2, 0.4  # fractions of the training images; the rest is typical


def make_toy(_: Path) -> tuple[Split, Split, list[str]]:
    """Training split, test split and the class names; the same ones every time.

    A class is a colored texture. A typical image shows it moved, faded, mixed with another texture and
    noisy; an easy one has half as much of the mixing and the noise; a mislabelled one is typical but has
    another class's label. Test images are typical and have their own labels.
    """
    generator = np.random.default_rng(20230501)
    textures = np.stack([smooth_texture(generator) for _ in range(CLASSES)])
    kinds = generator.random(TRAIN)
    train_classes = generator.permutation(np.arange(TRAIN) % CLASSES)
    train_images = draw(textures, train_classes, kinds < EASY, generator)
    shifts = generator.integers(1, CLASSES, TRAIN)
    labels = np.where(kinds >= 1 - MISLABELLED, (train_classes + shifts) % CLASSES, train_classes)
    test_classes = np.arange(TEST) % CLASSES
    test_images = draw(textures, test_classes, np.zeros(TEST, bool), generator)
    names = [f"texture {i}" for i in range(CLASSES)]
    return (Split(train_images, labels.astype(np.int32)), Split(test_images, test_classes.astype(np.int32)),
            names)


def smooth_texture(generator: np.random.Generator) -> np.ndarray:
    """A random image of low frequencies, float64 (SIDE, SIDE, 3), mean 0, deviation 1; it tiles the plane."""
    spectrum = np.fft.rfft2(generator.standard_normal((SIDE, SIDE, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]) * SIDE
    texture = np.fft.irfft2(spectrum * np.exp(-(frequency / 2.5) ** 2)[..., None], s=(SIDE, SIDE),
                            axes=(0, 1))
    return (texture - texture.mean()) / texture.std()


def draw(textures: np.ndarray, classes: np.ndarray, easy: np.ndarray,
         generator: np.random.Generator) -> np.ndarray:
    """One image for each entry of `classes`, uint8 (n, SIDE, SIDE, 3)."""
    images = np.empty((len(classes), SIDE, SIDE, 3), np.uint8)
    for i, (name, is_easy) in enumerate(zip(classes, easy, strict=True)):
        spread = 0.5 if is_easy else 1.0
        moved = np.roll(textures[name], generator.integers(-3, 4, 2), axis=(0, 1))
        other = textures[generator.integers(CLASSES)]
        contrast = 0.2 * (1 - 0.5 * spread * generator.random())
        noise = generator.standard_normal((SIDE, SIDE, 3))
        value = 0.5 + contrast * (moved + spread * (0.6 * generator.random() * other + 1.2 * noise))
        images[i] = np.clip(np.rint(255 * value), 0, 255)
    return images
