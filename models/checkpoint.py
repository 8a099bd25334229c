"""Checkpoints: written, read, put into a network; with what a resumed run needs."""
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

STATE = "resume."  # begins the names of what a checkpoint holds beside the network's own parameters
CRC_MARK, CRC_BYTES = b"crc_num", 10  # end a MindSpore checkpoint: the mark, then the CRC-32 of all before it
# How files of torch.save begin: a zip, or, before PyTorch 1.6, a pickle of its magic number.
TORCH_STARTS = (b"PK", b"\x80\x02\x8a\x0a" + 0x1950a86a20f9469cfc6c.to_bytes(10, "little"))


@distributed.on_first
def save_checkpoint(network: nn.Cell, path: Path, state: dict[str, ms.Tensor] | None = None) -> None:
    """Write a network's parameters and `state`, by name, as a checkpoint of MindSpore's, under any file name.

    Raises:
        BadInput: the file cannot be written.
    """
    extra = {STATE + name: value for name, value in (state or {}).items()}
    with replacing(path) as temporary:
        # mindspore.save_checkpoint insists on the suffix.
        named = temporary.with_name(temporary.name + ".ckpt")
        logging.disable()  # MindSpore logs what it raises
        try:
            ms.save_checkpoint(network, str(named), crc_check=True, append_dict=extra)
            temporary.touch()
            shutil.copymode(temporary, named)  # as the umask has it; MindSpore's is 0400
            os.replace(named, temporary)
        except RuntimeError as error:
            raise BadInput(f"{path}: cannot be written ({one_line(error)})") from error
        finally:
            logging.disable(logging.NOTSET)
            for left in (named, named.with_suffix(".tmp")):
                left.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The network's parameters in a checkpoint, without the state that load_state returns beside them."""
    return load_state(path)[0]


def load_state(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The network's parameters in a file of save_checkpoint, by name, and its state; read-only arrays.

    Not mindspore.load_checkpoint: where a file gives a tensor more bytes than its shape has room for, it
    writes beyond the tensor's memory.

    Raises:
        BadInput: it is missing, damaged, or in another format.
    """
    content = path.read_bytes()
    if content.startswith(TORCH_STARTS) or is_safetensors(content):
        raise BadInput(f"{path}: a PyTorch checkpoint; turn it into one of this project with "
                       f"python -m models.convert_torch {path} NEW.pth --arch ARCH --dataset DATASET")
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
        raise BadInput(f"{path}: not a whole MindSpore checkpoint ({one_line(error)}); train it again or "
                       "name another") from error
    weights = {name: value for name, value in values.items() if not name.startswith(STATE)}
    return weights, {name.removeprefix(STATE): value
                     for name, value in values.items() if name not in weights}


def is_safetensors(content: bytes) -> bool:
    """Whether a file begins as one of safetensors: with the length of a JSON object, then this object."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content)


def _tensor(parts: list[Any]) -> np.ndarray:
    """An array from a checkpoint's fields: a large one comes in parts; a scalar has the shape [] or [0]."""
    dtype, shape = parts[-1].tensor_type.lower(), list(parts[-1].dims)
    if not re.fullmatch("bool|u?int(8|16|32|64)|float(16|32|64)", dtype):
        raise ValueError(f"tensors of type {dtype!r} are not allowed")
    content = b"".join(part.tensor_content for part in parts)
    return np.frombuffer(content, dtype).reshape([] if shape == [0] else shape)


def load_weights(network: nn.Cell, weights: dict[str, np.ndarray], path: str, arch: str) -> None:
    """Put a checkpoint's weights into a network; errors name `path` and `arch`.

    Raises:
        BadInput: they belong to another network or to another number of classes, or are not finite numbers.
    """
    own = dict(network.parameters_and_names())
    for name, parameter in own.items():
        value = weights.get(name)
        if value is None or value.shape != parameter.shape:
            if value is not None and name.startswith("classifier.") and (
                    value.shape[1:] == parameter.shape[1:]):
                raise BadInput(f"{path}: trained for {len(value)} classes, the data set has "
                               f"{len(parameter)}; name a checkpoint of this data set")
            raise BadInput(f"{path}: not a checkpoint of {arch} ({name} is missing or has another shape); "
                           "name another --arch or --ckpt")
        if not np.isfinite(value).all():
            raise BadInput(f"{path}: {name} holds numbers that are not finite; train it again or name "
                           "another --ckpt")
    if extra := weights.keys() - own.keys():
        raise BadInput(f"{path}: not a checkpoint of {arch} ({min(extra)} is not a part of it); "
                       "name another --arch or --ckpt")
    for name, parameter in own.items():
        parameter.set_data(ms.Tensor(weights[name], parameter.dtype))


def load_network(arch: str, checkpoint: Path, num_classes: int, small_images: bool,
                 features_only: bool = False) -> nn.Cell:
    """A trained network for inference: its batch normalizations are folded into its convolutions.

    With `features_only` it has no last layer.
    """
    network = create_model(arch, num_classes, small_images)
    if features_only:
        network.classifier = nn.Identity()
    load_weights(network, load_checkpoint(checkpoint), str(checkpoint), arch)
    fold_batchnorm(network)
    return network


def load_pretrained(network: nn.Cell, path: Path, arch: str) -> None:
    """Put a checkpoint's weights into a new network and say so, except a classifier that does not fit."""
    weights = load_checkpoint(path)
    own = {name: parameter.asnumpy() for name, parameter in network.parameters_and_names()}
    new = {name: value for name, value in own.items() if name.startswith("classifier.")}
    if all(name in weights and weights[name].shape == value.shape for name, value in new.items()):
        new = {}
    load_weights(network, weights | new, str(path), arch)
    layers = dict.fromkeys(name.partition(".")[0] for name in own if name not in new)
    print(f"{path}: took the weights of {', '.join(layers)}{'; the classifier is new' if new else ''}")


def save_run(path: Path, network: nn.Cell, state: list[ms.Parameter], finished: int, best: float) -> None:
    """Write what a run is resumed from, with the number of finished epochs and the best accuracy, in percent.

    Order and transforms of an epoch follow from --seed and its number, so there is no other random state.
    Beside the network's parameters, `state` has the optimizer's and the loss scale's.
    """
    save_checkpoint(network, path, {
        "epoch": ms.Tensor(finished, ms.int64), "best": ms.Tensor(best, ms.float64),
        **{f"optimizer.{parameter.name}": parameter.value() for parameter in state}})


def load_run(path: Path, network: nn.Cell, state: list[ms.Parameter]) -> tuple[int, float]:
    """Put what save_run wrote into a network and `state`; return epochs finished and best accuracy.

    Raises:
        BadInput: the file holds no such state.
    """
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
    """The optimizer's own parameters: momentum, step counts, learning rate."""
    trained = {parameter.name for parameter in optimizer.parameters}
    return [parameter for parameter in optimizer.get_parameters() if parameter.name not in trained]


def find_arch(arch: str | None, checkpoint: Path) -> str:
    """The network of a checkpoint: `arch` where it is given, else the one in args.json beside it.

    Where there is no args.json that tells, resnet50, the release's default.
    """
    recorded = read_args(checkpoint.parent).get("arch")
    return arch or (recorded if recorded in NETWORKS else "resnet50")
