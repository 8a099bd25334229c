"""Write tests/golden/*.npz by PyTorch and torchvision, but for those of make_golden_scenes.py.

`python tests/make_golden.py` writes all, `python tests/make_golden.py resnet50-64 selection` these two. It
needs torch==2.14.1 and torchvision==0.29.1 for Python 3.11, in an environment of its own:

    python3.11 -m venv /tmp/golden-env
    /tmp/golden-env/bin/pip install torch==2.14.1 torchvision==0.29.1 opencv-python-headless pillow "numpy<2"

The networks are those of torch_networks.py, with weights made from their parameters' names:

    ARCH.npz       on 32x32 images: logits, features, a step of SGD; written anew in torch_networks.py
    ARCH-64.npz    on 64x64 images: logits, features; ResNets are torchvision's, the others as above
    selection.npz  the ids that the release's formula drops at each rate, from resnet20's features
"""
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from torch_networks import NETWORKS
from weights import make_batch, make_weight, sample

GOLDEN = Path(__file__).resolve().parent / "golden"
RATES = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


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


FILES: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    **{arch: partial(on_small_images, arch) for arch in NETWORKS},
    # resnet20 has one form
    **{f"{arch}-64": partial(on_large_images, arch) for arch in NETWORKS if arch != "resnet20"},
    "selection": selected,
}


def write(files: dict[str, Callable[[], dict[str, np.ndarray]]], names: list[str]) -> None:
    """Write the named files, all when none is named."""
    unknown = set(names) - set(files)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(files)}")
    GOLDEN.mkdir(exist_ok=True)
    torch.set_num_threads(1)  # on a busy machine its threads wait for one another
    for name in names or files:
        np.savez_compressed(GOLDEN / f"{name}.npz", **files[name]())


if __name__ == "__main__":
    write(FILES, sys.argv[1:])
