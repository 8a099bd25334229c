"""A small network for comparisons on a CPU: three convolutions and a hidden linear layer, 0.64 M parameters."""
import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import HeNormal

from models.layers import ConvBN, classifier, pool

SIDE = 4  # of the image that the linear layer takes
WIDTHS = (32, 64, 128)
HIDDEN = 256


class ConvNet(nn.Cell):
    """3x3 convolutions of 32, 64 and 128 channels, the last two of stride 2, and a linear layer of 256.

    The linear layer sees each place of the last image, 4x4 at 16x16 pixels. It fits wrong labels in fewer
    epochs than one more convolution of stride 2 does, and faster: where a convolution leaves 2x2 pixels,
    oneDNN multiplies four columns an image at a time.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        cells, channels = [], 3
        for width in WIDTHS:
            cells.append(ConvBN(channels, width, 3, stride=1 if channels == 3 else 2, activation=ops.relu))
            channels = width
        self.convolutions = nn.SequentialCell(cells)
        self.hidden = nn.SequentialCell(nn.Dense(channels * SIDE * SIDE, HIDDEN, weight_init=HeNormal()),
                                        nn.BatchNorm1d(HIDDEN), nn.ReLU())
        self.classifier = classifier(HIDDEN, num_classes)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        """Activations of the linear layer, (n, 256)."""
        return self.hidden(pool(self.convolutions(x), SIDE))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.classifier(self.features(x))


def convnet(num_classes: int, small_images: bool) -> ConvNet:
    return ConvNet(num_classes)
