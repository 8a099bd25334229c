"""Convert a PyTorch checkpoint to this project's format, or the reverse.

    python -m models.convert_torch OLD.pth NEW.pth --arch resnet50 --dataset CIFAR100
    python -m models.convert_torch OLD.pth NEW.pth --arch resnet50 --dataset CIFAR100 --to-torch

Only weights are read; nothing in the file is run.
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
    max_poolings = np.cumsum([len(stage) + 1 for stage in vgg.STAGES]) - 1
    position = sum(1 if layer in max_poolings else 3 for layer in range(int(match[1])))
    return f"features.{position + (match[2] == 'bn')}."


# These substitutions, applied in order, turn a parameter's name here into its name in PyTorch.
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
# The release's ResNets for Tiny ImageNet are torchvision's, in an attribute `base`.
IMAGENET_RULES = dict.fromkeys(("resnet18", "resnet34", "resnet50"), (*_TORCHVISION, (r"^", "base.")))
# PyTorch networks do not hold dropout's random state.
OURS_ONLY = {"efficientnet": ("classifier.0.state",)}
# The release's first block has an expansion that it never runs.
THEIRS_ONLY = {"efficientnet": {
    "layers.0.conv1.weight": np.zeros((32, 32, 1, 1), np.float32),
    **{f"layers.0.bn1.{name}": np.full(32, value, np.float32) for name, value in (
        ("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1))}}}
REMEDY = "specify another --arch or --dataset"
COUNTS = "num_batches_tracked", "n_averaged"  # the names of arrays that are not weights end with these


class _Ignored:
    """Replaces other objects in a checkpoint, such as options and NumPy's scalars, without running them."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


IGNORED = [(_Ignored, name) for name in (
    "argparse.Namespace", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct", "pathlib.PosixPath", "pathlib.WindowsPath")]


def rules_of(arch: str, small_images: bool) -> Rules:
    """The rules that give the names of the paper's release; BadInput if the network has none."""
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
    """The networks in a state dict, all except the last layer: by prefix, PyTorch's names by our names.

    Also returns a name that is missing or has another shape, for the error if there is no network.

    Args:
        shapes: of the network's parameters, by our names.
        all_rules: alternative sets of names.
    """
    networks: dict[str, dict[str, str]] = {}
    misfits = []
    for rules in all_rules:
        theirs = {name: renamed(name, rules) for name in shapes if not name.startswith("classifier.")}
        first = next(iter(theirs.values()))
        for prefix in [name.removesuffix(first) for name in state if f".{name}".endswith(f".{first}")]:
            names = {name: prefix + their for name, their in theirs.items()}
            # PyTorch's layer may be a 1x1 convolution where ours is linear.
            misfit = [their for name, their in names.items() if their not in state
                      or state[their].shape not in (shapes[name], (*shapes[name], 1, 1))]
            if misfit:
                misfits.append(misfit)
            elif names not in networks.values():
                networks[prefix] = names
    return networks, min(misfits, key=len, default=[first])[0]


def find_last_layers(state: dict[str, np.ndarray], prefix: str, expected: list[str],
                     width: int) -> list[str]:
    """Candidates for the last layer: those with an expected name, else with the most similar prefix."""
    layers = [name.removesuffix(".weight") for name, values in state.items()
              if name.endswith(".weight") and values.shape[1:] == (width,)]
    layers = [layer for layer in layers if f"{layer}.bias" in state]
    shared = {layer: len(os.path.commonprefix([prefix, layer])) for layer in layers}
    return [layer for layer in layers if layer in expected] or [
        layer for layer in layers if shared[layer] == max(shared.values())]


def from_torch(state: dict[str, np.ndarray], path: str, arch: str, small_images: bool,
               prefix: str | None = None, features_only: bool = False) -> ms.nn.Cell:
    """A network with the weights of a PyTorch state dict, which was read from `path`.

    Names are those of the paper's release or of torchvision, after one prefix such as DataParallel,
    Lightning and other wrappers add. The last layer may have another name. Arrays outside of the prefix are
    ignored with a warning. Raises BadInput if names or shapes are not those of this variant of `arch`.

    Args:
        prefix: of the network to convert; None: the first one whose prefix does not contain "ema".
        features_only: omit the last layer.
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
    other_prefixes = [name for name in networks if name != prefix]
    choices = " or ".join(map(repr, other_prefixes))
    if prefix not in networks:
        raise BadInput(f"{path}: no network at --prefix {prefix!r}; specify {choices}")
    if other_prefixes:
        options.warn(f"{path}: using the network at {prefix!r}; to use another, specify --prefix {choices}")
    names, last = dict(networks[prefix]), "classifier.1" if arch in OURS_ONLY else "classifier"
    expected = [prefix + renamed(f"{last}.weight", rules).removesuffix(".weight") for rules in all_rules]
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
            options.warn(f"{path}: using {layers[0]} as the last layer")
    unused = state.keys() - names.values() - {prefix + name for name in THEIRS_ONLY.get(arch, {})}
    # Other networks and modules of other last layers may share the prefix, but nothing else.
    modules = {layer.removeprefix(prefix).partition(".")[0] for layer in (*expected, *layers)}
    allowed = (*(f"{prefix}{module}." for module in modules),
               *(other for other in other_prefixes if other.startswith(prefix)))
    if unknown := [name for name in unused if name.startswith(prefix) and not name.startswith(allowed)]:
        raise BadInput(f"{path}: not a checkpoint of {arch} ({min(unknown)} is not a part of it); {REMEDY}")
    if unused:
        options.warn(f"{path}: other arrays are ignored: {len(unused)}, such as {min(unused)}")
    weights = {name: parameter.asnumpy() if name in OURS_ONLY.get(arch, ())
               else state[names[name]].reshape(parameter.shape)
               for name, parameter in network.parameters_and_names()}
    load_weights(network, weights, path, arch)
    return network


def to_torch(weights: dict[str, np.ndarray], path: str, arch: str,
             small_images: bool) -> dict[str, np.ndarray]:
    """A checkpoint's weights, which were read from `path`, as a state dict of the paper's release."""
    last = "classifier.1.weight" if arch in OURS_ONLY else "classifier.weight"
    rules = rules_of(arch, small_images)  # first: a network without rules may name its classifier otherwise
    network = create_model(arch, len(weights.get(last, [0])), small_images)
    load_weights(network, weights, path, arch)
    state = dict(THEIRS_ONLY.get(arch, {}))
    for name, values in weights.items():
        if name not in OURS_ONLY.get(arch, ()):
            excitation = re.search(r"excite\..*weight$", name)
            state[renamed(name, rules)] = values[:, :, None, None] if excitation else values
    return state


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The weights in a file of safetensors or torch.save, by name; BadInput if it holds none or is damaged.

    A name begins with the keys of the dictionaries that hold the array, such as state_dict.module.fc.bias.
    """
    data = path.read_bytes()
    if is_safetensors(data):
        from safetensors.numpy import load  # MindSpore has installed it
        try:
            return {name: values.astype(np.float32) for name, values in load(data).items()
                    if not name.endswith(COUNTS)}
        except Exception as error:  # a damaged file can raise anything
            raise BadInput(f"{path}: damaged safetensors file ({one_line(error)}); replace it with an intact "
                           "copy") from error
    import torch
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(IGNORED):
            warnings.simplefilter("ignore")  # for pickles that torch.save did not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file can raise anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {refused[1]}, which is not allowed" if refused else "damaged or another format"
        raise BadInput(f"{path}: not a PyTorch checkpoint of weights ({reason}); save the network's "
                       "state_dict(), or convert a checkpoint of this project with --to-torch") from error
    state: dict[str, np.ndarray] = {}

    def add(content: object, name: str) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                if isinstance(key, str):  # an optimizer's state has numbers as keys
                    add(value, f"{name}.{key}" if name else key)
        elif isinstance(content, torch.Tensor) and not name.endswith(COUNTS):
            state[name] = content.detach().float().numpy()

    add(content, "")
    if not state:
        raise BadInput(f"{path}: holds no state dict; save the network's state_dict()")
    return state


def convert(old: Path, new: Path, arch: str, small_images: bool, back: bool, prefix: str | None = None,
            features_only: bool = False) -> None:
    """Convert a PyTorch checkpoint to this project's format, or with `back` the reverse."""
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
    parser = options.Parser("Convert a PyTorch checkpoint to this project's format, or the reverse.",
                            prog="convert_torch.py")
    parser.add_argument("old", type=Path, metavar="OLD.pth", help="checkpoint to read")
    parser.add_argument("new", type=Path, metavar="NEW.pth", help="checkpoint to write")
    parser.add_argument("--arch", default="resnet50", choices=NETWORKS, help="network")
    parser.add_argument("--dataset", default="CIFAR100", choices=SOURCES, help="data set that it was trained "
                        "on, which decides the network's variant; the file decides the number of classes")
    parser.add_argument("--image_size", type=options.positive, help="side of its images in pixels, which "
                        "decides the variant for a folder (default: as in args.json beside OLD.pth, else the "
                        "data set's own)")
    parser.add_argument("--to-torch", action="store_true", help="from this project's format to PyTorch's")
    parser.add_argument("--prefix", help="prefix of the network's names in OLD.pth, if it holds several "
                        "networks (default: the first one whose prefix does not contain ema)")
    parser.add_argument("--features_only", action="store_true", help="omit the last layer, for selection by "
                        "methods that need only features")
    args = parser.parse_args(argv)
    if args.new.exists() and args.old.exists() and args.new.samefile(args.old):
        parser.error(f"{args.new}: is the checkpoint to read; choose another file to write")
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
