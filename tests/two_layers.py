"""Networks for tests that train often: two linear layers compile in a second and take images of any size."""
import mindspore as ms
from mindspore import nn

from models.layers import Dropout, Network, classifier, pool

NAME, WITH_DROPOUT = "two-layers", "two-layers-dropout"
FEATURES = 24


class TwoLayers(Network):
    """What it computes in training follows from its weights alone; ranks train it as one process does."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.hidden = nn.SequentialCell(nn.Dense(3 * 4 * 4, FEATURES), nn.ReLU())
        self.classifier = classifier(FEATURES, num_classes)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        return self.hidden(pool(x, 4))


class WithDropout(TwoLayers):
    """Dropout between the layers draws anew in each step, so that a resumed run has to find its state."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__(num_classes, small_images)
        self.classifier = nn.SequentialCell(Dropout(0.2), self.classifier)


NETWORKS = {NAME: TwoLayers, WITH_DROPOUT: WithDropout}
