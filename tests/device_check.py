"""Check a device: do its results agree with PyTorch's and the CPU's, and how fast is it?

    python tests/device_check.py                                      (the best device present)
    python tests/device_check.py --device CPU --arch resnet20         (what a test of this script runs)

Runs every network's golden forward passes and SGD step, an epoch of the toy set in float32 and in mixed
precision, a selection, an attack and, where there are two devices, both at once; then prints a table.
"""
import argparse
import csv
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the project's own modules

import utils  # noqa: E402, F401  before MindSpore

# isort: split
import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402

import golden_networks as networks  # noqa: E402
from datasets import open_dataset  # noqa: E402
from models.checkpoint import load_network  # noqa: E402
from robust.attacks import Attack, attacked_batches  # noqa: E402
from utils.device import set_up, versions  # noqa: E402
from utils.options import Parser, add_device_option, run_script  # noqa: E402

# What is wrong, from 0 (the same) on, and images per second where they were measured.
Found = tuple[float, float | None]
# A GPU or NPU multiplies float32 in TF32 (GPU) or HF32 (Ascend), with 10 bits of mantissa.
ON_CPU, ON_DEVICE = 1e-4, 2e-2
EPOCH = ("--dataset", "toy", "--arch", "resnet6", "--batch_size", "128", "--lr", "0.01", "--epoch", "1")


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser("Check a device against PyTorch's golden files and the CPU.")
    add_device_option(parser)
    parser.add_argument("--arch", nargs="+", default=networks.SMALL, choices=networks.SMALL,
                        help="networks to check")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    device = set_up(args.device, 0)
    print(f"{device} ({ms.hal.device_count(device)}), {platform.platform()}, "
          + ", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    print(f"{'check':34}{'error':>10}{'limit':>10}{'img/s':>10}", flush=True)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for what, limit, check in checks(device, args.arch, Path(folder)):
            try:
                error, speed = check()
                agrees = error <= limit
                print(f"{what:34}{error:10.2g}{limit:10.2g}{'-' if speed is None else f'{speed:.0f}':>10}"
                      f"{'' if agrees else '  DIFFERS'}", flush=True)
            except Exception as failure:  # the other checks may still tell something
                agrees = False
                print(f"{what:34}  FAILED: {str(failure).strip() or repr(failure)}", flush=True)
            wrong += not agrees
    print(f"{wrong} of these checks failed." if wrong else "All of it agrees.",
          "Please open an issue with this output, whether it agrees or not, the device's name and the "
          "version of its driver.")
    sys.exit(1 if wrong else 0)


def checks(device: str, archs: list[str], folder: Path) -> Iterator[tuple[str, float, Callable[[], Found]]]:
    """Name, largest error allowed, and the check itself."""
    close = ON_CPU if device == "CPU" else ON_DEVICE
    for arch in archs:
        for side in (32, 64):
            if (arch, side) in networks.FORMS:
                yield (f"{arch}, forward, {side}x{side}", close,
                       lambda arch=arch, side=side: (networks.forward_error(arch, side, device), None))
        yield (f"{arch}, SGD step", max(close, networks.STEP_LIMITS.get(arch, 0)),
               lambda arch=arch: (max(networks.step_errors(arch, device).values()), None))
    yield "toy epoch in float32: loss", 0.01, lambda: train_error(folder, device, "O0")
    yield "toy epoch at O2: loss", 0.02, lambda: train_error(folder, device, "O2")
    yield "selection: share of other ids", 0.02, lambda: (selection_error(folder, device), None)
    yield "PGD: share of other values", 0.02 if device == "CPU" else 0.1, (
        lambda: (attack_error(folder, device), None))
    if device == "CPU" or ms.hal.device_count(device) > 1:
        yield "toy epoch by two ranks: loss", 0.05, lambda: train_error(folder, device, "O0", "msrun")


def run(*command: object) -> None:
    """Run a command in the project's folder, with this Python before others.

    Raises:
        ChildProcessError: it fails; with its line of error or the last one that it said.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, env={**os.environ, "PATH": path})
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no output"]
        raise ChildProcessError(next((line for line in lines if ": error: " in line), lines[-1]))


def trained(folder: Path, device: str, level: str, launcher: str = "python") -> Path:
    """The folder of a run of one epoch, begun where it is not there yet."""
    model_dir = folder / f"{device}-{level}-{launcher}"
    if not model_dir.exists():
        with socket.create_server(("127.0.0.1", 0)) as server:  # another job may have msrun's usual port
            port = server.getsockname()[1]
        ranks = ("--worker_num=2", "--local_worker_num=2", "--join=True", f"--log_dir={folder / 'log'}",
                 f"--master_port={port}")
        run(launcher, *(ranks if launcher == "msrun" else ()), "train.py", *EPOCH, "--device", device,
            "--amp_level", level, "--model_dir", model_dir)
    return model_dir / "toy/resnet6"


def train_error(folder: Path, device: str, level: str, launcher: str = "python") -> Found:
    """The difference of an epoch's loss to the CPU's in float32, over that."""
    expected, found = (next(csv.DictReader((trained(folder, *how) / "log.csv").read_text().splitlines()))
                       for how in (("CPU", "O0"), (device, level, launcher)))
    error = abs(float(found["train_loss"]) / float(expected["train_loss"]) - 1)
    return error, float(found["images_per_second"])


def selection_error(folder: Path, device: str) -> float:
    """The share of a coreset that the CPU does not choose by the same checkpoint."""
    kept = []
    for name in ("CPU", device):
        save = folder / f"index-{name}"
        # In a folder of its own, lest the second one read the features that the first one has kept.
        checkpoint = folder / f"best-{name}" / "best.pth"
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_bytes((trained(folder, "CPU", "O0") / "best.pth").read_bytes())
        run("python", "selection.py", "--dataset", "toy", "--arch", "resnet6", "--ckpt", checkpoint,
            "--rate", 0.2, "--device", name, "--save", save)
        kept.append(np.load(save / "toy.kept.npy"))
    return len(np.setdiff1d(*kept)) / len(kept[0])


def attack_error(folder: Path, device: str) -> float:
    """The share of values that an attack with the CPU's checkpoint sets elsewhere than the CPU does."""
    checkpoint = trained(folder, "CPU", "O0") / "best.pth"
    expected, found = (networks.in_child(attacked, checkpoint, device=name) for name in ("CPU", device))
    return float((expected != found).mean())


def attacked(checkpoint: Path) -> np.ndarray:
    """The first four batches of toy images after PGD, uint8 (512, 16, 16, 3)."""
    data = open_dataset("toy", Path())
    network = load_network("resnet6", checkpoint, len(data.classes), True)
    batches = attacked_batches(network, data, data.train, Attack("PGD", "resnet6", checkpoint))
    return np.concatenate([batch["images"] for _, batch in zip(range(4), batches, strict=False)])


if __name__ == "__main__":
    run_script(main)
