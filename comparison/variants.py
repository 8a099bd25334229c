"""Options shared by compare.py and lists.py: the data, and methods with options, such as aum:keep=middle."""
import argparse
from itertools import product
from typing import Any

from methods import InvalidInput, Selection, configure
from methods.select import COMMON, SEED, settings_by_name
from utils import options
from utils.errors import BadInput

DATA = "dataset", "data", "name", "image_size", "classes", "workers", "device"
ANY_RATE = 1e-6  # leaves room for every cut-off


def parse_variant(text: str, rate: float = ANY_RATE, seed: int = SEED) -> Selection:
    """The selection of NAME[:option[=value]]...; InvalidInput for an unknown method or unsuitable option."""
    name, *words = text.split(":")
    given: dict[str, Any] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if option in given:
            raise InvalidInput("methods", f"{text} gives {option} twice")
        if option not in (*COMMON, *settings_by_name()):
            raise InvalidInput("methods", f"{text}: {option!r} is none of the options "
                               f"{', '.join((*COMMON, *settings_by_name()))}")
        given[option] = value if equals else True
    return configure(name, rate=rate, seed=seed, **given)


def variant(text: str) -> str:
    """Parses one of --methods; options that equal the method's default are dropped."""
    try:
        return parse_variant(text).title(":", "=")
    except InvalidInput as error:
        shown = error.problem if error.keyword == "methods" else f"{text}: {error}"
        raise argparse.ArgumentTypeError(shown) from None


def choose_selections(methods: list[str], rates: list[float], n: int) -> list[tuple[str, Selection]]:
    """All methods at all rates where cut-offs leave enough of n images; BadInput if a rate keeps none."""
    selections = []
    with options.warnings_shown():
        for rate, method in product(rates, methods):
            selection = parse_variant(method, rate)
            try:
                selection.size(n)
                selections.append((method, selection))
            except InvalidInput as error:
                if error.keyword == "rate":
                    raise BadInput(f"--rates: {error.problem}") from None
                print(f"{method} at a rate of {rate:g} is skipped: {error}")
    return selections


def selection_options(method: str) -> list[str]:
    """The options of selection.py for one of --methods."""
    name, *given = method.split(":")
    return ["--method", name, *(f"--{word}" for word in given)]


def data_options(args: argparse.Namespace) -> list[str]:
    """The options of data and device that were passed, for train.py and selection.py."""
    return [word for name in DATA if (value := getattr(args, name)) for word in (f"--{name}", str(value))]
