"""Options that the scripts of this folder share, and where their data lie."""
import argparse
from pathlib import Path

from datasets import DataSet, open_dataset
from robust.corruptions import CORRUPTIONS
from robust.project import ROOT
from utils.files import BadInput
from utils.options import Parser, add_seed_option, fraction

TINY = "tiny-imagenet-200"


def make_parser(description: str) -> Parser:
    """A parser with the options that all scripts of this folder have: --data and --seed."""
    parser = Parser(description)
    parser.add_argument("--data", default=ROOT / "data", type=Path,
                        help="folder that holds the data set's own folder")
    add_seed_option(parser, of="everything random")
    return parser


def fraction_of_each(text: str) -> float:
    """An option's fraction of the images for each corruption: at most 1 / number of corruptions.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    value, largest = fraction(text), 1 / len(CORRUPTIONS)
    if value > largest:
        raise argparse.ArgumentTypeError(f"{text}: each of the {len(CORRUPTIONS)} corruptions gets this "
                                         f"fraction of the images; name a number from 0 to {largest:g}")
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
