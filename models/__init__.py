"""The networks, by name. Each has features(x), (n, d), and construct(x) = classifier(features(x)), (n, k)."""
from collections.abc import Callable
from functools import partial

import utils  # noqa: F401  first: it sets variables that MindSpore reads when it is loaded

# isort: split
import mindspore as ms
from mindspore import nn

from models import efficientnet, googlenet, resnet, senet, shufflenet, vgg
from utils.errors import BadInput

SMALLEST = {"vgg16": 32}  # smallest side in pixels; 8 for the others
# (number of classes, whether images are small) -> network
NETWORKS: dict[str, Callable[[int, bool], nn.Cell]] = {
    "efficientnet": efficientnet.EfficientNetB0,
    "googlenet": googlenet.GoogLeNet,
    "resnet6": partial(resnet.SmallResNet, (32, 64, 128)),
    "resnet7": partial(resnet.SmallResNet, (32, 64, 128, 256)),
    "resnet18": partial(resnet.ResNet, resnet.BasicBlock, (2, 2, 2, 2)),
    "resnet20": resnet.CifarResNet20,
    "resnet34": partial(resnet.ResNet, resnet.BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(resnet.ResNet, resnet.Bottleneck, (3, 4, 6, 3)),
    "senet18": senet.SENet18,
    "shufflenet": shufflenet.ShuffleNetV2,
    "vgg16": vgg.VGG16,
}


def create_model(arch: str, num_classes: int, small_images: bool) -> nn.Cell:
    """A new network, initialized with MindSpore's seed; BadInput if the name is unknown.

    Args:
        small_images: True for the CIFAR variant, for 32x32 images; False for the ImageNet variant, for 64x64
            images or larger. Networks other than ResNets differ at most in the classifier's input.
    """
    if arch not in NETWORKS:
        raise BadInput(f"--arch {arch}: unknown; known are {', '.join(NETWORKS)}")
    return NETWORKS[arch](num_classes, small_images)


def smallest_map(network: nn.Cell, side: int) -> int:
    """Pixels of the smallest map, at most 2, that a batch normalization gets from an image of this side."""
    pixels = [2]
    hooks = [cell.register_forward_pre_hook(lambda _, inputs: pixels.append(inputs[0][0, 0].size))
             for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    network.set_train(False)(ms.ops.zeros((1, 3, side, side), ms.float32))
    for hook in hooks:
        hook.remove()
    return min(pixels)


def check_image_size(arch: str, side: int, option: str = "--arch") -> None:
    """Raise BadInput if a network's poolings would leave no pixel of images of this side, in pixels."""
    if side < SMALLEST.get(arch, 0):
        raise BadInput(f"{option} {arch}: needs images of {SMALLEST[arch]} pixels or more, these have "
                       f"{side}; choose another {option} or --image_size")
