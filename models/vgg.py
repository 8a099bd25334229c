"""VGG-16 with batch normalization (Simonyan, Zisserman, ICLR 2015), as in the paper's release.

This is the CIFAR variant: one linear layer after the convolutions instead of ImageNet's three.
"""
import mindspore as ms
from mindspore import nn, ops

from models.layers import ConvBN, Network, classifier, init_uniform, pool

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # a max-pooling after each


class VGG16(Network):
    """Thirteen 3x3 convolutions and a linear layer.

    They leave 1x1 pixels of small images, 32x32, and 2x2 of others, 64x64; other sizes are pooled to that.
    """

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
