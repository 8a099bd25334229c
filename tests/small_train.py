"""train.py with one more network, for tests that start it often: two linear layers compile in a second.

Dropout between them draws anew in each step, so that a resumed run has to find its random state. Run with the
project's folder in PYTHONPATH.
"""
import runtime  # first, as in train.py
import mindspore as ms
from mindspore import nn

import train
from models import NETWORKS
from models.layers import Dropout, classifier


class TwoLayers(nn.Cell):
    """Large enough that writing a checkpoint takes a while."""

    def __init__(self, num_classes: int, small_images: bool) -> None:
        super().__init__()
        self.hidden = nn.SequentialCell(nn.Flatten(), nn.Dense(3072, 300), nn.ReLU())
        self.classifier = nn.SequentialCell(Dropout(0.2), classifier(300, num_classes))

    def features(self, x: ms.Tensor) -> ms.Tensor:
        return self.hidden(x)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.classifier(self.features(x))


if __name__ == "__main__":
    NETWORKS["two-layers"] = TwoLayers
    runtime.run_script(train.main)
