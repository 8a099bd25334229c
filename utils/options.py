"""Options that scripts share, warnings, and how a script ends."""
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

from methods import checks
from utils import distributed
from utils.device import DEVICES
from utils.errors import BadInput

SEED = 42
DATASET, DATA = "CIFAR100", Path("data")  # defaults of --dataset and --data where no run decides
AGAIN = 2  # seconds after which a stop that had no effect is repeated
WAIT = 3  # seconds in which msrun ends this rank if the first one has failed too and has printed its error


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults other than None, which help texts give in words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An option parser with defaults in its help, errors of one line, ~ in paths, and no abbreviations.

    `hints` says for options of other scripts what to do instead.
    """

    def __init__(self, description: str, **settings: Any) -> None:
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False,
                         **settings)
        self.hints: dict[str, str] = {}
        self.register("type", Path, lambda text: Path(os.path.expanduser(text)))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            if name in self.hints:
                self.error(f"{name}: {self.hints[name]}")
            similar = difflib.get_close_matches(name, self._option_string_actions, 1)
            hint = f"did you mean {similar[0]}?" if similar else "--help lists them"
            self.error(f"{name}: not an option; {hint}")
        return parsed

    def error(self, message: str) -> NoReturn:
        if not distributed.is_first():
            time.sleep(WAIT)
        self.exit(2, f"{self.prog}: error: {message}\n")


@dataclass(frozen=True)
class Number:
    """Parses a number from `low` to `high`: an integer (`whole`) or any number, also written as 8/255."""
    low: float | None  # None: any number above 0
    high: float = math.inf
    whole: bool = False

    def __call__(self, text: str) -> Any:
        try:
            numerator, _, denominator = text.partition("/")
            value = int(text) if self.whole else float(numerator) / float(denominator or 1)
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
    """Print a warning, one line on standard error."""
    if distributed.is_first():
        print(f"{os.path.basename(sys.argv[0])}: warning: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print each UserWarning as a line on standard output, and those of its subclasses as warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, category, *_: (
            print if category is UserWarning else warn)(str(message))
        yield


def add_data_options(group: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add the options of the data set."""
    group.add_argument("--dataset", choices=names, help="data set; folder: your own images, in "
                       f"train/<class>/ and val/<class>/ (default: {DATASET})")
    group.add_argument("--data", type=Path, help="folder that holds the data set's own folder; for tiny, "
                       f"tinyC, tinyA, tinyN and folder, that folder itself (default: {DATA})")
    group.add_argument("--name", type=plain_name, help="for --dataset folder: name that replaces folder in "
                       "output paths (default: folder)")
    group.add_argument("--image_size", type=positive, metavar="PIXELS", help="side of the images in pixels: "
                       "32, 16 or 8 for CIFAR (smaller images train faster), 8 or more for a folder "
                       "(default: the data set's own; 224 for a folder)")
    group.add_argument("--classes", type=positive, metavar="N", help="use only the first N classes "
                       "(default: all)")
    group.add_argument("--workers", type=positive, metavar="N", help="number of threads that decode and "
                       "transform images (default: one per core)")


def add_device_option(group: argparse._ActionsContainer) -> None:
    """Add --device."""
    group.add_argument("--device", default="auto", choices=DEVICES, help="auto: the best available device")


def add_training_options(group: argparse._ActionsContainer) -> None:
    """Add --batch_size, --lr and --amp_level."""
    group.add_argument("--batch_size", default=128, type=positive, help="images per step")
    group.add_argument("--lr", type=above_zero, help="initial learning rate (default: 0.1; for a folder 0.1 "
                       "times batch_size / 256)")
    group.add_argument("--amp_level", default="O0", choices=("O0", "O2", "O3"), help="mixed precision in "
                       "training; O0: float32, O2: float16 except batch normalization, O3: float16")


def add_seed_option(group: argparse._ActionsContainer, use: str) -> None:
    """Add --seed; `use` says what it is for."""
    group.add_argument("--seed", default=SEED, type=seed_number, help=f"seed for {use}")


def rate(text: str) -> float:
    """Parses a fraction of images to keep, rounded to six digits, as in names of folders."""
    return float(f"{Number(None, 1)(text):g}")


def plain_name(text: str) -> str:
    """Parses a file name of letters, digits, "_", "-" and "."; it cannot start with "-" or "."."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain file name of letters, digits, _, - and .")
    return text


def boolean(text: str) -> bool:
    """Parses True or False."""
    return checks.boolean(text, "")


def add_boolean_option(group: argparse._ActionsContainer, name: str, default: bool | None, help: str) -> None:
    """Add an option that takes True or False; without a value it means True."""
    group.add_argument(name, default=default, type=boolean, nargs="?", const=True, metavar="True|False",
                       help=help)


class Terminal(io.FileIO):
    """An output terminal; what is written after it has been closed is dropped."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(content).nbytes


def outlive_terminal() -> None:
    """Let a run continue when its terminal is closed: its results are in files, and its output is dropped."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            buffer = io.BufferedWriter(Terminal(stream.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True))


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main: exit status 2 and one line for bad input, 1 for a diverged run, 130 for Ctrl-C."""
    outlive_terminal()
    if isinstance(sys.stdout, io.TextIOWrapper):  # for names that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    stderr, start = os.dup(2), time.time()

    def stop(*_: object) -> None:  # stopped while it compiles a graph, MindSpore logs at length
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(AGAIN)  # some steps of the compilation swallow the exception
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
    except (BadInput, FloatingPointError) as error:
        status, message = 2 if isinstance(error, BadInput) else 1, f"error: {error}"
    except KeyboardInterrupt as error:
        status, message = 130, "stopped" + (f"; {error}" if str(error) else "")
        os.dup2(stderr, 2)
        with contextlib.suppress(OSError):  # another run may be removing it
            for path in Path().glob("rank_*/om/analyze_fail.ir"):  # MindSpore's dump of the graph
                if path.stat().st_mtime >= start:
                    path.unlink()
                    os.removedirs(path.parent)
    except BrokenPipeError:  # the reader of the output, such as head, has ended
        status = 141
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        status, message = 2, (f"error: {where}{error.strerror or error}; check the path, the disk and the "
                              "limits of this machine")
    except MemoryError:
        status, message = 2, "error: out of memory; use a machine with more"
    finally:
        signal.alarm(0)
    if message:
        if not distributed.is_first():
            time.sleep(WAIT)
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
    if status and distributed.size() > 1:  # MindSpore's own exit would wait for the other ranks
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
