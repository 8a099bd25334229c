"""The same pseudo-random weights for a network in MindSpore and in PyTorch, made from the parameters' names."""
import zlib

import numpy as np

TO_TORCH = {"bn.gamma": "bn.weight", "bn.beta": "bn.bias", "bn.moving_mean": "bn.running_mean",
            "bn.moving_variance": "bn.running_var"}


def torch_name(name: str) -> str:
    """A MindSpore parameter's name as PyTorch has it."""
    for ours, theirs in TO_TORCH.items():
        if name.endswith(ours):
            return name.removesuffix(ours) + theirs
    return name


def make_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values for a parameter, of the size that training starts with."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif name.endswith(("bn.weight", "running_var")):
        values = generator.uniform(0.5, 1.0, shape)
        if name.endswith("conv3.bn.weight"):
            values *= 0.1  # without it a step's gradients in ResNet-50 are too large to compare in float32
    else:
        values = generator.normal(0, 0.1, shape)
    return values.astype(np.float32)


def make_batch(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 (n, 3, 32, 32), and labels, int32 (n,), of 100 classes."""
    generator = np.random.default_rng(7)
    return generator.normal(0, 1, (n, 3, 32, 32)).astype(np.float32), generator.integers(0, 100, n, np.int32)


def sample(values: np.ndarray) -> np.ndarray:
    """Up to 16 values spread over an array."""
    flat = values.reshape(-1)
    return flat[::max(1, flat.size // 16)][:16]


def make_pixels(n: int, side: int) -> np.ndarray:
    """Images, uint8 (n, side, side, 3): smooth ones, half of them under noise."""
    generator = np.random.default_rng(side)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (f[0] * x + f[1] * y) + f[2]) for f in generator.uniform(0, 3, (n * 3, 3))]
    smooth = np.stack(waves).reshape(n, 3, side, side).transpose(0, 2, 3, 1)
    noise = generator.normal(0, 1, smooth.shape) * (np.arange(n) % 2)[:, None, None, None]
    return np.clip(np.rint(127.5 + 110 * smooth + 60 * noise), 0, 255).astype(np.uint8)
