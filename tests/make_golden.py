"""Write tests/golden/*.npz with PyTorch: `python tests/make_golden.py` in an environment that has torch.

The networks are written anew here after He et al. (2016), with the names of models/, and not imported from there.
"""
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from weights import make_batch, make_weight, sample

GOLDEN = Path(__file__).resolve().parent / "golden"
RATES = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


class ConvBN(nn.Module):
    def __init__(self, i, o, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return self.bn(self.conv(x))


class Basic(nn.Module):
    expansion = 1

    def __init__(self, i, width, stride, padded=False):
        super().__init__()
        self.conv1, self.conv2 = ConvBN(i, width, 3, stride), ConvBN(width, width, 3)
        self.padded = padded and i != width
        self.shortcut = nn.Identity() if i == width or padded else ConvBN(i, width, 1, stride)

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x)))
        if self.padded:
            quarter = y.shape[1] // 4
            return F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter)))
        return F.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, i, width, stride):
        super().__init__()
        self.conv1, self.conv2 = ConvBN(i, width, 1), ConvBN(width, width, 3, stride)
        self.conv3 = ConvBN(width, 4 * width, 1)
        self.shortcut = nn.Identity() if i == 4 * width else ConvBN(i, 4 * width, 1, stride)

    def forward(self, x):
        return F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, block, depths):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 64, 3), nn.ReLU())
        channels, stages = 64, []
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                blocks.append(block(channels, 64 * 2 ** stage, 2 if stage and not i else 1))
                channels = 64 * 2 ** stage * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, 100)

    def features(self, x):
        return F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1)

    def forward(self, x):
        return self.classifier(self.features(x))


class ResNet20(ResNet):
    def __init__(self):
        nn.Module.__init__(self)
        self.stem = nn.Sequential(ConvBN(3, 16, 3), nn.ReLU())
        channels, blocks = 16, []
        for width in (16, 32, 64):
            for _ in range(3):
                blocks.append(Basic(channels, width, 1 if width == channels else 2, padded=True))
                channels = width
        self.blocks = self.stages = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, 100)


NETWORKS = {"resnet20": ResNet20, "resnet18": lambda: ResNet(Basic, (2, 2, 2, 2)),
            "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3))}


def golden_network(arch: str) -> dict[str, np.ndarray]:
    network = NETWORKS[arch]()
    state = network.state_dict()
    for name, value in state.items():
        if value.ndim:
            value.copy_(torch.from_numpy(make_weight(name.replace("stages.", "blocks.") if arch == "resnet20"
                                                     else name, tuple(value.shape))))
    images, labels = make_batch(16)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
    network.eval()
    with torch.no_grad():
        result = {"logits": network(x).numpy(), "features": network.features(x).numpy()}
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    loss = F.cross_entropy(network(x), y)
    loss.backward()
    optimizer.step()
    result["loss"] = loss.detach().numpy()
    for name, value in network.state_dict().items():
        if value.ndim and not (arch == "resnet20" and name.startswith("stages.")):
            result["step:" + name] = sample(value.numpy())
            result["size:" + name] = np.abs(value.numpy()).max()
    return result


def release_order(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ids by distance to the coordinate-wise median, as the notes give the release's formula."""
    centres = {c: np.median(features[labels == c], axis=0) for c in np.unique(labels)}
    distance = np.array([np.linalg.norm(f.astype(float) - centres[c]) for f, c in zip(features, labels)])
    return np.argsort(distance, kind="stable")


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for arch in NETWORKS:
        np.savez_compressed(GOLDEN / f"{arch}.npz", **golden_network(arch))
    network = NETWORKS["resnet20"]().eval()
    for name, value in network.state_dict().items():
        if value.ndim:
            value.copy_(torch.from_numpy(make_weight(name.replace("stages.", "blocks."), tuple(value.shape))))
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
