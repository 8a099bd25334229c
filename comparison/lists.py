"""Scores and coresets for others to use, from the mean of each score over several training runs.

    python -m comparison.lists --ckpt compared/seed-*/CIFAR100/resnet20/best.pth --out lists

Writes to --out <method>.scores.npy, the mean over the runs; <method>[-<changed settings>]-<rate>.npy, the ids
kept; manifest.json; correlations.md and, if matplotlib is installed, .png and .svg, the rank correlations
between scores and between runs. `train.py --kept <list>.npy` trains on such a list.
"""
import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils import distributed, options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
import numpy as np

from comparison.tables import markdown
from comparison.variants import choose_selections, variant
from datasets import SOURCES, DataSet
from datasets.folder import FileSplit
from datasets.inputs import open_dataset_of, read_arrays
from methods import METHODS, Method, Selection
from methods.checks import check_array
from methods.select import score_of
from utils.device import random_stream, versions
from utils.errors import BadInput
from utils.files import locked, read_json, replacing, sha256, writable, write_array, write_json
from utils.index import LISTS
from utils.runs import logged_epochs, read_args


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Write scores and lists of the images kept, from several training runs.")
    options.add_data_options(parser, SOURCES)
    options.add_device_option(parser)
    parser.add_argument("--ckpt", nargs="+", required=True, type=Path, help="checkpoints of runs on the "
                        "whole data set, with args.json and dynamics.npy beside each")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), type=variant, metavar="METHOD",
                        help="selection methods, as for compare.py")
    parser.add_argument("--rates", nargs="+", default=[0.1, 0.2, 0.3, 0.5], type=options.rate, metavar="RATE",
                        help="fractions of the images to keep")
    parser.add_argument("--out", required=True, type=Path, help="folder of the lists")
    args = parser.parse_args(argv)
    for name in ("ckpt", "methods", "rates"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    if len({path.resolve().parent for path in args.ckpt}) < len(args.ckpt):
        parser.error("--ckpt: two checkpoints of one run; pass one of each run")
    return args


# The arrays of a run by name, and its record for the manifest, with the seed of what methods draw.
BaseRun = tuple[dict[str, np.ndarray], dict[str, Any]]
Score = tuple[Method, np.ndarray]  # a method and the scores of its images by each run, float64 (runs, n)
KeptList = tuple[np.ndarray, dict[str, Any]]  # ids, int32, ascending, and their entry in the manifest


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    # Check everything before long passes.
    check_runs(args.ckpt)
    with writable(args.out), options.warnings_shown():
        data, origin = open_run(args, args.ckpt[0])
        selections = [selection for method in args.methods
                      for _, selection in choose_selections([method], args.rates, len(data.train.labels))]
        check_folder(args.out, set(map(list_name, selections)))
        needs = tuple(dict.fromkeys(need for selection in selections for need in selection.needs))
        runs = [read_run(args, args.ckpt[0], needs, data, origin)]
        runs += [read_run(args, checkpoint, needs, *open_run(args, checkpoint, data))
                 for checkpoint in args.ckpt[1:]]
        distributed.end_others()
        by_score = {score_name(selection): selection for selection in selections if selection.method.score}
        scores = {name: compute_score(selection, data.train.labels, runs)
                  for name, selection in by_score.items()}
        lists = {list_name(selection): make_list(selection, data, runs[0], scores)
                 for selection in selections}
    with locked(args.out):
        write_lists(args.out, data, runs, scores, lists)
        if scores:
            write_correlations(args.out, scores, data.name)
    print(f"{args.out}: lists {len(lists)}, scores {len(scores)}, runs {len(runs)}")


def check_folder(folder: Path, names: set[str]) -> None:
    """Raise BadInput if a folder has lists that are not among `names`: they would lose their manifest."""
    orphans = read_json(folder / LISTS, "choose another --out").get("lists", {}).keys() - names
    if orphans:
        raise BadInput(f"--out {folder}: holds lists that this command does not replace, such as "
                       f"{min(orphans)}; choose another folder or delete this one")


def check_runs(checkpoints: list[Path]) -> None:
    """Raise BadInput if a run is unfinished or was on a coreset."""
    for checkpoint in checkpoints:
        run, finished = read_args(checkpoint.parent), logged_epochs(checkpoint.parent)
        if run.get("prune"):
            raise BadInput(f"{checkpoint}: trained on a coreset; pass runs on the whole data set")
        if run and finished not in (None, run.get("epoch")):
            raise BadInput(f"{checkpoint}: its run has finished {finished} of {run.get('epoch')} epochs; "
                           "resume it first")


def list_name(selection: Selection) -> str:
    """The file of a list: <method>[-<changed settings>]-<rate>.npy."""
    return f"{selection.title()}-{selection.rate:g}.npy"


def open_run(args: argparse.Namespace, checkpoint: Path, first: DataSet | None = None
             ) -> tuple[DataSet, dict[str, Any]]:
    """The data set of a run and its part of the manifest; BadInput if the first run has other images."""
    names = "dataset", "data", "name", "image_size", "classes"
    data, origin = open_dataset_of(checkpoint, {name: getattr(args, name) for name in names})
    if first and not (np.array_equal(data.train.ids, first.train.ids)
                      and data.images_sha256 == first.images_sha256):
        raise BadInput(f"{checkpoint}: trained on other images than the first of --ckpt; pass runs on the "
                       "same data")
    return data, origin


def read_run(args: argparse.Namespace, checkpoint: Path, needs: tuple[str, ...], data: DataSet,
             origin: dict[str, Any]) -> BaseRun:
    """The arrays of a run, as in selection.py, and its record."""
    arrays, files = read_arrays(needs, {}, checkpoint, data, args.out, None, args.workers, args.device)
    run = read_args(checkpoint.parent)
    record = {"seed": run.get("seed", options.SEED), "checkpoint": str(checkpoint)}
    record |= {name: run.get(name) for name in ("arch", "epoch", "batch_size", "lr", "amp_level")}
    return arrays, {**record, **origin, **files}


def score_name(selection: Selection) -> str:
    """The method and the changed settings that the score depends on, such as moderate-center-mean."""
    settings = ("first_epochs", *selection.method.settings)
    return "-".join([selection.name, *(word for word in selection.changes() if word.startswith(settings))])


def compute_score(selection: Selection, labels: np.ndarray, runs: list[BaseRun]) -> Score:
    """The score of a method by each run."""
    scores = []
    for arrays, record in runs:
        needed = {name: check_array(name, arrays[name], len(labels), selection.first_epochs)
                  for name in selection.method.needs}
        scores.append(score_of(selection, labels, needed, random_stream(record["seed"], selection.name)))
    return selection.method, np.array(scores)


def make_list(selection: Selection, data: DataSet, run: BaseRun, scores: dict[str, Score]) -> KeptList:
    """The list that a method's rule keeps by the mean of its scores, and by other arrays of one run."""
    name, (arrays, record) = score_name(selection), run
    mean = scores[name][1].mean(axis=0) if name in scores else None
    kept, _ = replace(selection, seed=record["seed"]).select(data.train.labels, arrays, mean, data.classes)
    # "list" ends the name of a coreset run's folder, which thus differs from that of a run on an index.
    entry = {"method": selection.name, "rate": selection.rate, "not_default": [*selection.changes(), "list"],
             "kept": len(kept), "score": f"{name}.scores.npy" if name in scores else None}
    return data.train.ids[kept].astype(np.int32), entry


def write_lists(folder: Path, data: DataSet, runs: list[BaseRun], scores: dict[str, Score],
                lists: dict[str, KeptList]) -> None:
    """Write the mean scores, float32 (n,), the lists and, last, the manifest.

    For a part of a data set, also ids.npy, int32 (n,); for a folder of images, also paths.txt.
    """
    for name in (LISTS, "ids.npy", "paths.txt", "correlations.md", "correlations.png", "correlations.svg"):
        (folder / name).unlink(missing_ok=True)  # without a manifest, lists are refused
    described, listed, ids = {}, {}, data.train.ids
    for name, (method, by_runs) in scores.items():
        path = folder / f"{name}.scores.npy"
        write_array(path, by_runs.mean(axis=0).astype(np.float32))
        described[path.name] = {"measure": method.measure, "hard": method.hard, "sha256": sha256(path)}
    for name, (kept, entry) in lists.items():
        write_array(folder / name, kept)
        listed[name] = {**entry, "index_sha256": sha256(folder / name)}
    if not np.array_equal(ids, np.arange(len(ids))):
        write_array(folder / "ids.npy", ids.astype(np.int32))
    if isinstance(data.train, FileSplit):
        with replacing(folder / "paths.txt") as temporary:
            temporary.write_bytes(b"".join(name + b"\n" for name in data.train.file_names))
    records = [record for _, record in runs]
    write_json(folder / LISTS, {
        "dataset": data.name, "images": len(ids), "images_sha256": data.images_sha256,
        "classes": records[0]["classes"], "holds": "kept", "keep_scale": "difficulty", "runs": records,
        "scores": described, "lists": listed, "versions": versions()})


def write_correlations(folder: Path, scores: dict[str, Score], title: str) -> None:
    """Write a table and a figure of Spearman's rank correlations of scores, each with hard images high.

    Methods with the same score share a row. Off the diagonal are the correlations of the means over the runs;
    on it is the mean correlation of a score between two runs, NaN for a single run or a constant score.
    """
    rows: dict[bytes, tuple[list[str], np.ndarray]] = {}  # names, and ranks in each run and of the mean
    for name, (method, by_runs) in scores.items():
        sign = -1 if method.hard == "low" else 1
        ranks = np.array([average_ranks(sign * values) for values in (*by_runs, by_runs.mean(axis=0))])
        rows.setdefault(ranks.tobytes(), ([], ranks))[0].append(name)
    names = [", ".join(alike) for alike, _ in rows.values()]
    count = len(next(iter(scores.values()))[1])  # of runs
    pairs = np.triu_indices(count, 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # for constant scores
        matrix = np.atleast_2d(np.corrcoef([ranks[-1] for _, ranks in rows.values()]))
        between_runs = [np.atleast_2d(np.corrcoef(ranks[:-1]))[pairs] for _, ranks in rows.values()]
    np.fill_diagonal(matrix, [values.mean() if values.size else np.nan for values in between_runs])
    table = [["score", "between runs", *names],
             *([name, f"{values.min():.2f} to {values.max():.2f}" if values.size else "-",
                *("-" if np.isnan(value) else f"{value:.2f}" for value in row)]
               for name, values, row in zip(names, between_runs, matrix, strict=True))]
    with replacing(folder / "correlations.md") as temporary:
        temporary.write_text(markdown(table), encoding="utf8")
    try:
        from comparison.charts import draw_matrix, save_figure
    except ImportError as error:
        options.warn(f"no figure: {error}; install it by python -m pip install matplotlib")
        return
    figure = draw_matrix(names, matrix, f"{title}: rank correlations of scores, hard images high",
                         "On the diagonal: of a score between runs.")
    save_figure(figure, folder / "correlations")


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, float64 (n,); equal values share the mean of their ranks."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[positions]


if __name__ == "__main__":
    options.run_script(main)
