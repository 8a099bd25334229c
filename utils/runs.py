"""The folder of a training run: args.json, log.csv, the record of training dynamics."""
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from utils import distributed
from utils.arrays import create_array, open_array, read_array
from utils.errors import BadInput
from utils.files import read_json, replacing, to_json, write_json
from utils.metrics import ByImage

# args.json is the first to be moved: without it there is no run to resume.
RUN_FILES = ("args.json", "last.pth", "best.pth", "log.csv", "dynamics.npy", "damaged.txt")
# In args.json, but not compared when a run is resumed; for an index and pretrained weights, kept_sha256 and
# pretrained_sha256 are compared instead.
MAY_DIFFER = ("data", "prune", "kept", "pretrained", "model_dir", "resume", "workers", "check",
              "skip_damaged", "versions", "device", "index")
COLUMNS = ("epoch", "lr", "train_loss", "train_acc", "test_loss", "test_acc", "test_worst_class_acc",
           "test_worst_tenth_acc", "train_seconds", "test_seconds", "images_per_second")
AGAIN = "start again without --resume"


def open_run(folder: Path, options: dict[str, Any], resume: bool) -> bool:
    """Start a run in a folder or find the one to resume; return whether it has finished epochs."""
    resumed = bool(distributed.broadcast(lambda: resume and can_resume(folder, options)))
    if not resumed:
        start_folder(folder, options)
    return resumed


def can_resume(folder: Path, options: dict[str, Any]) -> bool:
    """Whether a folder has finished epochs of this run; BadInput if its run has other options or images."""
    path = folder / "args.json"
    if not path.exists():
        print(f"no run to resume in {folder}: starting one")
        return False
    # The base runs in results/ are older than these options.
    earlier = {"amp_level": "O0", "damaged": [], **read_json(path, AGAIN)}
    for name, value in json.loads(to_json(options)).items():
        if name not in MAY_DIFFER and earlier.get(name) != value:
            reason = ", and learning rates change at fractions of the run" if name == "epoch" else ""
            raise BadInput(f"--resume: {name} is {value}, but {earlier.get(name)} in {path}{reason}; "
                           f"pass the options of that run, or {AGAIN}")
    for name in ("device", "versions"):
        if earlier.get(name) != options[name]:
            print(f"the run was started with another {name}: {earlier.get(name)}; numbers may differ in the "
                  "last digits")
    if not (folder / "last.pth").exists():
        print(f"no finished epoch in {folder}: starting again")
    return (folder / "last.pth").exists()


@distributed.on_first
def start_folder(folder: Path, options: dict[str, Any]) -> None:
    """Move the files of an earlier run to a dated subfolder and write args.json."""
    earlier = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if {path.name for path in earlier} <= {"args.json", "dynamics.npy", "damaged.txt"}:
        # That run was stopped before the end of its first epoch, when log.csv is written.
        for path in earlier:
            path.unlink()
    else:
        dated = folder / time.strftime("earlier-%Y%m%d-%H%M%S")
        while dated.exists():
            dated = dated.with_name(dated.name + "x")
        dated.mkdir()
        for path in earlier:
            path.rename(dated / path.name)
        print(f"moved the files of an earlier run to {dated}")
    write_json(folder / "args.json", options)


@distributed.on_first
def write_damaged(folder: Path, lines: list[str]) -> None:
    """Write damaged.txt, a line per skipped image."""
    with replacing(folder / "damaged.txt") as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")


def read_args(folder: Path) -> dict[str, Any]:
    """The options in a folder's args.json; {} if there is none, BadInput if it is damaged."""
    return read_json(folder / "args.json", "train again, or choose another checkpoint")


def logged_epochs(folder: Path) -> int | None:
    """The number of epochs in a run's log.csv; None: there is no such file."""
    path = folder / "log.csv"
    return len(path.read_text(errors="replace").splitlines()) - 1 if path.exists() else None


def trained_on(args: dict[str, Any]) -> str:
    """What the run with these options was trained on, in words: the data set and the size of a coreset."""
    coreset = f", a coreset of {args.get('images')} images" if args.get("prune") else ""
    return f"{args.get('name') or args.get('dataset')}{coreset}"


def read_log(folder: Path, finished: int, tested: bool) -> list[dict[str, Any]]:
    """The rows of log.csv for the finished epochs of a run to resume.

    Raises:
        BadInput: it lacks one of these rows or a column; or best.pth of a `tested` network is missing.
    """
    path = folder / "log.csv"
    text = path.read_bytes().decode("ascii", "replace")
    rows: list[dict[str, Any]] = [  # an older log has another name for the worst class, or lacks columns
        {"test_worst_class_acc": row.pop("test_lowest_class_acc", ""), "test_worst_tenth_acc": "", **row}
        for row in csv.DictReader(text.splitlines())][:finished]
    if ([row.get("epoch") for row in rows] != [str(i + 1) for i in range(finished)]
            or any(row.keys() != set(COLUMNS) for row in rows)):
        raise BadInput(f"{path}: not the log of the {finished} epochs of last.pth; {AGAIN}")
    if tested and not (folder / "best.pth").exists():
        raise BadInput(f"{folder / 'best.pth'}: missing; {AGAIN}")
    print(f"resuming after epoch {finished}", flush=True)
    return rows


@distributed.on_first
def add_fitted(folder: Path, mislabelled: np.ndarray) -> None:
    """Print and add to args.json the percentage of wrong labels, bool (n,), predicted in the last epoch."""
    margin = read_array(folder / "dynamics.npy", AGAIN)[-1, 1]
    fitted = float(100 * (margin[mislabelled] > 0).mean())
    write_json(folder / "args.json", {**read_args(folder), "fitted_wrong_labels_percent": fitted})
    print(f"the training has fitted {fitted:.1f} % of the wrong labels (augmented images, training mode)")


class Dynamics:
    """The record of training dynamics, dynamics.npy, float16 (epochs, 3, images); NaN for unfinished epochs.

    For each epoch and image, as it was trained on (transformed, in training mode): the probability p_y of its
    label, p_y minus the highest other probability, and the norm of p - y.
    """

    def __init__(self, path: Path, epochs: int, images: int, resume: bool) -> None:
        self.images = images
        self.pending: ByImage = []  # of the epoch; values (3, b)
        self.array = self._open(path, (epochs, 3, images), resume)

    @staticmethod
    @distributed.on_first
    def _open(path: Path, shape: tuple[int, ...], resume: bool) -> np.memmap:
        if not resume:
            array = create_array(path, shape, np.float16)
            array[:] = np.nan
            return array
        array = open_array(path, AGAIN)
        if (array.shape, array.dtype) != (shape, np.float16):
            raise BadInput(f"{path}: {array.dtype} {array.shape}, not float16 {shape}; {AGAIN}")
        return array

    def write_epoch(self, number: int) -> None:
        """Write the pending values as epoch `number`, from 0."""
        epoch = np.full((1, 3, self.images), np.nan, np.float16)
        for positions, values in self.pending:
            seen = positions >= 0  # without the padding of a batch
            epoch[0, :, positions[seen]] = values.asnumpy().T[seen]
        self.pending.clear()
        epoch = np.fmax.reduce(distributed.all_gather(epoch))  # a rank has NaN for images of the others
        if distributed.is_first():
            self.array[number] = epoch
            self.array.flush()
