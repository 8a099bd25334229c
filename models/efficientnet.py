"""EfficientNet-B0 (Tan, Le, "EfficientNet: Rethinking Model Scaling", ICML 2019), as in the paper's release.

It has one variant for all images, that for CIFAR: stem and first stage have stride 1, and there is no 1x1
convolution before the pooling. There is no stochastic depth, whose rate is 0 in the release.
"""
import mindspore as ms
from mindspore import nn, ops

from models.layers import ConvBN, Dropout, Network, SqueezeExcite, classifier, init_uniform, pool

# expansion, channels, blocks, kernel, stride of the first block
STAGES = ((1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1),
          (6, 192, 4, 5, 2), (6, 320, 1, 3, 1))
DROPOUT = 0.2


class MBConv(nn.Cell):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, excitation, 1x1 projection."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        channels = expansion * in_channels
        self.conv1 = (nn.Identity() if expansion == 1
                      else ConvBN(in_channels, channels, 1, activation=ops.silu))
        self.conv2 = ConvBN(channels, channels, kernel, stride, groups=channels, activation=ops.silu)
        self.excite = SqueezeExcite(channels, in_channels // 4, ops.silu)
        self.conv3 = ConvBN(channels, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = self.conv3(self.excite(self.conv2(self.conv1(x))))
        return x + y if self.residual else y


class EfficientNetB0(Network):
    """A stem, sixteen inverted bottlenecks, and dropout before the last linear layer."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.stem = ConvBN(3, 32, 3, activation=ops.silu)
        channels = 32
        blocks = []
        for expansion, width, depth, kernel, stride in STAGES:
            for i in range(depth):
                blocks.append(MBConv(channels, width, kernel, 1 if i else stride, expansion))
                channels = width
        self.blocks = nn.SequentialCell(blocks)
        self.classifier = nn.SequentialCell(Dropout(DROPOUT), classifier(channels, num_classes))
        init_uniform(self)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """The last block's average over the image, (n, 320), before the dropout."""
        return pool(self.blocks(self.stem(x)))
