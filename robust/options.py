"""Options that the scripts of this folder share, and the records of the files that they write."""
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
    """A parser with the options that all scripts of this folder share: --data and --seed."""
    parser = Parser(description)
    parser.add_argument("--data", default=ROOT / "data", type=Path,
                        help="folder that holds the data set's own folder")
    add_seed_option(parser, "everything random")
    return parser


def add_noise_options(parser: Parser, rate: float) -> None:
    """Add the options of label noise: --rate, with this default, and --classes."""
    parser.add_argument("--rate", "--share", default=rate, type=fraction, help="probability of another label")
    parser.add_argument("--classes", type=positive, help="change labels of the first CLASSES classes only, "
                        "among these (default: all)")


def tiny_folder(data: Path, name: str = TINY) -> tuple[Path, Path]:
    """The folder of Tiny ImageNet and the folder above it, which the scripts write to; BadInput if missing.

    Args:
        data: one of the two.
        name: of the data set's folder.
    """
    folder = data if (data / "train").is_dir() else data / name
    if not (folder / "train").is_dir():
        raise BadInput(f"{folder / 'train'}: missing; --data takes {name} or the folder that holds it")
    return folder, folder.resolve().parent if folder is data else data


def check_own(record_path: Path, *paths: Path) -> None:
    """Raise BadInput if a file exists that these scripts did not write, by the SHA-256 in their record."""
    record = read_json(record_path, "delete it")
    for path in filter(Path.exists, paths):
        if not record or "files" in record and sha256(path) not in record["files"]:
            raise BadInput(f"{path}: not written by this script, since {record_path.name} beside it does not "
                           "record it; move it away")


def begin_files(record_path: Path, *paths: Path) -> None:
    """Record that files are about to be written or replaced; raises BadInput as check_own."""
    check_own(record_path, *paths)
    write_json(record_path, UNFINISHED)


def write_record(record_path: Path, settings: dict[str, Any], *paths: Path) -> None:
    """Write the JSON file that records how files were made: settings, versions, SHA-256."""
    write_json(record_path, {**settings, "files": [sha256(path) for path in paths], "versions": versions()})
