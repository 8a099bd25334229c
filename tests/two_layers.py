"""A network for tests that train often: two linear layers compile in a second and take images of any size."""
import mindspore as ms
from mindspore import nn

from models.layers import Dropout, classifier, pool

NAME = "two-layers"
FEATURES = 24


class TwoLayers(nn.Cell):
    """Dropout between the layers draws anew in each step, so that a resumed run has to find its state."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.hidden = nn.SequentialCell(nn.Dense(3 * 4 * 4, FEATURES), nn.ReLU())
        self.classifier = nn.SequentialCell(Dropout(0.2), classifier(FEATURES, num_classes))

    def features(self, x: ms.Tensor) -> ms.Tensor:
        return self.hidden(pool(x, 4))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.classifier(self.features(x))
