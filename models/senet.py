"""SENet-18 (Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018), as in the paper's release.

It has pre-activation blocks (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016) and one
variant for all images: a 3x3 stem of stride 1 and adaptive pooling.
"""
import mindspore as ms
from mindspore import nn, ops

from models.layers import ConvBN, Network, SqueezeExcite, classifier, init_uniform, pool


class PreActBlock(nn.Cell):
    """Normalize, activate before both 3x3 convolutions, then excite; (n, in, h, w) to (n, width, h', w')."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = ConvBN(in_channels, width, 3, stride, activation=ops.relu)
        self.conv2 = nn.Conv2d(width, width, 3, pad_mode="pad", padding=1)
        self.excite = SqueezeExcite(width, width // 16, ops.relu)
        self.shortcut = None
        if stride > 1 or in_channels != width:
            self.shortcut = nn.Conv2d(in_channels, width, 1, stride, pad_mode="pad")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = ops.relu(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        return self.excite(self.conv2(self.conv1(y))) + x


class SENet18(Network):
    """Four stages of two blocks each, of widths 64, 128, 256, 512."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.stem = ConvBN(3, 64, 3, activation=ops.relu)
        channels = 64
        stages = []
        for width in (64, 128, 256, 512):
            stages.append(nn.SequentialCell(PreActBlock(channels, width, stride=1 if width == 64 else 2),
                                            PreActBlock(width, width, stride=1)))
            channels = width
        self.stages = nn.SequentialCell(stages)
        self.classifier = classifier(channels, num_classes)
        init_uniform(self)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """The last stage's average over the image, (n, 512)."""
        return pool(self.stages(self.stem(x)))
