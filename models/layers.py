"""Layers that several networks use."""
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.common.initializer import HeNormal, Initializer, Uniform, initializer

RANK_SHIFT = 0x9e3779b9  # 2**32 over the golden ratio: multiples of it lie far apart, modulo 2**32


class Network(nn.Cell):
    """A network: `features` maps images to (n, d), and a classifier maps these to logits, (n, classes)."""
    classifier: nn.Cell
    features: Callable[[ms.Tensor], ms.Tensor]

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.classifier(self.features(x))


class ConvBN(nn.Cell):
    """Convolution, batch normalization and, if given, an activation: (n, in, h, w) to (n, out, h', w').

    The images are padded by kernel // 2 on each side. Weights are initialized as in the paper's release for
    ResNets: Kaiming normal over fan out for ReLU; scale 1, shift 0. Other ways to compute depthwise
    convolutions (groups = in_channels) on a CPU are slower: docs/speed.md.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1,
                 bias: bool = False, activation: Callable[[ms.Tensor], ms.Tensor] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, pad_mode="pad", padding=kernel // 2,
                              group=groups, has_bias=bias, bias_init="zeros",
                              weight_init=HeNormal(mode="fan_out", nonlinearity="relu"))
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        x = self.bn(self.conv(x))
        return x if self.activation is None else self.activation(x)

    def fold(self) -> None:
        """Merge the batch normalization into the convolution: the same output in evaluation mode.

        gamma * (w x + b - mean) / sqrt(var + eps) + beta  =  (w s) x + (b - mean) s + beta,
        with s = gamma / sqrt(var + eps).
        """
        conv, bn = self.conv, self.bn
        scale = bn.gamma.asnumpy() / np.sqrt(bn.moving_variance.asnumpy() + np.float32(bn.eps))
        bias = conv.bias.asnumpy() if conv.has_bias else np.float32(0)
        bias = (bias - bn.moving_mean.asnumpy()) * scale + bn.beta.asnumpy()
        conv.weight.set_data(ms.Tensor(conv.weight.asnumpy() * scale[:, None, None, None]))
        conv.bias = ms.Parameter(ms.Tensor(bias), name=bn.beta.name + "_folded")
        conv.has_bias = True
        self.bn = nn.Identity()


def fold_batchnorm(network: nn.Cell) -> None:
    """Fold every ConvBN of a network in place, for faster inference; afterwards it cannot be trained."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, ConvBN):
            cell.fold()
    network.set_train(False)


class SqueezeExcite(nn.Cell):
    """Scale each channel by a number in (0, 1), which two linear layers compute from all channels' means."""

    def __init__(self, channels: int, reduced: int, activation: Callable[[ms.Tensor], ms.Tensor]) -> None:
        super().__init__()
        self.reduce = nn.Dense(channels, reduced)
        self.expand = nn.Dense(reduced, channels)
        self.activation = activation

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        scale = ops.sigmoid(self.expand(self.activation(self.reduce(pool(x)))))
        return x * scale.reshape(x.shape[0], x.shape[1], 1, 1)


class Dropout(nn.Cell):
    """Dropout whose random state is a parameter, so that checkpoints hold it: (n, d) to (n, d).

    MindSpore's own generators have a state that no checkpoint holds, so a resumed run would draw other masks.
    Here the mask is a hash of each value's position and of `state`, to which each training step adds 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        # mindspore.set_seed seeds NumPy's global generator.
        self.state = ms.Parameter(ms.Tensor([np.random.randint(2 ** 31)], ms.int32), requires_grad=False)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if not self.training:
            return x
        state = self.state + 1
        ops.assign(self.state, state)
        position = ops.arange(0, x.size, dtype=ms.int32)
        keep = scramble(scramble(position) ^ scramble(state)) >= int(self.rate * 2 ** 31)
        return x * keep.reshape(x.shape).astype(x.dtype) / (1 - self.rate)


def shift_dropout(network: nn.Cell, rank: int) -> None:
    """Shift the state of each Dropout, so that every rank draws its own masks.

    Call it after loading weights: checkpoints hold rank 0's state, which is not shifted.
    """
    shift = np.array([rank * RANK_SHIFT % 2 ** 32], np.uint32).view(np.int32)
    for _, cell in network.cells_and_names():
        if isinstance(cell, Dropout):
            cell.state.set_data(ms.Tensor(cell.state.asnumpy() + shift))


def scramble(x: ms.Tensor) -> ms.Tensor:
    """A hash of int32 values, uniform on 0 to 2**31 - 1: "lowbias32" by C. Wellons.

    https://nullprogram.com/blog/2018/07/31/
    """
    x = (x ^ shift_right(x, 16)) * 0x7feb352d
    x = (x ^ shift_right(x, 15)) * (0x846ca68b - 2 ** 32)
    return (x ^ shift_right(x, 16)) & 0x7fffffff


def shift_right(x: ms.Tensor, bits: int) -> ms.Tensor:
    """Logical right shift of int32 values."""
    return ops.bitwise_and(ops.bitwise_right_shift(x, ms.Tensor(bits, ms.int32)), 2 ** (32 - bits) - 1)


def pool(x: ms.Tensor, side: int = 1) -> ms.Tensor:
    """Average an image over side x side cells and flatten: (n, c, h, w) to (n, c * side * side).

    Cells overlap by a pixel if h or w is not a multiple of `side`, as in PyTorch's adaptive pooling. Computed
    by ops.mean, since oneDNN's pooling of plain layouts is a slow reference loop.
    """
    if side == 1:
        return ops.mean(x, (2, 3))
    n, c, h, w = x.shape
    if h % side or w % side:
        x = ops.stack([ops.mean(x[:, :, i * h // side:-(-(i + 1) * h // side)], 2) for i in range(side)], 2)
        x = ops.stack([ops.mean(x[..., i * w // side:-(-(i + 1) * w // side)], 3) for i in range(side)], 3)
        return x.reshape(n, -1)
    return ops.mean(x.reshape(n, c, side, h // side, side, w // side), (3, 5)).reshape(n, -1)


def init_uniform(network: nn.Cell) -> None:
    """PyTorch's default initialization of convolutions and linear layers: uniform within 1 / sqrt(fan in)."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            bound = np.prod(cell.weight.shape[1:]) ** -0.5
            for parameter in cell.trainable_params():
                parameter.set_data(initializer(Uniform(bound), parameter.shape, parameter.dtype))


def classifier(features: int, num_classes: int, init: Initializer | None = None) -> nn.Dense:
    """The last linear layer, initialized as in PyTorch; `init`, if given, draws the weights."""
    bound = features ** -0.5
    return nn.Dense(features, num_classes, weight_init=init or Uniform(bound), bias_init=Uniform(bound))
