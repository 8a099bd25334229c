"""Write tests/golden/*.npz by PyTorch, torchvision, OpenCV and Pillow, in the environment of tests/README.md.

`python tests/make_golden.py` writes all, `python tests/make_golden.py resnet50-64 selection` these two.

The networks are those of torch_networks.py, with weights made from their parameters' names. The images of the
last two files are those of weights.make_pixels, image i for the i-th result:

    ARCH.npz        on 32x32 images: logits, features, a step of SGD; written anew in torch_networks.py
    ARCH-64.npz     on 64x64 images: logits, features; ResNets are torchvision's, the others as above
    selection.npz   the ids that the release's formula drops at each rate, from resnet20's features
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
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from torch_networks import NETWORKS
from weights import make_batch, make_pixels, make_weight, sample

GOLDEN = Path(__file__).resolve().parent / "golden"
RATES = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
MEAN, STD = (0.50707, 0.48654, 0.44091), (0.26733, 0.25643, 0.27615)
TAPS, ANGLE = 15, 45
BILINEAR = InterpolationMode.BILINEAR
BOXES = np.array([(0, 0, 64, 64), (3, 2, 60, 57), (8, 0, 48, 64), (0, 9, 64, 48),
                  (46, 40, 18, 24), (0, 0, 21, 16), (30, 21, 18, 19), (20, 33, 33, 29)])


def seeded(arch: str, small_images: bool) -> nn.Module:
    network = NETWORKS[arch](small_images)
    for name, value in network.state_dict().items():
        if value.ndim:
            value.copy_(torch.from_numpy(make_weight(name, tuple(value.shape))))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0  # the random masks differ
    return network.eval()


def forward(network: nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits and features of the first four images."""
    x = torch.from_numpy(images[:4])
    with torch.no_grad():
        return {"logits": network(x).numpy(), "features": network.features(x).numpy()}


def one_step(network: nn.Module) -> dict[str, np.ndarray]:
    """Loss of a batch of 16, and after one SGD step a sample of each parameter and its largest value.

    In float64, so that the differences are the rounding of the network under test alone.
    """
    images, labels = make_batch(16)
    network.double().train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    loss = F.cross_entropy(network(torch.from_numpy(images).double()), torch.from_numpy(labels).long())
    loss.backward()
    optimizer.step()
    state = {name: value.numpy() for name, value in network.state_dict().items() if value.ndim}
    return {"loss": loss.detach().numpy(), "names": np.array(list(state)),
            "step": np.stack([sample(values) for values in state.values()]),
            "size": np.array([np.abs(values).max() for values in state.values()])}


def on_small_images(arch: str) -> dict[str, np.ndarray]:
    network = seeded(arch, small_images=True)
    return forward(network, make_batch(16)[0]) | one_step(network)


def on_large_images(arch: str) -> dict[str, np.ndarray]:
    network = seeded(arch, small_images=False)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": np.array(parameters), **forward(network, make_batch(4, 64)[0])}


def release_order(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ids by distance to the coordinate-wise median, the release's formula."""
    centers = {c: np.median(features[labels == c], axis=0) for c in np.unique(labels)}
    distance = np.array([np.linalg.norm(f.astype(float) - centers[c])
                         for f, c in zip(features, labels, strict=True)])
    return np.argsort(distance, kind="stable")


def selected() -> dict[str, np.ndarray]:
    """Ids to drop of 200 images, by rate."""
    network = seeded("resnet20", small_images=True)
    images, _ = make_batch(200)
    labels = np.arange(200) % 7
    with torch.no_grad():
        features = network.features(torch.from_numpy(images)).numpy()
    order, drops = release_order(features, labels), {}
    for rate in RATES:
        low, high = round(200 * (0.5 - rate / 2)), round(200 * (0.5 + rate / 2))
        drops[f"{rate}"] = np.sort(np.concatenate([order[:low], order[high:]]))
    return drops


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
    small, found = make_pixels(4, 32), {"kernel": blur_kernel()}
    for images in (small, make_pixels(2, 64)):
        side = images.shape[1]
        found[f"blurred_{side}"] = np.stack([blur(image) for image in images])
        found[f"resolution_{side}"] = np.stack([low_resolution(image) for image in images])
    return {**found, "gradient_predicted": gradients(small, None),
            "gradient_labels": gradients(small, np.arange(len(small)) * 7)}


def training_crop(image: Image.Image, box: list[int]) -> Image.Image:
    return vision.resize(vision.resized_crop(image, *box, [55, 55], BILINEAR), [64, 64], BILINEAR)


def evaluation_crop(image: Image.Image) -> Image.Image:
    return vision.center_crop(vision.resize(image, 73, BILINEAR), 64)


def transforms() -> dict[str, np.ndarray]:
    images = [Image.fromarray(pixels) for pixels in make_pixels(len(BOXES), 64)]
    crops = [training_crop(image, box.tolist()) for image, box in zip(images, BOXES, strict=True)]
    return {"boxes": BOXES, "crops": np.stack(crops),
            "evaluation": np.stack([evaluation_crop(image) for image in images])}


FILES: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    **{arch: partial(on_small_images, arch) for arch in NETWORKS},
    # resnet20 has one form
    **{f"{arch}-64": partial(on_large_images, arch) for arch in NETWORKS if arch != "resnet20"},
    "selection": selected, "scenes": scenes, "transforms": transforms}


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - FILES.keys():
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(FILES)}")
    GOLDEN.mkdir(exist_ok=True)
    torch.set_num_threads(1)  # on a busy machine its threads wait for one another
    for name in sys.argv[1:] or FILES:
        np.savez_compressed(GOLDEN / f"{name}.npz", **FILES[name]())
