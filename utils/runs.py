"""A training run's folder: args.json, log.csv, what --resume needs, the record of training dynamics."""
import csv
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils import ranks
from utils.arrays import GrowingArray
from utils.files import BadInput, read_bytes, read_json, to_json, write_csv, write_json

# args.json first: without it there is no run to resume.
RUN_FILES = ("args.json", "last.pth", "best.pth", "log.csv", "dynamics.npy")
# In args.json, but free to differ in a resumed run.
PLACES = ("data", "prune", "model_dir", "resume", "workers", "check", "versions")
COLUMNS = ("epoch", "lr", "train_loss", "train_acc", "test_loss", "test_acc", "train_seconds", "test_seconds",
           "images_per_second")
AGAIN = "start again without --resume"


def open_run(folder: Path, options: dict[str, Any], resume: bool) -> bool:
    """Begin a run in a folder, or find the one to resume; return whether there are finished epochs of it.

    Args:
        options: for args.json.
        resume: whether to go on with the run in the folder.

    Raises:
        BadInput: the folder cannot be written, or the run in it has other options, images or versions of its
            own files than this one.
    """
    resumed = bool(ranks.from_first(lambda: resume and can_resume(folder, options)))
    if not resumed:
        start_folder(folder, options)
    return resumed


def can_resume(folder: Path, options: dict[str, Any]) -> bool:
    """Whether a folder has finished epochs of the same run.

    Raises:
        BadInput: it has another run, or args.json is damaged.
    """
    path = folder / "args.json"
    if not path.exists():
        print(f"no run to resume in {folder}: starting one")
        return False
    earlier = read_json(path, AGAIN)
    for name, value in json.loads(to_json(options)).items():
        # Of the index kept_sha256 is compared: its manifest has paths and versions of the selection.
        if name not in (*PLACES, "index") and earlier.get(name) != value:
            raise BadInput(f"--resume: {name} is {value}, but {earlier.get(name)} in {path}; "
                           f"give the run's own options, or {AGAIN}")
    if earlier.get("versions") != options["versions"]:
        print(f"the run was started with other versions: {earlier.get('versions')}")
    if not (folder / "last.pth").exists():
        print(f"no finished epoch in {folder}: starting again")
    return (folder / "last.pth").exists()


@ranks.by_first
def start_folder(folder: Path, options: dict[str, Any]) -> None:
    """Move an earlier run's files to a dated folder in the run's folder and write args.json.

    Raises:
        BadInput: the folder cannot be written.
    """
    earlier = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if {path.name for path in earlier} <= {"args.json", "dynamics.npy"}:
        earlier = []  # it was stopped before its first epoch's end, at which log.csv is written first
        (folder / "dynamics.npy").unlink(missing_ok=True)
    if earlier:
        dated = folder / time.strftime("earlier-%Y%m%d-%H%M%S")
        while dated.exists():
            dated = dated.with_name(dated.name + "x")
        try:
            dated.mkdir()
            for path in earlier:
                path.rename(dated / path.name)
        except OSError as error:
            raise BadInput(f"{folder}: an earlier run cannot be moved ({error.strerror}); "
                           "name another --model_dir") from error
        print(f"moved the files of an earlier run to {dated}")
    write_json(folder / "args.json", options)


def identity(options: dict[str, Any]) -> str:
    """What a run's files have in common: the SHA-256 of its options, less PLACES, in hexadecimal."""
    told = {name: value for name, value in json.loads(to_json(options)).items() if name not in PLACES}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_args(folder: Path) -> dict[str, Any]:
    """The options in a folder's args.json; {} where there is none."""
    try:
        return read_json(folder / "args.json", "")
    except BadInput:
        return {}


def after_ctrl_c(folder: Path, save: bool) -> str:
    """What becomes of a run that Ctrl-C stopped."""
    if not save:
        return "nothing was saved"
    if not (folder / "last.pth").exists():
        return "no epoch was finished, so there is nothing to go on with"
    return f"the finished epochs are safe in {folder}; go on with --resume"


def read_log(path: Path, finished: int) -> list[dict[str, str]]:
    """The rows of a log.csv for the finished epochs.

    Raises:
        BadInput: it is missing, no log, or has not a row for each of them.
    """
    rows = list(csv.DictReader(read_bytes(path).decode("ascii", "replace").splitlines()))
    if any(tuple(row) != COLUMNS for row in rows):
        raise BadInput(f"{path}: not a log of train.py; {AGAIN}")
    if [row["epoch"] for row in rows[:finished]] != [str(i + 1) for i in range(finished)]:
        raise BadInput(f"{path}: has no row for each of the {finished} epochs of last.pth; {AGAIN}")
    return rows[:finished]


def write_log(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a log.csv in one step, numbers with six digits.

    Raises:
        BadInput: it cannot be written.
    """
    write_csv(path, [{name: f"{value:.6g}" if isinstance(value, float) else value
                      for name, value in row.items()} for row in rows], COLUMNS)


class Dynamics:
    """The record of training dynamics, dynamics.npy, float16 (epochs, 3, n).

    For each epoch and image, as it was presented (transformed, in training mode): the probability p_y of its
    label, p_y less the highest other probability, and the norm of p - y. An epoch is appended at its end,
    each image's by the rank that had it.

    Args:
        images: n.
        finished: epochs of the run that is resumed; later ones in the file are dropped.

    Raises:
        BadInput: the file cannot be opened, or lacks one of the finished epochs.
    """

    def __init__(self, path: Path, images: int, finished: int) -> None:
        self.path, self.images = path, images
        self.pending = []
        self._open(finished)

    @ranks.by_first
    def _open(self, finished: int) -> None:
        with GrowingArray(self.path) as array:
            if array.rows < finished:
                raise BadInput(f"{self.path}: has no record of each of the {finished} epochs of last.pth; "
                               f"{AGAIN}")
            array.keep(finished)

    def record(self, ids: np.ndarray, values: Any) -> None:
        """Take the values (3, k) of k images, a tensor that may still be in the making."""
        self.pending.append((ids, values))

    def finish_epoch(self) -> str:
        """Append the epoch; return its SHA-256, which its checkpoints hold.

        Raises:
            BadInput: the disk is full.
        """
        epoch = np.full((1, 3, self.images), np.nan, np.float16)
        for ids, values in self.pending:
            seen = ids >= 0  # not rows that fill up a batch
            epoch[0, :, ids[seen]] = values.asnumpy().T[seen]
        self.pending.clear()
        epoch = np.fmax.reduce(ranks.gather(epoch), keepdims=True)  # a rank has NaN for the others' images
        self._append(epoch)
        return hashlib.sha256(epoch).hexdigest()

    @ranks.by_first
    def _append(self, epoch: np.ndarray) -> None:
        with GrowingArray(self.path) as array:
            array.append(epoch)
