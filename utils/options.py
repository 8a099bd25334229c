"""Options that scripts share, and how a script ends."""
import argparse
import contextlib
import difflib
import errno
import io
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from utils import distributed
from utils.device import DEVICES
from utils.errors import BadInput

SEED = 42
AGAIN = 2  # seconds after which a stop that had no effect is repeated
WAIT = 3  # seconds in which msrun ends this rank where the first one has failed too, and has said so


class Parser(argparse.ArgumentParser):
    """An option parser whose help shows defaults and whose errors are one line.

    An option must be spelled out: --model is not --model_dir. In a path, ~ is the home folder. `hints` says,
    for options that are not this script's, what to do instead.
    """

    def __init__(self, description: str, **settings: Any) -> None:
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                         allow_abbrev=False, **settings)
        self.hints: dict[str, str] = {}
        self.register("type", Path, lambda text: Path(os.path.expanduser(text)))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            if name in self.hints:
                self.error(f"{name}: {self.hints[name]}")
            near = difflib.get_close_matches(name, self._option_string_actions, 1)
            hint = f"did you mean {near[0]}?" if near else "--help lists them"
            self.error(f"{name}: not an option; {hint}")
        return found

    def error(self, message: str) -> NoReturn:
        if not distributed.is_first():
            time.sleep(WAIT)
        self.exit(2, f"{self.prog}: error: {message}\n")


@dataclass(frozen=True)
class Number:
    """Parses an option's number from `low` to `high`: a whole one, or any, which may be written as 8/255."""
    low: float | None  # None: any number above 0
    high: float = math.inf
    whole: bool = False

    def __call__(self, text: str) -> Any:
        try:
            above, _, below = text.partition("/")
            value = int(text) if self.whole else float(above) / float(below or 1)
        except (ValueError, ZeroDivisionError):
            value = math.nan
        above_low = value > 0 if self.low is None else value >= self.low
        if not above_low or value > self.high or value == math.inf:
            start = "above 0" if self.low is None else f"from {self.low:g} on"
            end = f" up to {self.high:.10g}" if self.high < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' * self.whole}number {start}{end}")
        return value


positive, seed_number = Number(1, whole=True), Number(0, 2 ** 32 - 1, whole=True)
fraction, above_zero = Number(0, 1), Number(None)


def warn(text: str) -> None:
    """Print a line of warning on standard error."""
    if distributed.is_first():
        print(f"{os.path.basename(sys.argv[0])}: warning: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print notes (UserWarning) as lines, and warnings of more weight (its subclasses) as warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, category, *_: (
            print if category is UserWarning else warn)(str(message))
        yield


def add_data_options(group: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add the options of the data set, as train.py and selection.py have them."""
    group.add_argument("--dataset", choices=names, help="data set; folder: your own images, in "
                       "train/<class>/ and val/<class>/ (default: CIFAR100)")
    group.add_argument("--data", type=Path, help="folder that holds the data set's own folder; for tiny, "
                       "tinyC, tinyA, tinyN and folder, that folder itself (default: data)")
    group.add_argument("--name", type=plain_name, help="name that replaces folder in output paths, for "
                       "--dataset folder; None: folder")
    group.add_argument("--image_size", type=positive, help="side of the images in pixels: 32, 16 or 8 "
                       "for CIFAR (smaller ones train faster), any from 8 on for a folder; None: the data "
                       "set's own, 224 for a folder")
    group.add_argument("--classes", type=positive, help="use the first CLASSES classes only; None: all")
    group.add_argument("--workers", type=positive, help="threads that decode and transform images; None: one "
                       "per core")


def add_device_option(group: argparse._ActionsContainer) -> None:
    """Add --device."""
    group.add_argument("--device", default="auto", choices=DEVICES, help="auto: the best one present")


def add_amp_option(group: argparse._ActionsContainer) -> None:
    """Add --amp_level."""
    group.add_argument("--amp_level", default="O0", choices=("O0", "O2", "O3"), help="mixed precision in "
                       "training; O0: float32, O2: float16 but for batch normalization, O3: float16")


def add_seed_option(group: argparse._ActionsContainer, use: str) -> None:
    """Add --seed; `use` says what is drawn with it."""
    group.add_argument("--seed", default=SEED, type=seed_number, help=f"seed for {use}")


def rate(text: str) -> float:
    """Parses a fraction of images to keep, with six digits, as names of folders have it."""
    return float(f"{Number(None, 1)(text):g}")


def plain_name(text: str) -> str:
    """Parses a name for files and folders: letters, digits, "_", "-" and ".", but no "." or "-" first."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain file name of letters, digits, _, - and .")
    return text


def boolean(text: str) -> bool:
    """Parses an option's True or False."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def add_boolean_option(group: argparse._ActionsContainer, name: str, default: bool | None, help: str) -> None:
    """Add an option that takes True or False; by itself it means True."""
    group.add_argument(name, default=default, type=boolean, nargs="?", const=True, metavar="True|False",
                       help=help)


class Terminal(io.FileIO):
    """A terminal for output, which is dropped once the terminal is gone."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(content).nbytes


def outlive_terminal() -> None:
    """Let a run go on where its terminal is closed: results are in files, and output is dropped."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            buffer = io.BufferedWriter(Terminal(stream.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True))


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main: exit status 2 and one line for bad input, 1 for a diverged run, 130 for Ctrl-C."""
    outlive_terminal()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of classes and files that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    stderr, start = os.dup(2), time.time()

    def stop(*_: object) -> None:  # MindSpore logs at length when it is stopped while it compiles a graph
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(AGAIN)  # in some steps of that it swallows the exception
        raise KeyboardInterrupt

    # MindSpore turns Ctrl-C into a SIGTERM to its own process once it has compiled something.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    distributed.silence_others()
    status, message = 0, ""
    try:
        main()
        distributed.let_arrive()
    except BadInput as error:
        status, message = 2, f"error: {error}"
    except FloatingPointError as error:
        status, message = 1, f"error: {error}"
    except KeyboardInterrupt as error:
        status, message = 130, "stopped" + (f"; {error}" if str(error) else "")
        os.dup2(stderr, 2)
        with contextlib.suppress(OSError):  # another run may be at it
            for path in Path().glob("rank_*/om/analyze_fail.ir"):  # of the graph
                if path.stat().st_mtime >= start:
                    path.unlink()
                    path.parent.rmdir()
                    path.parent.parent.rmdir()
    except BrokenPipeError:  # who reads the output, such as head, has ended
        status = 141
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        status, message = 2, (f"error: {where}{error.strerror or error}; check the path, the disk and the "
                              "limits of this machine")
    except MemoryError:
        status, message = 2, "error: out of memory; use a machine with more"
    finally:  # however it ended after a stop
        signal.alarm(0)
    if message:
        if not distributed.is_first():
            time.sleep(WAIT)
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
    if status and distributed.size() > 1:  # MindSpore's own exit would wait for the other ranks
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
