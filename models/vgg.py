"""VGG-16 with batch normalization (Simonyan, Zisserman, ICLR 2015), as in the paper's release.

It has one linear layer after the convolutions, not three as for ImageNet.
"""
import mindspore as ms
from mindspore import nn, ops

from models.layers import ConvBN, Network, classifier, init_uniform, pool

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # a max-pooling after each


class VGG16(Network):
    """Thirteen 3x3 convolutions, pooling to 1x1 pixel for small images or else 2x2, and a linear layer."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.side = 1 if small_images else 2
        channels = 3
        layers = []
        for stage in STAGES:
            for width in stage:
                layers.append(ConvBN(channels, width, 3, bias=True, activation=ops.relu))
                channels = width
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.layers = nn.SequentialCell(layers)
        self.classifier = classifier(channels * self.side ** 2, num_classes)
        init_uniform(self)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """The last max-pooling's output, (n, 512) for small images, (n, 2048) for others."""
        return pool(self.layers(x), self.side)
