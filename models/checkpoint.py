"""Save and load checkpoints, with the state that a resumed run needs."""
import binascii
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train.checkpoint_pb2 import Checkpoint

from models import NETWORKS, create_model
from models.layers import fold_batchnorm
from utils import distributed
from utils.errors import BadInput, one_line
from utils.files import replacing
from utils.runs import read_args

STATE = "resume."  # prefix of the names of a run's state; all others are the network's parameters
CRC_MARK, CRC_BYTES = b"crc_num", 10  # a MindSpore checkpoint ends with the mark and the CRC-32 of the rest
# Files of torch.save begin as a zip or, before PyTorch 1.6, as a pickle of its magic number.
TORCH_STARTS = (b"PK", b"\x80\x02\x8a\x0a" + 0x1950a86a20f9469cfc6c.to_bytes(10, "little"))


@distributed.on_first
def save_checkpoint(network: nn.Cell, path: Path, state: dict[str, ms.Tensor] | None = None) -> None:
    """Write a network's parameters and `state`, by name, as a MindSpore checkpoint with any file name."""
    extra = {STATE + name: value for name, value in (state or {}).items()}
    with replacing(path) as temporary:
        # mindspore.save_checkpoint insists on the suffix.
        named = temporary.with_name(temporary.name + ".ckpt")
        logging.disable()  # MindSpore logs what it raises
        try:
            ms.save_checkpoint(network, str(named), crc_check=True, append_dict=extra)
            temporary.touch()
            shutil.copymode(temporary, named)  # by the umask; MindSpore sets 0400
            os.replace(named, temporary)
        except RuntimeError as error:
            raise BadInput(f"{path}: cannot be written ({one_line(error)})") from error
        finally:
            logging.disable(logging.NOTSET)
            for leftover in (named, named.with_suffix(".tmp")):
                leftover.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The network's parameters in a checkpoint, by name, without the run's state."""
    return load_state(path)[0]


def load_state(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The network's parameters in a checkpoint and the run's state, both by name, as read-only arrays.

    mindspore.load_checkpoint is not used: if a file gives a tensor more bytes than its shape has room for, it
    writes beyond the tensor's memory. Raises BadInput if the file is damaged or has another format.
    """
    content = path.read_bytes()
    if content.startswith(TORCH_STARTS) or is_safetensors(content):
        raise BadInput(f"{path}: a PyTorch checkpoint; convert it with python -m models.convert_torch {path} "
                       "NEW.pth --arch ARCH --dataset DATASET")
    try:
        mark = len(content) - len(CRC_MARK) - CRC_BYTES
        if content[mark:-CRC_BYTES] == CRC_MARK:
            crc = int.from_bytes(content[-CRC_BYTES:], "big")
            content = content[:mark]
            if binascii.crc32(content) != crc:
                raise ValueError("the checksum differs")
        parts: dict[str, list[Any]] = {}
        for value in Checkpoint.FromString(content).value:
            parts.setdefault(value.tag, []).append(value.tensor)
        if not parts:
            raise ValueError("it holds no parameters")
        values = {name: _tensor(tensors) for name, tensors in parts.items()}
    except Exception as error:
        raise BadInput(f"{path}: not an intact MindSpore checkpoint ({one_line(error)}); train it again or "
                       "choose another") from error
    weights = {name: value for name, value in values.items() if not name.startswith(STATE)}
    return weights, {name.removeprefix(STATE): value
                     for name, value in values.items() if name not in weights}


def is_safetensors(content: bytes) -> bool:
    """Whether a file begins like one of safetensors: with the length of a JSON object, then this object."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content)


def _tensor(parts: list[Any]) -> np.ndarray:
    """An array from a checkpoint's fields: a large one is stored in parts; a scalar has shape [] or [0]."""
    dtype, shape = parts[-1].tensor_type.lower(), list(parts[-1].dims)
    if not re.fullmatch("bool|u?int(8|16|32|64)|float(16|32|64)", dtype):
        raise ValueError(f"tensors of type {dtype!r} are not allowed")
    content = b"".join(part.tensor_content for part in parts)
    return np.frombuffer(content, dtype).reshape([] if shape == [0] else shape)


def load_weights(network: nn.Cell, weights: dict[str, np.ndarray], path: str, arch: str) -> None:
    """Put a checkpoint's weights into a network; BadInput, with `path` and `arch`, if they do not fit."""
    parameters = dict(network.parameters_and_names())
    for name, parameter in parameters.items():
        value = weights.get(name)
        if value is None or value.shape != parameter.shape:
            if value is not None and name.startswith("classifier.") and (
                    value.shape[1:] == parameter.shape[1:]):
                raise BadInput(f"{path}: trained for {len(value)} classes, but the data set has "
                               f"{len(parameter)}; choose a checkpoint of this data set")
            raise BadInput(f"{path}: not a checkpoint of {arch} ({name} is missing or has another shape); "
                           "choose another --arch or --ckpt")
        if not np.isfinite(value).all():
            raise BadInput(f"{path}: {name} holds numbers that are not finite; train it again or choose "
                           "another --ckpt")
    if extra := weights.keys() - parameters.keys():
        raise BadInput(f"{path}: not a checkpoint of {arch} ({min(extra)} is not a part of it); choose "
                       "another --arch or --ckpt")
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(weights[name], parameter.dtype))


def load_network(arch: str, checkpoint: Path, num_classes: int, small_images: bool,
                 features_only: bool = False) -> nn.Cell:
    """A trained network for inference, without its last layer if `features_only`.

    Its batch normalizations are folded into its convolutions.
    """
    network = create_model(arch, num_classes, small_images)
    if features_only:
        network.classifier = nn.Identity()
    load_weights(network, load_checkpoint(checkpoint), str(checkpoint), arch)
    fold_batchnorm(network)
    return network


def load_pretrained(network: nn.Cell, path: Path, arch: str) -> None:
    """Put a checkpoint's weights into a new network, except a classifier that does not fit; print which."""
    weights = load_checkpoint(path)
    initial = {name: parameter.asnumpy() for name, parameter in network.parameters_and_names()}
    new = {name: value for name, value in initial.items() if name.startswith("classifier.")}
    if all(name in weights and weights[name].shape == value.shape for name, value in new.items()):
        new = {}
    load_weights(network, weights | new, str(path), arch)
    layers = dict.fromkeys(name.partition(".")[0] for name in initial if name not in new)
    print(f"{path}: took the weights of {', '.join(layers)}{'; the classifier is new' if new else ''}")


def save_run(path: Path, network: nn.Cell, state: list[ms.Parameter], finished: int, best: float) -> None:
    """Write what a run is resumed from, with the number of finished epochs and the best accuracy in percent.

    `state` holds the parameters of the optimizer and the loss scale. There is no random state, because order
    and transforms of an epoch depend only on --seed and the epoch's number.
    """
    save_checkpoint(network, path, {
        "epoch": ms.Tensor(finished, ms.int64), "best": ms.Tensor(best, ms.float64),
        **{f"optimizer.{parameter.name}": parameter.value() for parameter in state}})


def load_run(path: Path, network: nn.Cell, state: list[ms.Parameter]) -> tuple[int, float]:
    """Put what save_run wrote into a network and `state`; return finished epochs and best accuracy."""
    weights, stored = load_state(path)
    load_weights(network, weights, str(path), type(network).__name__)
    try:
        for parameter in state:
            value = stored[f"optimizer.{parameter.name}"]
            if value.shape != parameter.shape:
                raise ValueError(f"{parameter.name} has another shape")
            parameter.set_data(ms.Tensor(value, parameter.dtype))
        return int(stored["epoch"]), float(stored["best"])
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: holds no state to resume from ({error}); start again without "
                       "--resume") from error


def optimizer_state(optimizer: nn.SGD) -> list[ms.Parameter]:
    """The optimizer's own parameters: momentum, step count, learning rate."""
    trained = {parameter.name for parameter in optimizer.parameters}
    return [parameter for parameter in optimizer.get_parameters() if parameter.name not in trained]


def find_arch(arch: str | None, checkpoint: Path) -> str:
    """A checkpoint's network: `arch`, else the one in args.json beside it, else the release's, resnet50."""
    recorded = read_args(checkpoint.parent).get("arch")
    return arch or (recorded if recorded in NETWORKS else "resnet50")
