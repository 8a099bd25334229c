"""Options that the scripts of this folder share, and where their data and records lie."""
from pathlib import Path
from typing import Any

from datasets.scenes import UNFINISHED
from robust.corruptions import CORRUPTIONS
from robust.project import ROOT
from utils.device import versions
from utils.errors import BadInput
from utils.files import read_json, sha256, write_json
from utils.options import Number, Parser, add_seed_option, fraction, positive

TINY = "tiny-imagenet-200"
rate_of_each = Number(0, 1 / len(CORRUPTIONS))  # parses the fraction of the images for each corruption


def make_parser(description: str) -> Parser:
    """A parser with the options that all scripts of this folder have: --data and --seed."""
    parser = Parser(description)
    parser.add_argument("--data", default=ROOT / "data", type=Path,
                        help="folder that holds the data set's own folder")
    add_seed_option(parser, "everything random")
    return parser


def add_noise_options(parser: Parser, rate: float) -> None:
    """Add the options of label noise: --rate with this default, and --classes."""
    parser.add_argument("--rate", "--share", default=rate, type=fraction, help="probability of another label")
    parser.add_argument("--classes", type=positive, help="change labels of the first CLASSES classes only, "
                        "among these; None: of all")


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


def check_own(record_path: Path, *paths: Path) -> None:
    """Make sure that these scripts wrote the files that are there.

    Raises:
        BadInput: one of them is somebody else's: there is no record, or another content than it says.
    """
    record = read_json(record_path, "delete it")
    for path in filter(Path.exists, paths):
        if not record or "files" in record and sha256(path) not in record["files"]:
            raise BadInput(f"{path}: not written by this script, {record_path.name} beside it would say so; "
                           "move it away")


def begin_files(record_path: Path, *paths: Path) -> None:
    """Note in the record that files are about to be written or replaced; raises BadInput as check_own."""
    check_own(record_path, *paths)
    write_json(record_path, UNFINISHED)


def write_record(record_path: Path, settings: dict[str, Any], *paths: Path) -> None:
    """Write the JSON file that says how files were made, after them: settings, versions, their SHA-256."""
    write_json(record_path, {**settings, "files": [sha256(path) for path in paths], "versions": versions()})
