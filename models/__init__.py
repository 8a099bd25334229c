"""The networks, by name. Each has features(x), (n, d), and construct(x): classifier(features(x)), (n, k)."""
from utils.files import BadInput  # first: utils sets what MindSpore reads when it is loaded
from mindspore import nn

from models import efficientnet, googlenet, resnet, senet, shufflenet, vgg

SMALLEST = {"vgg16": 32}  # side in pixels that a network needs; of others 8 is enough
NETWORKS = {
    "efficientnet": efficientnet.efficientnet,
    "googlenet": googlenet.googlenet,
    "resnet6": resnet.resnet6,
    "resnet18": resnet.resnet18,
    "resnet20": resnet.resnet20,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "senet18": senet.senet18,
    "shufflenet": shufflenet.shufflenet,
    "vgg16": vgg.vgg16,
}


def create_model(arch: str, num_classes: int, small_images: bool) -> nn.Cell:
    """A new network, its weights drawn from MindSpore's seed.

    Args:
        small_images: True for the CIFAR variant, for 32x32 images; False for the ImageNet variant, for 64x64
            ones (Tiny ImageNet). Networks other than ResNets differ at most in the classifier's inputs.

    Raises:
        BadInput: no such network.
    """
    if arch not in NETWORKS:
        raise BadInput(f"--arch {arch}: unknown; known are {', '.join(NETWORKS)}")
    return NETWORKS[arch](num_classes, small_images)


def check_image_size(arch: str, side: int) -> None:
    """Make sure that a network can take images of that side, in pixels.

    Raises:
        BadInput: its poolings would leave nothing of them.
    """
    if side < SMALLEST.get(arch, 0):
        raise BadInput(f"--arch {arch}: needs images of {SMALLEST[arch]} pixels or more, these have {side}; "
                       "name another --arch or --image_size")
