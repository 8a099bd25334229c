"""The same pseudo-random weights for a network in MindSpore and PyTorch, from the parameters' names."""
import zlib

import numpy as np


def make_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values for a parameter, of the size that training starts with.

    Args:
        name: in PyTorch.
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif name.endswith(("weight", "running_var")):
        values = generator.uniform(0.5, 1.0, shape)
        if name.endswith(("bn2.weight", "bn3.weight")):
            values *= 0.1  # without it a step's gradients in ResNets are too large to compare in float32
    else:
        values = generator.normal(0, 0.1, shape)
    return values.astype(np.float32)


def make_batch(n: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 (n, 3, side, side), and labels, int32 (n,), of 100 classes."""
    generator = np.random.default_rng(7)
    return (generator.normal(0, 1, (n, 3, side, side)).astype(np.float32),
            generator.integers(0, 100, n, np.int32))


def sample(values: np.ndarray) -> np.ndarray:
    """16 values spread over an array; those of a smaller one again and again."""
    flat = values.reshape(-1)
    return np.resize(flat[::max(1, flat.size // 16)], 16)


def make_pixels(n: int, side: int) -> np.ndarray:
    """Images, uint8 (n, side, side, 3): smooth ones, half of them under noise."""
    generator = np.random.default_rng(side)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (f[0] * x + f[1] * y) + f[2]) for f in generator.uniform(0, 3, (n * 3, 3))]
    smooth = np.stack(waves).reshape(n, 3, side, side).transpose(0, 2, 3, 1)
    noise = generator.normal(0, 1, smooth.shape) * (np.arange(n) % 2)[:, None, None, None]
    return np.clip(np.rint(127.5 + 110 * smooth + 60 * noise), 0, 255).astype(np.uint8)
