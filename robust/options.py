"""Options that the scripts of this folder share, and where their data lie."""
import argparse
import math
from pathlib import Path

import runtime
from datasets import DataSet, open_dataset
from files import BadInput
from robust.corruptions import CORRUPTIONS
from robust.project import ROOT

TINY = "tiny-imagenet-200"


def make_parser(description: str) -> runtime.Parser:
    """A parser with the options that all six scripts have: --data and --seed."""
    parser = runtime.Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default=ROOT / "data", type=Path,
                        help="folder that holds the data set's own folder")
    parser.add_argument("--seed", default=42, type=runtime.seed_number, help="of everything random")
    return parser


def share(text: str) -> float:
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


def share_of_each(text: str) -> float:
    """An option's share of the images for each corruption: from 0 to one in as many as there are corruptions.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    value, largest = share(text), 1 / len(CORRUPTIONS)
    if value > largest:
        raise argparse.ArgumentTypeError(f"{text}: each of the {len(CORRUPTIONS)} corruptions gets this "
                                         f"share of the images; name a number from 0 to {largest:g}")
    return value


def tiny_folder(data: Path, name: str = TINY) -> tuple[Path, Path]:
    """A copy of Tiny ImageNet and the folder that the scripts write to.

    Args:
        data: the folder above the copy, or the copy itself, as train.py takes it.
        name: of the copy's folder.

    Raises:
        BadInput: neither is there.
    """
    folder = data if (data / "train").is_dir() else data / name
    if not (folder / "train").is_dir():
        raise BadInput(f"{folder / 'train'}: missing; --data takes {name} or the folder that holds it")
    return folder, folder.resolve().parent if folder is data else data


def open_tiny(data: Path) -> tuple[DataSet, Path]:
    """Tiny ImageNet and the folder that the scripts write to; `data` as in `tiny_folder`.

    Raises:
        BadInput: files are missing or damaged.
    """
    folder, above = tiny_folder(data)
    return open_dataset("tiny", folder), above
