"""What every script needs from its surroundings: device, CPU settings, seed, option errors, a clean end."""
import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

# Before MindSpore is loaded: it reads its log level then. Errors only; its warnings speak to its developers.
os.environ.setdefault("GLOG_v", "3")

import mindspore as ms
import numpy as np
from tqdm import tqdm

from files import BadInput

DEVICES = ("auto", "CPU", "GPU", "Ascend")
# With these a CPU trains 50 times faster than as installed. The bundled oneDNN, allowed AVX-512, computes
# most convolutions in a scalar reference loop, and MindSpore's Python thread waits for a graph in a busy
# loop.
CPU_SETTINGS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MS_DEV_HOST_BLOCKING_RUN": "1"}


class Parser(argparse.ArgumentParser):
    """An option parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def boolean(text: str) -> bool:
    """An option's True or False.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def positive(text: str) -> int:
    """An option's whole number of 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def seed_number(text: str) -> int:
    """An option's seed, a whole number from 0 to 2**32 - 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    if not text.isdecimal() or int(text) >= 2 ** 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4294967295")
    return int(text)


def set_up(device: str, seed: int) -> str:
    """Choose the device, make the CPU's settings if it is the CPU, seed MindSpore; return the device's name.

    Args:
        device: one of DEVICES; auto takes the best one present.

    Raises:
        BadInput: the device is not present.
    """
    present = [name for name in ("Ascend", "GPU", "CPU") if ms.hal.is_available(name)]
    if device == "auto":
        device = present[0]
    if device not in present:
        raise BadInput(f"--device {device}: not available to this MindSpore; use --device auto or CPU")
    ms.set_device(device)
    if device == "CPU":
        for name, value in CPU_SETTINGS.items():
            os.environ.setdefault(name, value)
    ms.set_deterministic(True)
    ms.set_seed(seed)
    return device


class ProgressBar:
    """Progress through `total` units: a bar on a terminal, else a line a minute; both with the time left."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=title, unit=unit, leave=False, disable=not self.terminal)
        self.skipped = self.done = 0
        self.started = self.shown = time.perf_counter()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def skip(self, units: int) -> None:
        """Count units that an earlier run has done."""
        self.skipped += units
        if self.terminal:  # else tqdm has no such attribute
            self.bar.initial += units
        self.bar.update(units)

    def update(self, units: int, state: Callable[[], str] = str) -> None:
        """Count units done; `state` is asked for a few words when it is time to show them."""
        self.done += units
        self.bar.update(units)
        now = time.perf_counter()
        if now - self.shown > (1 if self.terminal else 60):
            self.shown = now
            words = state()
            if self.terminal:
                self.bar.set_postfix_str(words)
            else:
                reached = self.skipped + self.done
                left = (now - self.started) / self.done * (self.total - reached)
                print(f"{self.title}: {self.unit} {reached}/{self.total}, {words + ', ' if words else ''}"
                      f"{left:.0f} s left", flush=True)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"mindspore": ms.__version__, "numpy": np.__version__, "python": platform.python_version()}


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main: exit status 2 and one line for bad input, 1 for a diverged run, 130 for Ctrl-C."""
    script = os.path.basename(sys.argv[0])
    # MindSpore turns Ctrl-C into a SIGTERM to its own process once it has compiled something.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except BadInput as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as error:
        print(f"{script}: stopped" + (f"; {error}" if str(error) else ""), file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{script}: error: {where}{error.strerror or error}; check the files, the disk and the limits "
              "of this machine", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print(f"{script}: error: out of memory; use a machine with more", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
