"""Write tests/golden/scenes.npz: `python tests/make_golden_scenes.py`, where torch and OpenCV are.

Motion blur by OpenCV on the kernel of the common recipe, and the gradients that a single-step attack takes
the signs of, by PyTorch.
"""
import cv2
import numpy as np
import torch
from torch.nn import functional as F

from make_golden import GOLDEN, seeded
from weights import make_pixels

MEAN, STD = (0.50707, 0.48654, 0.44091), (0.26733, 0.25643, 0.27615)
TAPS, ANGLE = 15, 45


def blur_kernel() -> np.ndarray:
    turn = cv2.getRotationMatrix2D((TAPS / 2, TAPS / 2), ANGLE, 1)
    kernel = cv2.warpAffine(np.diag(np.ones(TAPS)), turn, (TAPS, TAPS))
    return kernel / kernel.sum()


def gradients(images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Of the cross-entropies' sum by pixels, (n, h, w, 3), each image's scaled to a largest of 1."""
    network = seeded("resnet20", small_images=True)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().requires_grad_()
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    logits = network((x / 255 - mean) / std)
    labels = logits.argmax(1) if labels is None else torch.from_numpy(labels)
    F.cross_entropy(logits, labels, reduction="sum").backward()
    gradient = x.grad.permute(0, 2, 3, 1).numpy()
    return (gradient / np.abs(gradient).max((1, 2, 3), keepdims=True)).astype(np.float32)


def main() -> None:
    kernel = blur_kernel()
    large, small = make_pixels(2, 64), make_pixels(4, 32)
    labels = np.arange(len(small)) * 7
    np.savez_compressed(GOLDEN / "scenes.npz", kernel=kernel,
                        blurred_64=np.stack([cv2.filter2D(image, -1, kernel) for image in large]),
                        blurred_32=np.stack([cv2.filter2D(image, -1, kernel) for image in small]),
                        gradient_predicted=gradients(small, None), gradient_labels=gradients(small, labels))


if __name__ == "__main__":
    main()
