"""Options that scripts share, and a script's clean end."""
import argparse
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from utils import ranks
from utils.device import DEVICES
from utils.files import BadInput


SEED = 42


class Parser(argparse.ArgumentParser):
    """An option parser whose help shows defaults and whose errors are one line."""

    def __init__(self, description: str, **settings: str) -> None:
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                         **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n" if ranks.is_first() else None)


def add_data_options(group: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add the options of the data set, as train.py and selection.py have them."""
    group.add_argument("--dataset", default="CIFAR100", choices=names, help="data set; folder: images of "
                       "your own, in train/<class>/ and val/<class>/")
    group.add_argument("--data", default="data", type=Path, help="folder that holds the data set's own "
                       "folder; for tiny, tinyC, tinyA, tinyN and folder, that folder itself")
    group.add_argument("--name", type=plain_name, help="of --dataset folder, in the names of folders and "
                       "files written; None: folder")
    group.add_argument("--image_size", type=positive, help="side of the images in pixels, 32, 16 or 8 "
                       "of CIFAR; smaller ones train faster; any from 8 on of a folder; None: the data set's "
                       "own, 224 of a folder")
    group.add_argument("--classes", type=positive, help="number of classes, the first ones; None: all")
    group.add_argument("--workers", type=positive, help="threads that decode and transform images; None: one "
                       "a core")


def add_device_option(group: argparse._ActionsContainer) -> None:
    """Add --device."""
    group.add_argument("--device", default="auto", choices=DEVICES, help="auto: the best one present")


def add_seed_option(group: argparse._ActionsContainer, of: str) -> None:
    """Add --seed; `of` says what it is the seed of."""
    group.add_argument("--seed", default=SEED, type=seed_number, help=f"of {of}")


def plain_name(text: str) -> str:
    """An option's name for files and folders: letters, digits, "_", "-" and ".", no "." or "-" first.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    if not re.fullmatch(r"\w[\w.-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain file name of letters, digits, _, - and .")
    return text


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


def fraction(text: str) -> float:
    """An option's number from 0 to 1, as 0.03 or as 8/255.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    above, _, below = text.partition("/")
    try:
        value = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1, such as 0.03 or 8/255")
    return value


def above_zero(text: str) -> float:
    """An option's finite number above 0.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main: exit status 2 and one line for bad input, 1 for a diverged run, 130 for Ctrl-C."""
    script = os.path.basename(sys.argv[0])
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of classes and files that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    # MindSpore turns Ctrl-C into a SIGTERM to its own process once it has compiled something.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ranks.silence_others()
    status, message = 0, ""
    try:
        main()
    except BadInput as error:
        status, message = 2, f"error: {error}"
    except FloatingPointError as error:
        status, message = 1, f"error: {error}"
    except KeyboardInterrupt as error:
        status, message = 130, "stopped" + (f"; {error}" if str(error) else "")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status, message = 2, (f"error: {where}{error.strerror or error}; check the files, the disk and the "
                              "limits of this machine")
    except MemoryError:
        status, message = 2, "error: out of memory; use a machine with more"
    except SystemExit as end:  # the option parser's, which has said why, or that of a rank with no work left
        status = end.code or 0
    except Exception as error:
        status, message = ranks.unexpected(error)
    sys.exit(ranks.finish(status, message and f"{script}: {message}"))
