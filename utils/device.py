"""The device, with the settings that make a CPU fast; random streams; versions."""
import contextlib
import functools
import os
import platform
from importlib import metadata

import numpy as np

from utils import distributed
from utils.errors import BadInput

DEVICES = ("auto", "CPU", "GPU", "Ascend")
# Without these a CPU trains many times slower: with AVX-512 the bundled oneDNN computes most convolutions in
# a scalar reference loop, and MindSpore's Python thread spins while a graph runs.
CPU_SETTINGS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MS_DEV_HOST_BLOCKING_RUN": "1"}


@functools.cache  # MindSpore takes some settings once
def set_up(device: str, seed: int) -> str:
    """Set the device (auto: the best one available) and the seed of MindSpore; return the device's name.

    Under msrun it joins the other ranks.

    Raises:
        BadInput: the device is not available, or MS_SIMULATION_LEVEL is set.
    """
    import mindspore as ms  # here, since a selection from the user's own arrays does without it
    if "MS_SIMULATION_LEVEL" in os.environ:
        raise BadInput("MS_SIMULATION_LEVEL: set in the environment, which makes MindSpore's CPU "
                       "operators return zeros; unset it")
    present = [name for name in ("Ascend", "GPU", "CPU") if ms.hal.is_available(name)]
    if device == "auto":
        device = present[0]
    if device not in present:
        raise BadInput(f"--device {device}: not available to this MindSpore; use --device auto or CPU")
    ms.set_device(device)
    if device == "CPU":
        for name, value in CPU_SETTINGS.items():
            os.environ.setdefault(name, value)
    distributed.init()
    ms.set_deterministic(True)
    ms.set_seed(seed)
    return device


def random_stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A generator for one purpose, so that two purposes with the same seed draw different numbers.

    `numbers` are an epoch, a batch or an image, where the purpose has one stream for each.
    """
    return np.random.default_rng([seed, *purpose.encode(), *numbers])


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that results depend on."""
    installed = {}
    for name in ("mindspore", "numpy", "pillow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {**installed, "python": platform.python_version()}
