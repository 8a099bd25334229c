"""The networks, by name. Each has features(x), (n, d), and construct(x): classifier(features(x)), (n, k)."""
# First, for python -m models.convert_torch: it sets what MindSpore reads when it is loaded.
import runtime  # noqa: F401
import mindspore as ms
import numpy as np

from files import BadInput
from models import efficientnet, googlenet, resnet, senet, shufflenet, vgg

NETWORKS = {
    "efficientnet": efficientnet.efficientnet,
    "googlenet": googlenet.googlenet,
    "resnet18": resnet.resnet18,
    "resnet20": resnet.resnet20,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "senet18": senet.senet18,
    "shufflenet": shufflenet.shufflenet,
    "vgg16": vgg.vgg16,
}


def create_model(arch: str, num_classes: int, small_images: bool) -> ms.nn.Cell:
    """A new network, its weights drawn from MindSpore's seed.

    Args:
        small_images: True for the form for 32x32 images (CIFAR), False for that for 64x64 ones (Tiny
            ImageNet). Of ResNets the latter is the ImageNet form; the other networks differ at most in the
            classifier's inputs.

    Raises:
        BadInput: no such network.
    """
    if arch not in NETWORKS:
        raise BadInput(f"--arch {arch}: unknown; known are {', '.join(NETWORKS)}")
    return NETWORKS[arch](num_classes, small_images)


def load_weights(network: ms.nn.Cell, weights: dict[str, np.ndarray], path: str, arch: str) -> None:
    """Put a checkpoint's weights into a network.

    Args:
        path, arch: named in the error.

    Raises:
        BadInput: they belong to another network or to another number of classes, or are not finite numbers.
    """
    own = dict(network.parameters_and_names())
    for name, parameter in own.items():
        if name not in weights or weights[name].shape != parameter.shape:
            if name.startswith("classifier.") and weights.get(name) is not None and (
                    weights[name].shape[1:] == parameter.shape[1:]):
                raise BadInput(f"{path}: trained for {len(weights[name])} classes, the data set has "
                               f"{len(parameter)}; name a checkpoint of this data set")
            raise BadInput(f"{path}: not a checkpoint of {arch} ({name} is missing or has another shape); "
                           "name another --arch or --ckpt")
    extra = weights.keys() - own.keys()
    if extra:
        raise BadInput(f"{path}: not a checkpoint of {arch} ({min(extra)} is not a part of it); "
                       "name another --arch or --ckpt")
    for name in own:
        if not np.isfinite(weights[name]).all():
            raise BadInput(f"{path}: {name} holds numbers that are not finite; train it again or name "
                           "another --ckpt")
    for name, parameter in own.items():
        parameter.set_data(ms.Tensor(weights[name], parameter.dtype))
