"""Layers that the networks share: convolution with batch normalisation, and its folding for inference."""
import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.common.initializer import HeNormal, Uniform


class ConvBN(nn.Cell):
    """Convolution followed by batch normalisation: (n, in, h, w) to (n, out, h', w').

    Weights start as in the paper's release: Kaiming normal over fan out for ReLU; scale 1, shift 0.

    Args:
        padding: pixels on each side; None for "same" at stride 1, i.e. kernel // 2.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1,
                 padding: int | None = None, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, pad_mode="pad",
                              padding=kernel // 2 if padding is None else padding, group=groups, has_bias=bias,
                              weight_init=HeNormal(mode="fan_out", nonlinearity="relu"), bias_init="zeros")
        self.bn = nn.BatchNorm2d(out_channels)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.bn(self.conv(x))

    def fold(self) -> None:
        """Put the batch normalisation's running statistics into the convolution: same output in evaluation.

        gamma * (w x + b - mean) / sqrt(var + eps) + beta  =  (w s) x + (b - mean) s + beta,
        with s = gamma / sqrt(var + eps).
        """
        conv, bn = self.conv, self.bn
        scale = bn.gamma.asnumpy() / np.sqrt(bn.moving_variance.asnumpy() + np.float32(bn.eps))
        bias = conv.bias.asnumpy() if conv.has_bias else np.float32(0)
        bias = (bias - bn.moving_mean.asnumpy()) * scale + bn.beta.asnumpy()
        conv.weight.set_data(ms.Tensor(conv.weight.asnumpy() * scale[:, None, None, None]))
        conv.has_bias = False
        name = bn.beta.name + "_folded"
        self.bn = Bias(bias)
        self.bn.bias.name = name  # adding a cell renames its parameters; two equal names do not compile


class Bias(nn.Cell):
    """Add one number to each channel of (n, c, h, w)."""

    def __init__(self, bias: np.ndarray) -> None:
        super().__init__()
        self.bias = ms.Parameter(ms.Tensor(bias))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.bias_add(x, self.bias)


def fold_batchnorm(network: nn.Cell) -> None:
    """Fold every ConvBN of a network, in place, for faster inference. The network cannot be trained after it."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, ConvBN):
            cell.fold()
    network.set_train(False)


def classifier(features: int, num_classes: int) -> nn.Dense:
    """The last linear layer, with PyTorch's default start: uniform within 1 / sqrt(features)."""
    bound = features ** -0.5
    return nn.Dense(features, num_classes, weight_init=Uniform(bound), bias_init=Uniform(bound))
