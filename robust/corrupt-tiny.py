"""Corrupt the training images of a copy of Tiny ImageNet in place, for tinyC: `python corrupt-tiny.py`

Make the copy first: cp -r ../data/tiny-imagenet-200 ../data/tiny-imagenet-200-corrupt
corrupt.json in the copy then says which image got which corruption.
"""
import os
from pathlib import Path

import numpy as np
from PIL import Image

import project  # noqa: F401  first: it finds the project's own modules
from datasets.images import Split
from datasets.scenes import CLEAN, COPY_AGAIN, FINISHED, NOTE
from datasets.tiny import read_tiny
from robust import options
from robust.corruptions import CORRUPTIONS, choose_kinds, describe
from utils.device import random_stream
from utils.errors import BadInput
from utils.files import locked, read_json, write_json
from utils.options import run_script
from utils.progress import ProgressBar

FOLDER = "tiny-imagenet-200-corrupt"  # the copy in --data, which may also name the copy itself
# Each of the five corruptions gets this fraction of the images: with 0.2 every image is corrupted. The
# paper's tables use 20 % in all, 0.04.
RATE = 0.2
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
        kinds = choose_kinds(len(train.labels), args.rate, args.seed)
        paths = [os.path.relpath(name, folder) for name in train.names]
        note = {"seed": args.seed, "rate": args.rate, "images": len(paths),
                "kinds": dict(zip(paths, kinds.tolist(), strict=True))}
        write_json(folder / NOTE, {"state": "in progress", **note})
        images = corrupt_files(train, kinds, args.seed)
        options.write_record(folder / NOTE, {"state": FINISHED, **note,
                                             "images_sha256": Split(images, train.labels).sha256()})
    print(f"{folder}: {describe(kinds)}")


def read_copy(folder: Path) -> Split:
    """The training images of a copy, none of which is corrupted or lies outside of it.

    Raises:
        BadInput: one is or does.
    """
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


def corrupt_files(train: Split, kinds: np.ndarray, seed: int) -> list[bytes]:
    """Corrupt image files where they lie and return the contents of all; `kinds` (n,) as by `choose_kinds`.

    What an image becomes depends on itself, its id and the seed alone.
    """
    contents: list[bytes] = list(train.images)
    chosen = np.flatnonzero(kinds != CLEAN)
    with ProgressBar("corrupt", len(chosen), "image") as bar:
        for i in chosen:
            pixels = CORRUPTIONS[kinds[i]](train.pixels([i])[0], random_stream(seed, "corruption", i))
            path = Path(train.names[i])
            path.unlink()  # a copy made of hard links shares the file with the original
            Image.fromarray(pixels).save(path, format="JPEG", quality=95, subsampling=0)
            contents[i] = path.read_bytes()
            bar.update()
    return contents


if __name__ == "__main__":
    run_script(main)
