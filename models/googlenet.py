"""GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015) with batch normalization.

It has one variant for all images, that for CIFAR: a 3x3 stem of stride 1, two max-poolings, two 3x3
convolutions instead of each 5x5, no auxiliary heads and no dropout.
"""
from collections import OrderedDict

import mindspore as ms
from mindspore import nn, ops

from models.layers import ConvBN, Network, classifier, init_uniform, pool

# channels of the 1x1 branch, the 3x3 branch (reduced, out), the 5x5 branch (reduced, out), the pooled branch
BLOCKS: dict[str, tuple[int, int, int, int, int, int] | None] = {
    "a3": (64, 96, 128, 16, 32, 32),
    "b3": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "a4": (192, 96, 208, 16, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "a5": (256, 160, 320, 32, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Cell):
    """Four branches side by side, their channels concatenated."""

    def __init__(self, in_channels: int, one: int, reduced3: int, three: int, reduced5: int, five: int,
                 pooled: int) -> None:
        super().__init__()
        self.b1 = unit(in_channels, one, 1)
        self.b2 = nn.SequentialCell(unit(in_channels, reduced3, 1), unit(reduced3, three, 3))
        self.b3 = nn.SequentialCell(unit(in_channels, reduced5, 1), unit(reduced5, five, 3),
                                    unit(five, five, 3))
        self.b4 = nn.SequentialCell(max_pool(stride=1), unit(in_channels, pooled, 1))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.cat((self.b1(x), self.b2(x), self.b3(x), self.b4(x)), 1)


def unit(in_channels: int, out_channels: int, kernel: int) -> ConvBN:
    return ConvBN(in_channels, out_channels, kernel, bias=True, activation=ops.relu)


def max_pool(stride: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=stride, pad_mode="pad", padding=1)


class GoogLeNet(Network):
    """A stem and nine inception blocks."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.stem = unit(3, 192, 3)
        channels = 192
        blocks: OrderedDict[str, nn.Cell] = OrderedDict()
        for name, widths in BLOCKS.items():
            if widths is None:
                blocks[name] = max_pool(stride=2)
            else:
                blocks[name] = Inception(channels, *widths)
                one, _, three, _, five, pooled = widths
                channels = one + three + five + pooled
        self.blocks = nn.SequentialCell(blocks)
        self.classifier = classifier(channels, num_classes)
        init_uniform(self)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """The last block's average over the image, (n, 1024)."""
        return pool(self.blocks(self.stem(x)))
