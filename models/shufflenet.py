"""ShuffleNet V2 x1 (Ma, Zhang, Zheng, Sun, ECCV 2018), as in the paper's release.

It has one variant for all images, that for CIFAR: a 3x3 stem of stride 1 and no max-pooling.
"""
import mindspore as ms
from mindspore import nn, ops

from models.layers import ConvBN, Network, classifier, init_uniform, pool

STAGES = ((116, 4), (232, 8), (464, 4))  # channels, blocks; the first block halves the image
HEAD = 1024


class ShuffleBlock(nn.Cell):
    """Half of the channels stay unchanged, half go through 1x1, depthwise 3x3 and 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvBN(half, half, 1, activation=ops.relu)
        self.conv2 = ConvBN(half, half, 3, groups=half)
        self.conv3 = ConvBN(half, half, 1, activation=ops.relu)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        passed, x = ops.chunk(x, 2, 1)
        return interleave(passed, self.conv3(self.conv2(self.conv1(x))))


class DownBlock(nn.Cell):
    """Two branches on all channels, each of stride 2: (n, in, h, w) to (n, out, h / 2, w / 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = ConvBN(in_channels, in_channels, 3, 2, groups=in_channels)
        self.conv2 = ConvBN(in_channels, half, 1, activation=ops.relu)
        self.conv3 = ConvBN(in_channels, half, 1, activation=ops.relu)
        self.conv4 = ConvBN(half, half, 3, 2, groups=half)
        self.conv5 = ConvBN(half, half, 1, activation=ops.relu)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return interleave(self.conv2(self.conv1(x)), self.conv5(self.conv4(self.conv3(x))))


def interleave(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
    """Alternating channels of x and y, i.e. the shuffle of their concatenation, (n, 2c, h, w)."""
    n, c, h, w = x.shape
    return ops.stack((x, y), 2).reshape(n, 2 * c, h, w)


class ShuffleNetV2(Network):
    """A stem, three stages of 4, 8 and 4 blocks, and a 1x1 convolution to 1024 channels."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.side = 1 if small_images else 2
        self.stem = ConvBN(3, 24, 3, activation=ops.relu)
        channels = 24
        stages = []
        for width, depth in STAGES:
            rest = [ShuffleBlock(width) for _ in range(depth - 1)]
            stages.append(nn.SequentialCell([DownBlock(channels, width), *rest]))
            channels = width
        self.stages = nn.SequentialCell(stages)
        self.head = ConvBN(channels, HEAD, 1, activation=ops.relu)
        self.classifier = classifier(HEAD * self.side ** 2, num_classes)
        init_uniform(self)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """The last convolution's output, averaged to 1x1 pixel, (n, 1024), or to 2x2, (n, 4096)."""
        return pool(self.head(self.stages(self.stem(x))), self.side)
