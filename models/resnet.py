"""Residual networks (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016)."""
from itertools import pairwise

import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import HeNormal

from models.layers import ConvBN, Network, classifier


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a projection shortcut where the shape changes."""
    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, width, 3, stride)
        self.conv2 = ConvBN(width, width, 3)
        self.shortcut = shortcut(in_channels, width, stride)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.relu(self.conv2(ops.relu(self.conv1(x))) + self.shortcut(x))


class Bottleneck(nn.Cell):
    """1x1, 3x3 (with the stride), 1x1 with four times the width."""
    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, width, 1)
        self.conv2 = ConvBN(width, width, 3, stride)
        self.conv3 = ConvBN(width, 4 * width, 1)
        self.shortcut = shortcut(in_channels, 4 * width, stride)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = ops.relu(self.conv2(ops.relu(self.conv1(x))))
        return ops.relu(self.conv3(y) + self.shortcut(x))


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Cell:
    """The identity where the shape stays, else a 1x1 projection (He et al.'s option B)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvBN(in_channels, out_channels, 1, stride)


class PaddedShortcut(nn.Cell):
    """Parameter-free shortcut that halves the image and doubles the channels (He et al.'s option A)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.subsample = nn.MaxPool2d(kernel_size=1, stride=2)
        self.channels = channels

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = self.subsample(x)
        # Not ops.pad: on a CPU (MindSpore 2.10) its compiled gradient is wrong from the second call on.
        zeros = ops.zeros((y.shape[0], self.channels // 4, y.shape[2], y.shape[3]), y.dtype)
        return ops.cat((zeros, y, zeros), 1)


class ResNet(Network):
    """Residual network with four stages of widths 64, 128, 256, 512; `depths` are their numbers of blocks.

    The CIFAR variant, for small images, has a 3x3 stem and no max-pooling; the ImageNet variant has a 7x7
    stem of stride 2 and 3x3 max-pooling.
    """

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], num_classes: int,
                 small_images: bool) -> None:
        super().__init__()
        if small_images:
            self.stem = nn.SequentialCell(ConvBN(3, 64, 3), nn.ReLU())
        else:
            self.stem = nn.SequentialCell(ConvBN(3, 64, 7, 2), nn.ReLU(),
                                          nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1))
        channels = 64
        stages = []
        for stage, depth in enumerate(depths):
            width = 64 * 2 ** stage
            first = block(channels, width, stride=2 if stage else 1)
            channels = width * block.expansion
            stages.append(nn.SequentialCell([first, *(block(channels, width, 1) for _ in range(1, depth))]))
        self.stages = nn.SequentialCell(stages)
        # The paper's init on Tiny ImageNet is Kaiming normal over fan in.
        self.classifier = classifier(channels, num_classes, None if small_images else HeNormal())

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """Penultimate activations, (n, 512) or, with bottlenecks, (n, 2048)."""
        return ops.mean(self.stages(self.stem(x)), (2, 3))


class CifarResNet20(Network):
    """He et al.'s 20-layer network for CIFAR: widths 16, 32, 64, three blocks each, 0.27 M parameters."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.stem = nn.SequentialCell(ConvBN(3, 16, 3), nn.ReLU())
        channels = 16
        blocks = []
        for width in (16, 32, 64):
            for _ in range(3):
                block = BasicBlock(channels, width, stride=1 if width == channels else 2)
                if width != channels:
                    block.shortcut = PaddedShortcut(width)
                blocks.append(block)
                channels = width
        self.blocks = nn.SequentialCell(blocks)
        self.classifier = classifier(channels, num_classes)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """Penultimate activations, (n, 64)."""
        return ops.mean(self.blocks(self.stem(x)), (2, 3))


class SmallResNet(Network):
    """A 3x3 convolution of each width, of stride 2 except the first, and a residual block of the last width.

    For comparisons on a CPU: it fits images of 16x16 pixels in few epochs, even with wrong labels
    (docs/results.md). With widths 32, 64, 128 it has 0.4 M parameters and fits 2,000 images; with 256 in
    addition it has 1.6 M and fits 10,000.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.stem = nn.SequentialCell(
            ConvBN(3, widths[0], 3, activation=ops.relu),
            *(ConvBN(before, width, 3, 2, activation=ops.relu) for before, width in pairwise(widths)))
        self.block = BasicBlock(widths[-1], widths[-1], stride=1)
        self.classifier = classifier(widths[-1], num_classes)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """Penultimate activations, (n, the last width)."""
        return ops.mean(self.block(self.stem(x)), (2, 3))
