"""The inputs of a selection: a data set or labels, and arrays of a training run or your own."""
import csv
from pathlib import Path
from typing import Any

import numpy as np

from datasets import SOURCES, DataSet, open_dataset
from utils import options
from utils.arrays import read_array
from utils.device import set_up
from utils.errors import BadInput
from utils.files import read_json_or_nothing, sha256
from utils.index import LISTS
from utils.runs import logged_epochs, read_args, trained_on

DEFAULT: dict[str, Any] = {"dataset": options.DATASET, "data": options.DATA}


def open_dataset_of(file: Path | None, given: dict[str, Any]) -> tuple[DataSet, dict[str, Any]]:
    """The data set of a training run, without the images that it skipped, and entries of the manifest.

    Args:
        file: the run's checkpoint or dynamics, with args.json beside it if this project wrote it; None: there
            is no run.
        given: options by name: dataset, data, name, image_size, classes and arch. For those that are None,
            the run's are used, or without a run DEFAULT.
    """
    if file and not file.is_file():
        raise BadInput(f"{file}: no such file; pass one that train.py wrote")
    run = read_args(file.parent) if file else {}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if run and chosen.get("dataset") in (None, run.get("dataset")):
        from_run = {name: run[name] for name in ("dataset", "name", "data")
                    if name not in chosen and run.get(name) and str(run[name]) != str(DEFAULT.get(name))}
        if not Path(from_run.get("data", ".")).exists():  # relative to another folder, or moved
            del from_run["data"]
        if from_run:
            print("as in the training run:", *(f"--{name} {value}" for name, value in from_run.items()))
        chosen = from_run | chosen
    chosen = DEFAULT | chosen
    image_size, classes = (chosen.get(name, run.get(name)) for name in ("image_size", "classes"))
    data = open_dataset(chosen["dataset"], Path(chosen["data"]), image_size, classes, chosen.get("name"))
    origin = {"images_sha256": data.images_sha256, "classes": classes,
              "arch": chosen.get("arch", run.get("arch")),
              "image_size": data.image_size if run else chosen.get("image_size")}
    if file and run:
        check_run(file, run, data, given, SOURCES[chosen["dataset"]].side)
        origin["trained_on"] = trained_on(run)
        origin |= {name: run[name] for name in ("damaged", "pretrained") if run.get(name)}
        if run.get("damaged") and run.get("images_sha256") == data.images_sha256:
            data = data.without(run["damaged"], ())
    elif file and file.suffix != ".npy":
        print(f"{file}: no args.json beside it; assuming training on {len(data.classes)} classes with "
              f"{data.image_size}x{data.image_size} pixels")
    return data, origin


def check_run(file: Path, run: dict[str, Any], data: DataSet, given: dict[str, Any], side: int) -> None:
    """Warn if a run was not trained on all of this data set, or was stopped before its last epoch.

    Raises BadInput if options contradict those of the run; `side` is the run's image size, in pixels, if it
    records none.
    """
    not_recorded = {"arch": given.get("arch"), "image_size": side,
                    "classes": given.get("classes") if data.train.subset is None else "all"}
    for name, otherwise in not_recorded.items():
        option, trained = given.get(name), run.get(name) or otherwise
        if option not in (None, trained):
            raise BadInput(f"--{name} {option}: the run of {file} has {trained}, as args.json beside it "
                           "says; omit the option")
    if run.get("images_sha256", data.images_sha256) != data.images_sha256 or run.get("prune"):
        options.warn(f"{file}: trained on {trained_on(run)}, not on all images and labels of the {data.name} "
                     "in --data; using it anyway")
    finished = logged_epochs(file.parent)
    if finished not in (None, run.get("epoch", finished)):
        options.warn(f"{file}: its run has finished {finished} of {run['epoch']} epochs; using it anyway")


def read_labels(path: Path) -> np.ndarray:
    """Your own labels, (n,), from a .npy file, or from a .csv or .txt file with one label per line.

    Labels in text are integers if all lines are whole numbers, else strings.
    """
    remedy = "save one label per image with numpy.save, or as a .csv or .txt file with one label per line"
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".txt"):
        return np.array(read_array(path, remedy))
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not text in UTF-8; {remedy}") from None
    rows = list(csv.reader(lines)) if suffix == ".csv" else [[line] for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 1 or not row[0].strip():
            raise BadInput(f"{path}: line {number} is not one label; {remedy}")
    labels = [row[0].strip() for row in rows]
    whole = [label.removeprefix("-").isdecimal() for label in labels]
    if len(labels) > 1 and all(whole[1:]) and not whole[0]:
        raise BadInput(f"{path}: line 1 is {labels[0]!r}, but all others are whole numbers; delete it")
    return np.array(labels).astype(int if all(whole) else str)


def read_arrays(needs: tuple[str, ...], own: dict[str, Path], checkpoint: Path | None, data: DataSet | None,
                save: Path, arch: str | None = None, workers: int | None = None, device: str = "auto"
                ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays that a selection needs, by name, and the files that they come from, for the manifest.

    Args:
        needs: some of "features", "logits" and "dynamics".
        own: your own .npy files by name, also "score".
        checkpoint: gives features and logits that are not among `own`; dynamics are in its folder.
        save: folder of the index, to which features are written if the checkpoint's folder is not writable.
    """
    files: dict[str, Any] = {}
    if checkpoint and needs:
        files = {"checkpoint": str(checkpoint), "checkpoint_sha256": sha256(checkpoint)}
        if "dynamics" in needs:
            own = {"dynamics": checkpoint.with_name("dynamics.npy"), **own}
    arrays: dict[str, Any] = {}
    for name, path in own.items():
        arrays[name] = read_array(path, f"--{name} takes an array that numpy.save wrote" if name != "dynamics"
                                  else "train.py writes it, without --prune and with --dynamics True")
        files |= {name: str(path), f"{name}_sha256": sha256(path)}
    if "dynamics" in arrays:  # after a stopped run, the last epochs are NaN
        check_dynamics(own["dynamics"], checkpoint, data)
        files["epochs"] = sum(not np.isnan(epoch).all() for epoch in arrays["dynamics"])
    if data and checkpoint and {"features", "logits"} & set(needs):
        from models.checkpoint import find_arch  # only here: nothing else needs MindSpore
        from models.features import features_and_logits
        set_up(device, options.SEED)
        arch = find_arch(arch, checkpoint)
        arrays |= features_and_logits(data, arch, checkpoint, save, workers, needs)
        files |= {"arch": arch, "image_size": data.image_size}
    return arrays, files


def check_dynamics(path: Path, checkpoint: Path | None, data: DataSet | None) -> None:
    """Raise BadInput if training dynamics are not of the checkpoint's run or not of the data set's images.

    Without args.json beside them, a warning says that their images were not checked.
    """
    if checkpoint and checkpoint.parent.resolve() != path.parent.resolve():
        raise BadInput(f"{path}: not in the folder of {checkpoint}, so of another run; pass both of one run")
    if data:
        run = read_args(path.parent)
        if not run:
            options.warn(f"{path}: no args.json beside it; cannot check that it is of the images of "
                         f"{data.name}, in their order")
        elif run.get("images_sha256") != data.images_sha256:
            raise BadInput(f"{path}: not of the images of {data.name} in --data, according to args.json "
                           "beside it; pass the dynamics of a run on these")


def hard_end_of(score: Path) -> str | None:
    """The hard end of a score that this project wrote, from the manifest beside it; None: unknown."""
    lists = read_json_or_nothing(score.with_name(LISTS)).get("scores", {})
    manifest = read_json_or_nothing(score.with_name(score.name.removesuffix(".scores.npy") + ".json"))
    hard = lists.get(score.name, manifest).get("hard")
    if hard:
        print(f"{score}: hard images are at its {hard} end, according to the manifest beside it")
    return hard
