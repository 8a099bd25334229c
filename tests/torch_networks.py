"""The networks in PyTorch for the golden files, with the release's parameter names.

ResNets for Tiny ImageNet are torchvision's own. The others are written anew after He et al. (2016), Hu et al.
(2018), Tan and Le (2019), Simonyan and Zisserman (2015), Ma et al. (2018), Szegedy et al. (2015), and the
shapes of the release's state dicts; they need torch alone.
"""
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


def conv(i: int, o: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=bias)


class Unit(nn.Module):
    """Convolutions conv1, conv2, ... with their bn1, bn2, ..."""

    def add(self, number: int, *shape: int, **options: int) -> None:
        self.add_module(f"conv{number}", conv(*shape, **options))
        self.add_module(f"bn{number}", nn.BatchNorm2d(shape[1]))

    def run(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))


class Residual(Unit):
    """A ResNet's block: of three convolutions, the middle one 3x3, or of two."""

    def __init__(self, i: int, width: int, stride: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.count = len(kernels)
        o = width * (4 if self.count == 3 else 1)
        inputs, outputs = (i, width, width), (width, width, o)
        for k, kernel in enumerate(kernels):
            has_stride = k == (1 if self.count == 3 else 0)
            self.add(k + 1, inputs[k], outputs[k] if k + 1 < self.count else o, kernel,
                     stride if has_stride else 1)
        projected = stride > 1 or i != o
        self.shortcut = nn.Sequential(*((conv(i, o, 1, stride), nn.BatchNorm2d(o)) if projected else ()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for k in range(1, self.count):
            y = F.relu(self.run(k, y))
        return F.relu(self.run(self.count, y) + self.shortcut(x))


class Network(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(x))


class ResNet(Network):
    def __init__(self, kernels: tuple[int, ...], depths: tuple[int, ...], classes: int = 100) -> None:
        super().__init__()
        self.add(1, 3, 64, 3)
        i = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for k in range(depth):
                blocks.append(Residual(i, 64 << stage, 2 if stage and not k else 1, kernels))
                i = (64 << stage) * (4 if len(kernels) == 3 else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(i, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(F.relu(self.run(1, x))))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class TorchvisionResNet(nn.Module):
    """torchvision's network in an attribute `base`, where the release keeps it."""

    def __init__(self, arch: str, classes: int = 100) -> None:
        super().__init__()
        from torchvision import models  # here, since no other network needs it
        self.base = getattr(models, arch)(num_classes=classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        *layers, _ = self.base.children()  # all but fc, in the order they run
        return nn.Sequential(*layers)(x).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x)


class PaddedBlock(Unit):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.i, self.o = i, o
        self.add(1, i, o, 3, 1 if i == o else 2)
        self.add(2, o, o, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.run(2, F.relu(self.run(1, x)))
        if self.i != self.o:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.o // 4, self.o // 4))
        return F.relu(y + x)


class ResNet20(Network):
    """Not in the release; names after its other networks."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        self.add(1, 3, 16, 3)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        for stage in range(3):
            self.add_module(f"layer{stage + 1}", nn.Sequential(
                *(PaddedBlock(widths[3 * stage + k], widths[3 * stage + k + 1]) for k in range(3))))
        self.linear = nn.Linear(64, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer3(self.layer2(self.layer1(F.relu(self.run(1, x))))).mean((2, 3))


class PreAct(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, o, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(o), conv(o, o, 3)
        if stride > 1 or i != o:
            self.shortcut = nn.Sequential(conv(i, o, 1, stride))
        self.fc1, self.fc2 = nn.Conv2d(o, o // 16, 1), nn.Conv2d(o // 16, o, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(x))
        if hasattr(self, "shortcut"):
            x = self.shortcut(y)
        y = self.conv2(F.relu(self.bn2(self.conv1(y))))
        return y * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(y, 1))))) + x


class SENet18(Network):
    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        self.add(1, 3, 64, 3)
        i = 64
        for stage in range(4):
            o = 64 << stage
            self.add_module(f"layer{stage + 1}",
                            nn.Sequential(PreAct(i, o, 2 if stage else 1), PreAct(o, o, 1)))
            i = o
        self.linear = nn.Linear(i, classes)

    features = ResNet.features


class Excitation(nn.Module):
    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.se1, self.se2 = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.se2(F.silu(self.se1(F.adaptive_avg_pool2d(x, 1)))))


class MBConv(Unit):
    """conv1 and bn1 are there even where the expansion is 1 and nothing runs them, as in the release."""

    def __init__(self, i: int, o: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.expanded, self.residual = expansion > 1, stride == 1 and i == o
        channels = expansion * i
        self.add(1, i, channels, 1)
        self.add(2, channels, channels, kernel, stride, groups=channels)
        self.se = Excitation(channels, i // 4)
        self.add(3, channels, o, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.silu(self.run(1, x)) if self.expanded else x
        y = self.run(3, self.se(F.silu(self.run(2, y))))
        return x + y if self.residual else y


class EfficientNetB0(Unit):
    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        self.add(1, 3, 32, 3)
        i, blocks = 32, []
        for expansion, o, depth, kernel, stride in (
                (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1),
                (6, 192, 4, 5, 2), (6, 320, 1, 3, 1)):
            for k in range(depth):
                blocks.append(MBConv(i, o, kernel, 1 if k else stride, expansion))
                i = o
        self.layers = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(i, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(self.layers(F.silu(self.run(1, x))), 1).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(self.features(x)))


class VGG16(nn.Module):
    def __init__(self, classes: int = 100, small: bool = True) -> None:
        super().__init__()
        i, layers = 3, []
        for o, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                layers += [conv(i, o, 3, bias=True), nn.BatchNorm2d(o), nn.ReLU()]
                i = o
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Linear(512 if small else 2048, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def shuffled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return torch.cat((x, y), 1).reshape(n, 2, c, h, w).transpose(1, 2).reshape(n, 2 * c, h, w)


class Shuffle(Unit):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.add(1, half, half, 1)
        self.add(2, half, half, 3, groups=half)
        self.add(3, half, half, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, y = x.chunk(2, 1)
        return shuffled(x, F.relu(self.run(3, self.run(2, F.relu(self.run(1, y))))))


class Down(Unit):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        half = o // 2
        self.add(1, i, i, 3, 2, groups=i)
        self.add(2, i, half, 1)
        self.add(3, i, half, 1)
        self.add(4, half, half, 3, 2, groups=half)
        self.add(5, half, half, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return shuffled(F.relu(self.run(2, self.run(1, x))),
                        F.relu(self.run(5, self.run(4, F.relu(self.run(3, x))))))


class ShuffleNetV2(Network):
    def __init__(self, classes: int = 100, small: bool = True) -> None:
        super().__init__()
        self.add(1, 3, 24, 3)
        i = 24
        for stage, (o, depth) in enumerate(((116, 3), (232, 7), (464, 3)), 1):
            self.add_module(f"layer{stage}", nn.Sequential(Down(i, o), *(Shuffle(o) for _ in range(depth))))
            i = o
        self.add(2, i, 1024, 1)
        self.linear = nn.Linear(1024 if small else 4096, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.run(1, x)))))
        return F.avg_pool2d(F.relu(self.run(2, x)), 4).flatten(1)


def chain(*shapes: tuple[int, int, int]) -> list[nn.Module]:
    return [layer for i, o, kernel in shapes
            for layer in (conv(i, o, kernel, bias=True), nn.BatchNorm2d(o), nn.ReLU())]


class Inception(nn.Module):
    def __init__(self, i: int, one: int, reduce3: int, three: int, reduce5: int, five: int,
                 pooled: int) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*chain((i, one, 1)))
        self.b2 = nn.Sequential(*chain((i, reduce3, 1), (reduce3, three, 3)))
        self.b3 = nn.Sequential(*chain((i, reduce5, 1), (reduce5, five, 3), (five, five, 3)))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), *chain((i, pooled, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.b1(x), self.b2(x), self.b3(x), self.b4(x)), 1)


class GoogLeNet(Network):
    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        self.pre_layers = nn.Sequential(*chain((3, 192, 3)))
        self.a3 = Inception(192, 64, 96, 128, 16, 32, 32)
        self.b3 = Inception(256, 128, 128, 192, 32, 96, 64)
        self.a4 = Inception(480, 192, 96, 208, 16, 48, 64)
        self.b4 = Inception(512, 160, 112, 224, 24, 64, 64)
        self.c4 = Inception(512, 128, 128, 256, 24, 64, 64)
        self.d4 = Inception(512, 112, 144, 288, 32, 64, 64)
        self.e4 = Inception(528, 256, 160, 320, 32, 128, 128)
        self.a5 = Inception(832, 256, 160, 320, 32, 128, 128)
        self.b5 = Inception(832, 384, 192, 384, 48, 128, 128)
        self.linear = nn.Linear(1024, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.b3(self.a3(self.pre_layers(x))), 3, 2, 1)
        x = F.max_pool2d(self.e4(self.d4(self.c4(self.b4(self.a4(x))))), 3, 2, 1)
        return self.b5(self.a5(x)).mean((2, 3))


def resnet(arch: str, kernels: tuple[int, ...], depths: tuple[int, ...]) -> Callable[[bool], nn.Module]:
    return lambda small: ResNet(kernels, depths) if small else TorchvisionResNet(arch)


# each: True for the form for 32x32 images, False for that for 64x64 ones; 100 classes
NETWORKS = {
    "efficientnet": lambda small: EfficientNetB0(),
    "googlenet": lambda small: GoogLeNet(),
    "resnet18": resnet("resnet18", (3, 3), (2, 2, 2, 2)),
    "resnet20": lambda small: ResNet20(),
    "resnet34": resnet("resnet34", (3, 3), (3, 4, 6, 3)),
    "resnet50": resnet("resnet50", (1, 3, 1), (3, 4, 6, 3)),
    "senet18": lambda small: SENet18(),
    "shufflenet": lambda small: ShuffleNetV2(small=small),
    "vgg16": lambda small: VGG16(small=small),
}
