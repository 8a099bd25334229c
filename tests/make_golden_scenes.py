"""Write tests/golden/scenes.npz and transforms.npz by OpenCV, Pillow, PyTorch and torchvision.

`python tests/make_golden_scenes.py` writes both, `python tests/make_golden_scenes.py transforms` that one. It
needs torch==2.14.1, torchvision==0.29.1 and opencv-python-headless for Python 3.11, in an environment of its
own:

    python3.11 -m venv /tmp/golden-env
    /tmp/golden-env/bin/pip install torch==2.14.1 torchvision==0.29.1 opencv-python-headless pillow "numpy<2"

The images are those of weights.make_pixels, image i for the i-th result:

    scenes.npz      kernel                 the release's kernel of motion blur, by OpenCV
                    blurred_32, _64        its motion blur, the stretch to 0..255 included, by OpenCV
                    resolution_32, _64     its low resolution, by Pillow
                    gradient_predicted, gradient_labels
                                           what a single-step attack takes the signs of, by PyTorch
    transforms.npz  boxes, crops           Tiny ImageNet's training crops of fixed boxes (top, left, height,
                                           width), by torchvision on Pillow images
                    evaluation             its transform for evaluation, by the same
"""
import sys

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from make_golden import seeded, write
from weights import make_pixels

MEAN, STD = (0.50707, 0.48654, 0.44091), (0.26733, 0.25643, 0.27615)
TAPS, ANGLE = 15, 45
BILINEAR = InterpolationMode.BILINEAR
BOXES = np.array([
    (0, 0, 64, 64),
    (3, 2, 60, 57),
    (8, 0, 48, 64),  # the widest and the tallest that fit
    (0, 9, 64, 48),
    (46, 40, 18, 24),  # in a corner
    (0, 0, 21, 16),
    (30, 21, 18, 19),
    (20, 33, 33, 29),
])


def blur_kernel() -> np.ndarray:
    """Divided by the number of taps, as in the release: the sum is less than 1."""
    turn = cv2.getRotationMatrix2D((TAPS / 2, TAPS / 2), ANGLE, 1)
    return cv2.warpAffine(np.diag(np.ones(TAPS)), turn, (TAPS, TAPS)) / TAPS


def blur(image: np.ndarray) -> np.ndarray:
    blurred = cv2.filter2D(image, -1, blur_kernel())
    cv2.normalize(blurred, blurred, 0, 255, cv2.NORM_MINMAX)  # over all channels together
    return np.array(blurred, np.uint8)


def low_resolution(image: np.ndarray) -> np.ndarray:
    side = len(image)
    return np.asarray(Image.fromarray(image).resize((side // 4, side // 4)).resize((side, side)))


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


def scenes() -> dict[str, np.ndarray]:
    large, small = make_pixels(2, 64), make_pixels(4, 32)
    labels = np.arange(len(small)) * 7
    return {"kernel": blur_kernel(),
            "blurred_64": np.stack([blur(image) for image in large]),
            "blurred_32": np.stack([blur(image) for image in small]),
            "resolution_64": np.stack([low_resolution(image) for image in large]),
            "resolution_32": np.stack([low_resolution(image) for image in small]),
            "gradient_predicted": gradients(small, None), "gradient_labels": gradients(small, labels)}


def training_crop(image: Image.Image, box: list[int]) -> Image.Image:
    return vision.resize(vision.resized_crop(image, *box, [55, 55], BILINEAR), [64, 64], BILINEAR)


def evaluation_crop(image: Image.Image) -> Image.Image:
    return vision.center_crop(vision.resize(image, 73, BILINEAR), 64)


def transforms() -> dict[str, np.ndarray]:
    images = [Image.fromarray(pixels) for pixels in make_pixels(len(BOXES), 64)]
    crops = [training_crop(image, box.tolist()) for image, box in zip(images, BOXES, strict=True)]
    return {"boxes": BOXES, "crops": np.stack(crops),
            "evaluation": np.stack([evaluation_crop(image) for image in images])}


if __name__ == "__main__":
    write({"scenes": scenes, "transforms": transforms}, sys.argv[1:])
