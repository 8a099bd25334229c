"""Corrupt the training images of a copy of Tiny ImageNet where they lie."""
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.images import Split
from datasets.scenes import FINISHED, NOTE
from datasets.tiny import read_tiny
from robust.corruptions import CLEAN, CORRUPTIONS, choose_kinds, describe
from robust.options import TINY
from robust.records import save_record
from utils.device import random_stream
from utils.files import BadInput, locked, read_json, replacing
from utils.progress import progress_bar

IN_PROGRESS = "in progress"
MARK = b"corrupted by robust/corrupt-tiny.py: "  # and the kind: a JPEG comment of every corrupted image
MARK_WITHIN = 500  # bytes from a file's start
JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
COPY = "-corrupt"  # how a copy's name ends
COPY_ANEW = f"delete the folder and copy {TINY} again with cp -r"


def corrupt_copy(folder: Path, rate: float, seed: int) -> None:
    """Corrupt a fraction of the training images of a copy of Tiny ImageNet; its validation images stay clean.

    A note in the folder, written first, says what is to be done. An image is replaced in one step and carries
    its corruption's name as a JPEG comment: one that has it is done, wherever an earlier run was stopped, and
    what an image becomes depends on itself, its id and `seed` alone. So a run that was stopped and run again
    gives the same files.

    Args:
        rate: fraction of the images for each of the five corruptions.

    Raises:
        BadInput: it is not a copy, or corrupted already, or with other settings; files are missing or
            damaged.
    """
    real = Path(os.path.realpath(folder))
    if not real.name.endswith(COPY) or real == Path(os.path.realpath(folder.parent / TINY)):
        raise BadInput(f"{folder}: is the original (the name of a copy ends in {COPY}); copy it with cp -r "
                       f"{real} {real.parent / TINY}{COPY} and corrupt that")
    with locked(folder):
        note = read_json(folder / NOTE, COPY_ANEW)
        if note.get("state") == FINISHED:
            raise BadInput(f"{folder}: corrupted already, with --rate {note.get('rate')} --seed "
                           f"{note.get('seed')}; to corrupt it anew, {COPY_ANEW}")
        train, _, _ = read_tiny(folder)
        kinds = choose_kinds(len(train.labels), rate, seed)
        for name in train.names:
            if not Path(os.path.realpath(name)).is_relative_to(real):
                raise BadInput(f"{name}: a link that leads out of the copy, so its target would be "
                               f"corrupted; {COPY_ANEW}")
        paths = [os.path.relpath(name, folder) for name in train.names]
        plan = {"state": IN_PROGRESS, "seed": seed, "rate": rate, "images": len(paths),
                "kinds": dict(zip(paths, kinds.tolist()))}
        if note and any(note.get(name) != value for name, value in plan.items()):
            raise BadInput(f"{folder}: half corrupted, with --rate {note.get('rate')} --seed "
                           f"{note.get('seed')}; finish it with those, or {COPY_ANEW}")
        done = np.array([is_done(content, path, kind)
                         for content, path, kind in zip(train.images, train.names, kinds)])
        if not note and done.any():
            raise BadInput(f"{train.names[done.argmax()]}: corrupted already, but {folder / NOTE} is "
                           f"missing; {COPY_ANEW}")
        save_record(folder / NOTE, plan)
        left = np.flatnonzero((kinds != CLEAN) & ~done)
        with progress_bar("corrupt", len(left), "image") as bar:
            for i in left:
                with replacing(Path(train.names[i])) as temporary:
                    temporary.write_bytes(corrupted_jpeg(train, i, str(kinds[i]), seed))
                bar.update()
        save_record(folder / NOTE,
                    {**plan, "state": FINISHED, "images_sha256": read_tiny(folder)[0].sha256()})
    print(f"{folder}: {describe(kinds)}")


def is_done(content: bytes, path: str, kind: str) -> bool:
    """Whether an image carries the mark of its corruption.

    Raises:
        BadInput: it carries that of another.
    """
    at = content.find(MARK, 0, MARK_WITHIN)
    if at < 0:
        return False
    if not content.startswith(kind.encode(), at + len(MARK)):
        raise BadInput(f"{path}: carries the mark of another corruption than {kind}; {COPY_ANEW}")
    return True


def corrupted_jpeg(split: Split, i: int, kind: str, seed: int) -> bytes:
    """An image of a split under a corruption, as a JPEG file that names it."""
    pixels = CORRUPTIONS[kind](split.pixels([i])[0], random_stream(seed, "corruption", i))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **JPEG, comment=MARK + kind.encode())
    return file.getvalue()
