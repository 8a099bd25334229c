"""Corrupt the training images of a copy of Tiny ImageNet in place, for tinyC: `python corrupt-tiny.py`

Make the copy first: cp -r ../data/tiny-imagenet-200 ../data/tiny-imagenet-200-corrupt
corrupt.json in the copy then says which image got which corruption.
"""
import os
from pathlib import Path

import project  # noqa: F401  first: it finds the project's own modules
from datasets.images import Split
from datasets.scenes import COPY_AGAIN, FINISHED, NOTE
from datasets.tiny import read_tiny
from robust import corruptions, options
from utils.errors import BadInput
from utils.files import locked, read_json, write_json
from utils.options import run_script

RATE = 0.2  # the fraction of the images for each of five corruptions: 0.2 corrupts all, 0.04 the paper's 20 %
FOLDER = "tiny-imagenet-200-corrupt"  # the copy in --data, which may also name the copy itself
ENDING = "-corrupt"  # of a copy's name


def main() -> None:
    parser = options.make_parser("Corrupt the training images of a copy of Tiny ImageNet in place.")
    parser.add_argument("--rate", default=RATE, type=options.rate_of_each,
                        help="fraction of the images for each corruption")
    args = parser.parse_args()
    folder = options.tiny_folder(args.data, FOLDER)[0]
    real, original = (Path(os.path.realpath(path)) for path in (folder, folder.parent / options.TINY))
    if not real.name.endswith(ENDING) or real == original:
        raise BadInput(f"{folder}: is the original (the name of a copy ends in {ENDING}); copy it with cp -r "
                       f"{real} {real.parent / options.TINY}{ENDING} and corrupt that")
    with locked(folder):
        train = read_copy(folder)
        kinds = corruptions.choose_kinds(len(train.labels), args.rate, args.seed)
        paths = [os.path.relpath(name, folder) for name in train.names]
        note = {"seed": args.seed, "rate": args.rate, "images": len(paths),
                "kinds": dict(zip(paths, kinds.tolist(), strict=True))}
        write_json(folder / NOTE, {"state": "in progress", **note})
        images = corruptions.corrupt_files(train, kinds, args.seed)
        options.write_record(folder / NOTE, {"state": FINISHED, **note,
                                             "images_sha256": Split(images, train.labels).sha256()})
    print(f"{folder}: {corruptions.describe(kinds)}")


def read_copy(folder: Path) -> Split:
    """The training images of a copy; BadInput if it is corrupted already or an image lies outside it."""
    if note := read_json(folder / NOTE, COPY_AGAIN):
        done = f"corrupted already, with --rate {note.get('rate')} --seed {note.get('seed')}"
        state = done if note.get("state") == FINISHED else "half corrupted, by a run that was stopped"
        raise BadInput(f"{folder}: {state}; {COPY_AGAIN}")
    train, _, _ = read_tiny(folder)
    real = Path(os.path.realpath(folder))
    for name in train.names:
        if not Path(os.path.realpath(name)).is_relative_to(real):
            raise BadInput(f"{name}: a link that leads out of the copy, so its target would be corrupted; "
                           f"{COPY_AGAIN}")
    return train


if __name__ == "__main__":
    run_script(main)
