"""What compare.py and lists.py both take: data, rates, and methods with options, such as aum:keep=middle."""
import argparse
from collections.abc import Iterable

import numpy as np

from methods import METHODS
from methods.choice import coreset_size, cut
from selection import REPLACE, not_default, parse_options, settings_by_name
from utils.errors import BadInput

DATA = "dataset", "data", "name", "image_size", "classes", "workers", "device"
VARIANT = (*REPLACE, *settings_by_name())


def variant(text: str) -> str:
    """Parses NAME[:option[=value]]..., a method and options of selection.py; leaves out its defaults."""
    name, *given = text.split(":")
    options = [word.partition("=")[0] for word in given]
    for option in sorted({*options} - {*VARIANT}):
        raise argparse.ArgumentTypeError(f"{text}: {option!r} is none of the options {', '.join(VARIANT)}")
    if len(set(options)) < len(options):
        raise argparse.ArgumentTypeError(f"{text}: names an option twice")
    if name not in METHODS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(METHODS)}")
    return ":".join([name, *not_default(selection_of(text), "=")])


def selection_options(method: str) -> list[str]:
    """The options of selection.py that one of --methods says."""
    name, *given = method.split(":")
    return ["--method", name, *(f"--{word}" if "=" in word else f"--{word}=True" for word in given)]


def selection_of(method: str) -> argparse.Namespace:
    """The same, parsed."""
    return parse_options(["--ckpt", "best.pth", *selection_options(method)])


def data_options(args: argparse.Namespace) -> list[str]:
    """The options of data and device that have a value, for train.py and selection.py."""
    return [word for name in DATA if (value := getattr(args, name)) for word in (f"--{name}", str(value))]


def coreset_sizes(rates: list[float], selections: Iterable[argparse.Namespace], n: int) -> dict[float, int]:
    """The size of a coreset of n images by its rate.

    Raises:
        BadInput: a rate keeps none of them, or a method's cut-off leaves too few for it.
    """
    sizes = {rate: coreset_size(n, rate) for rate in rates}
    for rate, size in sizes.items():
        if not size:
            raise BadInput(f"--rates {rate:g}: keeps none of {n} images; name a larger one")
        for selection in selections:
            try:
                cut(np.arange(n), selection.hard_cutoff, "high", size)
            except BadInput as error:
                raise BadInput(f"--methods {selection.method} at --rates {rate:g}: {error}") from None
    return sizes
