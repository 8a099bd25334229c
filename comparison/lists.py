"""Scores and coresets for others to use: methods applied to the mean of their scores over several runs.

    python -m comparison.lists --ckpt compared/seed-*/CIFAR100/resnet20/best.pth --out lists

Writes to --out <method>.scores.npy, the mean over the runs; <method>[-<what is not its default>]-<rate>.npy,
the ids kept; manifest.json; correlations.md and, with matplotlib, .png and .svg, how scores agree with one
another and from run to run. `train.py --kept <list>.npy` trains on such a list.
"""
import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils import distributed, options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
import numpy as np

from comparison.tables import markdown
from comparison.variants import parse_variant, variant
from datasets import SOURCES, DataSet
from datasets.folder import FileSplit
from datasets.inputs import open_dataset_of, read_arrays
from methods import METHODS, InvalidInput, Method, Selection
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
                        help="selection methods, as compare.py takes them")
    parser.add_argument("--rates", nargs="+", default=[0.1, 0.2, 0.3, 0.5], type=options.rate, metavar="RATE",
                        help="fractions of the images to keep")
    parser.add_argument("--out", required=True, type=Path, help="folder of the lists")
    args = parser.parse_args(argv)
    for name in ("ckpt", "methods", "rates"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    if len({path.resolve().parent for path in args.ckpt}) < len(args.ckpt):
        parser.error("--ckpt: two checkpoints of one run; name one of each run")
    return args


# A run has arrays by name, and a record for the manifest with the seed by which methods draw.
BaseRun = tuple[dict[str, np.ndarray], dict[str, Any]]
Score = tuple[Method, np.ndarray]  # a method's score of each image by each run, float64 (runs, n)
KeptLists = dict[str, tuple[np.ndarray, dict[str, Any]]]  # by name: ids, int32, ascending; manifest's entry


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    selections = [parse_variant(method, rate) for method in args.methods for rate in args.rates]
    needs = tuple(dict.fromkeys(need for selection in selections for need in selection.needs))
    # What does not fit is found out before long passes.
    check_folder(args.out, set(map(list_name, selections)))
    check_runs(args.ckpt)
    with writable(args.out), options.warnings_shown():
        data, origin = open_run(args, args.ckpt[0])
        check_sizes(selections, len(data.train.labels))
        runs = [read_run(args, args.ckpt[0], needs, data, origin)]
        runs += [read_run(args, checkpoint, needs, *open_run(args, checkpoint, data))
                 for checkpoint in args.ckpt[1:]]
        distributed.end_others()
        labels = data.train.labels
        scores = {score_name(selection): score_by(selection, labels, runs)
                  for selection in {score_name(one): one for one in selections if one.method.score}.values()}
        lists = {list_name(selection): keep(selection, data, runs[0], scores) for selection in selections}
    with locked(args.out):
        write_lists(args.out, data, runs, scores, lists)
        if scores:
            write_correlations(args.out, scores, data.name)
    print(f"{args.out}: lists {len(lists)}, scores {len(scores)}, runs {len(runs)}")


def check_sizes(selections: list[Selection], n: int) -> None:
    """Raise BadInput where a rate keeps none of n images, or a cut-off leaves too few for it."""
    for selection in selections:
        try:
            selection.size(n)
        except InvalidInput as error:
            raise BadInput(f"--methods {selection.title(':', '=')} at --rates {selection.rate:g}: {error}"
                           ) from None


def check_folder(folder: Path, names: set[str]) -> None:
    """Make sure that no list in a folder loses its manifest: all of them are to be written again.

    Raises:
        BadInput: some are not among `names`.
    """
    others = read_json(folder / LISTS, "name another --out").get("lists", {}).keys() - names
    if others:
        raise BadInput(f"--out {folder}: holds lists that this command does not write again, such as "
                       f"{min(others)}; name another folder, or delete that one")


def check_runs(checkpoints: list[Path]) -> None:
    """Make sure that runs have been finished, and on the whole data set; BadInput where one was not."""
    for checkpoint in checkpoints:
        run, finished = read_args(checkpoint.parent), logged_epochs(checkpoint.parent)
        if run.get("prune"):
            raise BadInput(f"{checkpoint}: trained on a coreset; pass runs on the whole data set")
        if run and finished not in (None, run.get("epoch")):
            raise BadInput(f"{checkpoint}: its run has finished {finished} of {run.get('epoch')} epochs; "
                           "resume it first")


def list_name(selection: Selection) -> str:
    """A list's file: <method>[-<what is not its default>...]-<rate>.npy."""
    return f"{selection.title()}-{selection.rate:g}.npy"


def open_run(args: argparse.Namespace, checkpoint: Path, first: DataSet | None = None
             ) -> tuple[DataSet, dict[str, Any]]:
    """The data set of a run and what the manifest says of it.

    Raises:
        BadInput: it has other images than the first run.
    """
    names = "dataset", "data", "name", "image_size", "classes"
    data, origin = open_dataset_of(checkpoint, {name: getattr(args, name) for name in names})
    if first and not (np.array_equal(data.train.ids, first.train.ids)
                      and data.images_sha256 == first.images_sha256):
        raise BadInput(f"{checkpoint}: trained on other images than the first of --ckpt; pass runs on the "
                       "same data")
    return data, origin


def read_run(args: argparse.Namespace, checkpoint: Path, needs: tuple[str, ...], data: DataSet,
             origin: dict[str, Any]) -> BaseRun:
    """A run's arrays, as selection.py reads them."""
    arrays, files = read_arrays(needs, {}, checkpoint, data, args.out, None, args.workers, args.device)
    run = read_args(checkpoint.parent)
    record = {"seed": run.get("seed", options.SEED), "checkpoint": str(checkpoint)}
    record |= {name: run.get(name) for name in ("arch", "epoch", "batch_size", "lr", "amp_level")}
    return arrays, {**record, **origin, **files}


def score_name(selection: Selection) -> str:
    """The method and those changes that the score depends on, such as moderate-center-mean."""
    of_score = ("first_epochs", *selection.method.settings)
    return "-".join([selection.name, *(word for word in selection.changes() if word.startswith(of_score))])


def score_by(selection: Selection, labels: np.ndarray, runs: list[BaseRun]) -> Score:
    """A method's score by each run."""
    scores = [score_of(selection, labels, {name: check_array(name, arrays[name], len(labels),
                                                             selection.first_epochs)
                                           for name in selection.method.needs},
                       random_stream(record["seed"], selection.name)) for arrays, record in runs]
    return selection.method, np.array(scores)


def keep(selection: Selection, data: DataSet, run: BaseRun, scores: dict[str, Score]
         ) -> tuple[np.ndarray, dict[str, Any]]:
    """The ids that a method's rule keeps by the mean of its scores, and their entry of the manifest.

    What else the rule needs is of one run.
    """
    name, (arrays, record) = score_name(selection), run
    mean = scores[name][1].mean(axis=0) if name in scores else None
    kept, _ = replace(selection, seed=record["seed"]).select(data.train.labels, arrays, mean, data.classes)
    # The name of a coreset run's folder ends with "list", so that it differs from that of a run on an index.
    entry = {"method": selection.name, "rate": selection.rate, "not_default": [*selection.changes(), "list"],
             "kept": len(kept), "score": f"{name}.scores.npy" if name in scores else None}
    return data.train.ids[kept].astype(np.int32), entry


def write_lists(folder: Path, data: DataSet, runs: list[BaseRun], scores: dict[str, Score],
                lists: KeptLists) -> None:
    """Write the mean scores, float32 (n,), the lists and, last, the manifest.

    For a part of the data set, ids.npy, int32 (n,), has the images' numbers in it; for a folder of images,
    paths.txt has their files.
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
            temporary.write_bytes(b"".join(b"train/%b\n" % path for path in data.train.paths))
    records = [record for _, record in runs]
    write_json(folder / LISTS, {
        "dataset": data.name, "images": len(ids), "images_sha256": data.images_sha256,
        "classes": records[0]["classes"], "holds": "kept", "keep_scale": "difficulty", "runs": records,
        "scores": described, "lists": listed, "versions": versions()})


def write_correlations(folder: Path, scores: dict[str, Score], title: str) -> None:
    """Write a table and a picture of Spearman's rank correlations, every score turned so that hard is high.

    Methods with the same score share a row. Off the diagonal are the correlations of the means over the runs,
    on it the mean of those of one score in each two runs, nan for a single run or a score that is constant.
    """
    found: dict[bytes, tuple[list[str], np.ndarray]] = {}  # names, and ranks in each run and of the mean
    for name, (method, by_runs) in scores.items():
        sign = -1 if method.hard == "low" else 1
        of_images = np.array([average_ranks(sign * values) for values in (*by_runs, by_runs.mean(axis=0))])
        found.setdefault(of_images.tobytes(), ([], of_images))[0].append(name)
    names, k = [", ".join(alike) for alike, _ in found.values()], len(found)
    with np.errstate(invalid="ignore", divide="ignore"):  # of a constant score
        matrix = np.corrcoef([of_images[-1] for _, of_images in found.values()]).reshape(k, k)
        spread = [np.corrcoef(of_images[:-1]).reshape(len(of_images) - 1, -1)[
            np.triu_indices(len(of_images) - 1, 1)] for _, of_images in found.values()]
    matrix[np.diag_indices(k)] = [pairs.mean() if pairs.size else np.nan for pairs in spread]
    table = [["score", "between runs", *names],
             *([name, f"{pairs.min():.2f} to {pairs.max():.2f}" if pairs.size else "-",
                *("-" if np.isnan(value) else f"{value:.2f}" for value in row)]
               for name, pairs, row in zip(names, spread, matrix, strict=True))]
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
    """Ranks from 0, equal values sharing the mean of theirs, float64 (n,)."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[positions]


if __name__ == "__main__":
    options.run_script(main)
