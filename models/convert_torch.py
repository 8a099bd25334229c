"""Turn a PyTorch checkpoint of the paper's release into one of this project, or back.

    python -m models.convert_torch OLD.pth NEW.pth --arch resnet50 --dataset CIFAR100
    python -m models.convert_torch OLD.pth NEW.pth --arch resnet50 --dataset CIFAR100 --to-torch

The number of classes is the file's own. Only weights are read; nothing in the file is run.
"""
import argparse
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import mindspore as ms
import numpy as np

from datasets import SOURCES
from models import NETWORKS, create_model, vgg
from models.checkpoint import is_safetensors, load_checkpoint, load_weights, save_checkpoint
from utils import options
from utils.device import set_up
from utils.errors import BadInput, one_line
from utils.files import replacing
from utils.runs import read_args

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def _vgg_layer(match: re.Match[str]) -> str:
    """PyTorch counts convolution, batch normalization and ReLU each; a max-pooling is one layer in both."""
    layer, position = int(match[1]), 0
    ends = np.cumsum([len(stage) + 1 for stage in vgg.STAGES]) - 1
    for earlier in range(layer):
        position += 1 if earlier in ends else 3
    return f"features.{position + (match[2] == 'bn')}."


# A parameter's name here becomes its name in PyTorch by these substitutions, one after the other.
_BATCH_NORM: Rules = ((r"gamma$", "weight"), (r"beta$", "bias"), (r"moving_mean$", "running_mean"),
               (r"moving_variance$", "running_var"))
_UNITS: Rules = ((r"^stem\.(?:0\.)?(conv|bn)\.", r"\g<1>1."),
          (r"conv(\d)\.(conv|bn)\.", r"\2\1."),
          (r"^stages\.(\d)\.", lambda match: f"layer{int(match[1]) + 1}."),
          (r"^classifier\.", "linear."), *_BATCH_NORM)
_RESNET: Rules = (*_UNITS, (r"shortcut\.conv\.", "shortcut.0."), (r"shortcut\.bn\.", "shortcut.1."))
RULES: dict[str, Rules] = {
    "efficientnet": ((r"^blocks\.", "layers."), (r"excite\.reduce\.", "se.se1."),
                     (r"excite\.expand\.", "se.se2."), (r"^classifier\.1\.", "linear."), *_UNITS),
    "googlenet": ((r"^stem\.", "pre_layers."), (r"^blocks\.", ""), (r"b4\.1\.conv\.", "b4.1."),
                  (r"b4\.1\.bn\.", "b4.2."), (r"(pre_layers|b[1-3])\.(?:(\d)\.)?(conv|bn)\.",
                   lambda match: f"{match[1]}.{3 * int(match[2] or 0) + (match[3] == 'bn')}."),
                  (r"^classifier\.", "linear."), *_BATCH_NORM),
    "resnet20": ((r"^blocks\.(\d)\.", lambda match: f"layer{int(match[1]) // 3 + 1}.{int(match[1]) % 3}."),
                 *_UNITS),
    "senet18": ((r"(stages.*)conv1\.bn\.", r"\1bn2."), (r"shortcut\.", "shortcut.0."),
                (r"excite\.reduce\.", "fc1."), (r"excite\.expand\.", "fc2."), *_UNITS),
    "shufflenet": ((r"^head\.(conv|bn)\.", r"\g<1>2."), *_UNITS),
    "vgg16": ((r"^layers\.(\d+)\.(conv|bn)\.", _vgg_layer), *_BATCH_NORM),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), _RESNET),
}
_TORCHVISION: Rules = (*_RESNET, (r"shortcut\.", "downsample."), (r"^linear\.", "fc."))
# The release takes Tiny ImageNet's ResNets from torchvision and keeps them in an attribute `base`.
IMAGENET_RULES = dict.fromkeys(("resnet18", "resnet34", "resnet50"), (*_TORCHVISION, (r"^", "base.")))
# Dropout's random state is no part of a PyTorch network.
OURS_ONLY = {"efficientnet": ("classifier.0.state",)}
# The release's first block has an expansion that is never run.
THEIRS_ONLY = {"efficientnet": {
    "layers.0.conv1.weight": np.zeros((32, 32, 1, 1), np.float32),
    **{f"layers.0.bn1.{name}": np.full(32, value, np.float32) for name, value in (
        ("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1))}}}
REMEDY = "specify another --arch or --dataset"
COUNTS = "num_batches_tracked", "n_averaged"  # end the names of what is no weight


class _Ignored:
    """What such other things become: NumPy's scalars, options. Nothing of theirs is run."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


IGNORED = [(_Ignored, name) for name in (
    "argparse.Namespace", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct", "pathlib.PosixPath", "pathlib.WindowsPath")]


def rules_of(arch: str, small_images: bool) -> Rules:
    """How a network's names become those of the paper's release; BadInput where it has no rules."""
    if arch not in RULES:
        raise BadInput(f"--arch {arch}: has no names in PyTorch; add them to RULES in "
                       "models/convert_torch.py")
    return RULES[arch] if small_images else IMAGENET_RULES.get(arch, RULES[arch])


def renamed(name: str, rules: Rules) -> str:
    """A parameter's name in PyTorch."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def find_networks(state: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]],
                  all_rules: Iterable[Rules]) -> tuple[dict[str, dict[str, str]], str]:
    """Where a state dict holds all of a network but its last layer: by prefix, its names by our names.

    Also returns the name of what is missing or has another shape, where it holds none.

    Args:
        shapes: of the network's parameters, by our names.
        all_rules: each gives other names.
    """
    networks: dict[str, dict[str, str]] = {}
    misfits = []
    for rules in all_rules:
        theirs = {name: renamed(name, rules) for name in shapes if not name.startswith("classifier.")}
        first = next(iter(theirs.values()))
        for prefix in [name.removesuffix(first) for name in state if f".{name}".endswith(f".{first}")]:
            names = {name: prefix + their for name, their in theirs.items()}
            # A linear layer may be a 1x1 convolution there.
            wrong = [names[name] for name in names if names[name] not in state
                     or state[names[name]].shape not in (shapes[name], (*shapes[name], 1, 1))]
            if wrong:
                misfits.append(wrong)
            elif names not in networks.values():
                networks[prefix] = names
    return networks, min(misfits, key=len, default=[first])[0]


def find_last_layers(state: dict[str, np.ndarray], prefix: str, expected: list[str],
                     width: int) -> list[str]:
    """The layers that may be a network's last one: the one so named, else those whose names are nearest."""
    layers = [name.removesuffix(".weight") for name, values in state.items()
              if name.endswith(".weight") and values.ndim == 2 and values.shape[1] == width]
    layers = [layer for layer in layers if f"{layer}.bias" in state]
    shared = {layer: len(os.path.commonprefix([prefix, layer])) for layer in layers}
    return [layer for layer in layers if layer in expected] or [
        layer for layer in layers if shared[layer] == max(shared.values())]


def from_torch(state: dict[str, np.ndarray], path: str, arch: str, small_images: bool,
               prefix: str | None = None, features_only: bool = False) -> ms.nn.Cell:
    """A network with the weights of a PyTorch state dict, which comes from `path`.

    Its names are those of the paper's release or torchvision's, all of them after one prefix, as
    DataParallel, Lightning and other wrappers put before them. The last layer may have another name. Arrays
    outside of the prefix are ignored with a warning.

    Args:
        prefix: of the network to take; None: the first one that is not called an EMA.
        features_only: leave out the last layer.

    Raises:
        BadInput: the names or shapes are not those of this variant of `arch`.
    """
    all_rules = _TORCHVISION, rules_of(arch, small_images)
    shapes = {name: parameter.shape
              for name, parameter in create_model(arch, 2, small_images).parameters_and_names()}
    networks, missing = find_networks(state, shapes, all_rules)
    if not networks:
        raise BadInput(f"{path}: not a checkpoint of {arch} for {'32x32' if small_images else '64x64'} "
                       f"images ({missing} is missing or has another shape); {REMEDY}")
    if prefix is None:
        prefix = min(networks, key=lambda name: "ema" in name)
    others = [name for name in networks if name != prefix]
    if prefix not in networks:
        raise BadInput(f"{path}: no network at --prefix {prefix!r}; specify {' or '.join(map(repr, others))}")
    if others:
        options.warn(f"{path}: takes the network at {prefix!r}; to take another, specify --prefix "
                     f"{' or '.join(map(repr, others))}")
    names, last = dict(networks[prefix]), "classifier.1" if arch in OURS_ONLY else "classifier"
    expected = [prefix + renamed(f"{last}.weight", rules).removesuffix(".weight")
                for rules in all_rules]
    rest = {name: values for name, values in state.items() if name not in names.values()}
    layers = find_last_layers(rest, prefix, expected, shapes[f"{last}.weight"][1])
    if len(layers) != 1 and not features_only:
        raise BadInput(f"{path}: the last layer, {' or '.join(expected)}, is missing or renamed (layers that "
                       f"fit: {', '.join(layers) or 'none'}); --features_only converts the file without it")
    network = create_model(arch, len(state[f"{layers[0]}.bias"]) if layers else 2, small_images)
    if features_only:
        network.classifier = ms.nn.Identity()
    else:
        names |= {f"{last}.{part}": f"{layers[0]}.{part}" for part in ("weight", "bias")}
        if layers[0] not in expected:
            options.warn(f"{path}: takes {layers[0]} for the last layer")
    left = state.keys() - names.values() - {prefix + name for name in THEIRS_ONLY.get(arch, {})}
    # With its prefix there may be other networks, and modules of other last layers, but nothing else.
    modules = {layer.removeprefix(prefix).partition(".")[0] for layer in (*expected, *layers)}
    apart = (*(f"{prefix}{module}." for module in modules),
             *(other for other in others if other.startswith(prefix)))
    if inside := [name for name in left if name.startswith(prefix) and not name.startswith(apart)]:
        raise BadInput(f"{path}: not a checkpoint of {arch} ({min(inside)} is not a part of it); {REMEDY}")
    if left:
        options.warn(f"{path}: other arrays are ignored: {len(left)}, such as {min(left)}")
    weights = {name: parameter.asnumpy() if name in OURS_ONLY.get(arch, ())
               else state[names[name]].reshape(parameter.shape)
               for name, parameter in network.parameters_and_names()}
    load_weights(network, weights, path, arch)
    return network


def to_torch(weights: dict[str, np.ndarray], path: str, arch: str,
             small_images: bool) -> dict[str, np.ndarray]:
    """The state dict of the paper's release for a checkpoint's weights, which come from `path`."""
    last = "classifier.1.weight" if arch in OURS_ONLY else "classifier.weight"
    rules = rules_of(arch, small_images)  # first: a network without rules has a classifier of any name
    network = create_model(arch, len(weights.get(last, [0])), small_images)
    load_weights(network, weights, path, arch)
    state = dict(THEIRS_ONLY.get(arch, {}))
    for name, values in weights.items():
        if name not in OURS_ONLY.get(arch, ()):
            excitation = re.search(r"excite\..*weight$", name)
            state[renamed(name, rules)] = values[:, :, None, None] if excitation else values
    return state


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file of safetensors or of torch.save, by name, without counts.

    A name begins with the keys of the dictionaries that hold the array, such as state_dict.module.fc.bias.

    Raises:
        BadInput: it is missing, damaged, or holds no state dict, or something that is not allowed.
    """
    data = path.read_bytes()
    if is_safetensors(data):
        from safetensors.numpy import load  # MindSpore has installed it
        try:
            return {name: values.astype(np.float32) for name, values in load(data).items()
                    if not name.endswith(COUNTS)}
        except Exception as error:  # a damaged file can raise anything
            raise BadInput(f"{path}: not a whole safetensors file ({one_line(error)})") from error
    import torch
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(IGNORED):
            warnings.simplefilter("ignore")  # about pickles that torch.save did not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file can raise anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it holds {refused[1]}, which is not allowed" if refused else "it is damaged or another file"
        raise BadInput(f"{path}: not a PyTorch checkpoint of weights ({what}); save the network's "
                       "state_dict(), or turn one of this project into one with --to-torch") from error
    state: dict[str, np.ndarray] = {}

    def add(content: object, name: str) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                if isinstance(key, str):  # not an optimizer's state of each parameter
                    add(value, f"{name}.{key}" if name else key)
        elif isinstance(content, torch.Tensor) and not name.endswith(COUNTS):
            state[name] = content.detach().float().numpy()

    add(content, "")
    if not state:
        raise BadInput(f"{path}: holds no state dict; save the network's state_dict()")
    return state


def convert(old: Path, new: Path, arch: str, small_images: bool, back: bool, prefix: str | None = None,
            features_only: bool = False) -> None:
    """Write PyTorch's checkpoint in this project's format, or with `back` vice versa, which needs PyTorch."""
    if (back or not is_safetensors(old.read_bytes())) and importlib.util.find_spec("torch") is None:
        raise BadInput("this command needs PyTorch: pip install torch \"numpy<2\"")
    if not back:
        save_checkpoint(from_torch(read_torch(old), str(old), arch, small_images, prefix, features_only), new)
        return
    import torch
    state = to_torch(load_checkpoint(old), str(old), arch, small_images)
    with replacing(new) as temporary:
        torch.save({name: torch.tensor(values) for name, values in state.items()}, temporary)


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Turn a PyTorch checkpoint of the paper's release into one of this project, or "
                            "back.", prog="convert_torch.py")
    parser.add_argument("old", type=Path, metavar="OLD.pth", help="checkpoint to read")
    parser.add_argument("new", type=Path, metavar="NEW.pth", help="checkpoint to write")
    parser.add_argument("--arch", default="resnet50", choices=NETWORKS, help="network")
    parser.add_argument("--dataset", default="CIFAR100", choices=SOURCES, help="data set that it was trained "
                        "on: this tells the network's variant; the number of classes is the file's own")
    parser.add_argument("--image_size", type=options.positive, help="side of its images in pixels, which "
                        "tells the variant for a folder; None: as args.json beside OLD.pth says, else the "
                        "data set's own")
    parser.add_argument("--to-torch", action="store_true", help="from this project's format to PyTorch's")
    parser.add_argument("--prefix", help="beginning of the network's names in OLD.pth, where it holds "
                        "several networks; None: the first one that is not called an EMA")
    parser.add_argument("--features_only", action="store_true", help="leave out the last layer: for "
                        "selection by methods that need features alone")
    args = parser.parse_args(argv)
    if args.new.exists() and args.old.exists() and args.new.samefile(args.old):
        parser.error(f"{args.new}: is the checkpoint to read; name another file to write")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    set_up("CPU", 0)
    source = SOURCES[args.dataset]
    side = args.image_size or read_args(args.old.parent).get("image_size") or source.side
    convert(args.old, args.new, args.arch, source.of_side(side).small_images, args.to_torch, args.prefix,
            args.features_only)
    print(f"{args.arch} for {args.dataset}, written to {args.new}")


if __name__ == "__main__":
    options.run_script(main)
