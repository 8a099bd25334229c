"""Write tests/golden/*.npz with PyTorch: `python tests/make_golden.py` in an environment that has torch.

The networks are those of torch_networks.py, with weights made from their parameters' names.
"""
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


def release_order(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ids by distance to the coordinate-wise median, as the notes give the release's formula."""
    centres = {c: np.median(features[labels == c], axis=0) for c in np.unique(labels)}
    distance = np.array([np.linalg.norm(f.astype(float) - centres[c]) for f, c in zip(features, labels)])
    return np.argsort(distance, kind="stable")


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    torch.set_num_threads(1)  # on a busy machine its threads wait for one another
    for arch in NETWORKS:
        network = seeded(arch, small_images=True)
        golden = forward(network, make_batch(16)[0]) | one_step(network)
        np.savez_compressed(GOLDEN / f"{arch}.npz", **golden)
        if arch != "resnet20":  # it has one form
            network = seeded(arch, small_images=False)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            np.savez_compressed(GOLDEN / f"{arch}-64.npz", parameters=parameters,
                                **forward(network, make_batch(4, 64)[0]))
    network = seeded("resnet20", small_images=True)
    images, _ = make_batch(200)
    labels = np.arange(200) % 7
    with torch.no_grad():
        features = network.features(torch.from_numpy(images)).numpy()
    order, drops = release_order(features, labels), {}
    for rate in RATES:
        low, high = round(200 * (0.5 - rate / 2)), round(200 * (0.5 + rate / 2))
        drops[f"{rate}"] = np.sort(np.concatenate([order[:low], order[high:]]))
    np.savez_compressed(GOLDEN / "selection.npz", **drops)


if __name__ == "__main__":
    main()
