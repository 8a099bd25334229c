"""A method with options of selection.py as one word, such as aum:keep=middle."""
import argparse

from methods import METHODS
from selection import REPLACE, not_default, parse_options, settings_by_name

VARIANT = (*REPLACE, *settings_by_name())


def variant(text: str) -> str:
    """Parses NAME[:option[=value]]..., a method and options of selection.py; leaves out its defaults."""
    name, *given = text.split(":")
    for option in sorted({word.partition("=")[0] for word in given} - {*VARIANT}):
        raise argparse.ArgumentTypeError(f"{text}: {option!r} is none of the options {', '.join(VARIANT)}")
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
