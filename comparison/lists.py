"""Scores and coresets for others to use: methods applied to the mean of their scores over several runs.

    python -m comparison.lists --ckpt compared/seed-*/CIFAR100/resnet20/best.pth --out lists

Writes to --out, for each method, <method>.scores.npy and, for each rate, <method>-<rate>.npy, the ids kept;
manifest.json; correlations.md and .png, how scores agree with one another and from run to run.
`train.py --prune <method>-<rate>.npy` trains on such a list.
"""
import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils import options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
import numpy as np

from comparison.charts import draw_matrix
from comparison.tables import markdown
from comparison.variants import selection_of, variant
from datasets import SOURCES, DataSet
from methods import METHODS, Method, choose
from methods.choice import coreset_size
from selection import not_default, open_task, read_evidence
from selection import parse_options as parse_selection
from utils.device import random_stream, set_up, versions
from utils.errors import BadInput
from utils.files import locked, replacing, sha256, write_array, write_json
from utils.index import LISTS
from utils.runs import read_args


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
    return parser.parse_args(argv)


@dataclass(frozen=True)
class BaseRun:
    """A training run on the whole data set.

    Args:
        evidence: what methods choose by, by name.
        record: what the run was, for the manifest; with its seed, by which methods draw.
    """
    data: DataSet
    evidence: dict[str, np.ndarray]
    record: dict[str, Any]


@dataclass(frozen=True)
class Score:
    """A method's score of each image by each run, float64 (runs, n)."""
    method: Method
    of_runs: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.of_runs.mean(axis=0)


@dataclass(frozen=True)
class KeptList:
    """A list of the images kept.

    Args:
        ids: int32, ascending, in the order of the data set's official files.
        entry: its part of the manifest.
    """
    name: str
    ids: np.ndarray
    entry: dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    set_up(args.device, options.SEED)
    selections = [selection_of(method) for method in dict.fromkeys(args.methods)]
    runs = [read_run(checkpoint, selections, args) for checkpoint in dict.fromkeys(args.ckpt)]
    check_same_images(runs)
    scores = {score_name(selection): score(selection, runs) for selection in selections
              if METHODS[selection.method].score}
    lists = [keep(selection, rate, runs[0], scores) for selection in selections for rate in args.rates]
    with locked(args.out):
        write_lists(args.out, runs, scores, lists)
        if scores:
            write_correlations(args.out, scores, runs[0].data.name)
    print(f"{len(lists)} lists and {len(scores)} scores from {len(runs)} runs in {args.out}")


def read_run(checkpoint: Path, selections: list[argparse.Namespace], args: argparse.Namespace) -> BaseRun:
    """A run's data set and the evidence that these selections need, as selection.py reads them."""
    given = [word for name in ("dataset", "data", "name", "image_size", "classes", "workers")
             if (value := getattr(args, name)) for word in (f"--{name}", str(value))]
    options_of_run = parse_selection([*given, "--ckpt", str(checkpoint), "--save", str(args.out)])
    options_of_run.needs = {need for selection in selections for need in selection.needs}
    task = open_task(options_of_run)
    assert task.data is not None  # there are no --labels
    evidence, sources = read_evidence(options_of_run, task)
    record = {"seed": read_args(checkpoint.parent).get("seed", options.SEED), "checkpoint": str(checkpoint),
              **task.origin, **sources}
    return BaseRun(task.data, evidence, record)


def check_same_images(runs: list[BaseRun]) -> None:
    """Raise BadInput where a run has other images than the first one."""
    first, *others = runs
    for run in others:
        same_ids = np.array_equal(run.data.train.ids, first.data.train.ids)
        if not same_ids or run.data.images_sha256 != first.data.images_sha256:
            raise BadInput(f"{run.record['checkpoint']}: of other images than {first.record['checkpoint']}; "
                           "name runs on the same data")


def score_name(selection: argparse.Namespace) -> str:
    """The method and those of its score's settings that are not the default, such as moderate-center-mean."""
    settings = METHODS[selection.method].settings
    return "-".join([selection.method, *(f"{name}-{selection.settings[name]}" for name in settings
                                         if selection.settings[name] != settings[name].default)])


def score(selection: argparse.Namespace, runs: list[BaseRun]) -> Score:
    """A method's score by each run."""
    method = METHODS[selection.method]
    assert method.score is not None
    return Score(method, np.array([
        method.score(run.data.train.labels, random_stream(run.record["seed"], selection.method),
                     **{need: run.evidence[need] for need in method.needs},
                     **{name: selection.settings[name] for name in method.settings}) for run in runs]))


def keep(selection: argparse.Namespace, rate: float, run: BaseRun, scores: dict[str, Score]
         ) -> KeptList:
    """Apply a method's rule to the mean of its scores; what else the rule needs is of one run."""
    method, labels = METHODS[selection.method], run.data.train.labels
    if method.score:
        mean = scores[score_name(selection)].mean
        method = replace(method, score=lambda labels, generator: mean, needs=(), settings={})
    size = coreset_size(len(labels), rate)
    if not size:
        raise BadInput(f"--rates {rate:g}: keeps none of {len(labels)} images; name a larger one")
    choice = choose(method, selection.rule, labels, size, random_stream(run.record["seed"], selection.method),
                    run.evidence, selection.per_class, selection.hard_cutoff, **selection.settings)
    changed = not_default(selection)
    entry = {"method": selection.method, "rate": rate, "not_default": changed, "kept": size,
             "score": f"{score_name(selection)}.scores.npy" if method.score else None}
    return KeptList("-".join([selection.method, *changed, f"{rate:g}.npy"]),
                    run.data.train.ids[choice.kept].astype(np.int32), entry)


def write_lists(folder: Path, runs: list[BaseRun], scores: dict[str, Score], lists: list[KeptList]) -> None:
    """Write the mean scores, float32 (n,), the lists and, last, the manifest."""
    described, listed = {}, {}
    for name, score in scores.items():
        path = folder / f"{name}.scores.npy"
        write_array(path, score.mean.astype(np.float32))
        described[path.name] = {"measure": score.method.measure, "hard": score.method.hard,
                                "sha256": sha256(path)}
    for item in lists:
        write_array(folder / item.name, item.ids)
        listed[item.name] = {**item.entry, "index_sha256": sha256(folder / item.name)}
    data = runs[0].data
    write_json(folder / LISTS, {
        "dataset": data.name, "images": len(data.train.labels), "images_sha256": data.images_sha256,
        "classes": runs[0].record["classes"], "holds": "kept", "runs": [run.record for run in runs],
        "scores": described, "lists": listed, "versions": versions()})


def write_correlations(folder: Path, scores: dict[str, Score], title: str) -> None:
    """Write a table and a picture of Spearman's rank correlations, every score turned so that hard is high.

    Methods with the same score share a row. Off the diagonal are the correlations of the means over the runs,
    on it the mean of those of one score in each two runs, nan for a single run.
    """
    names_of: dict[bytes, list[str]] = {}  # by the ranks
    ranks_of: dict[bytes, np.ndarray] = {}  # by runs, and last those of the mean
    for name, score in scores.items():
        sign = -1 if score.method.hard == "low" else 1
        ranks = np.array([average_ranks(sign * values) for values in (*score.of_runs, score.mean)])
        ranks_of[ranks.tobytes()] = ranks
        names_of.setdefault(ranks.tobytes(), []).append(name)
    names, k = [", ".join(alike) for alike in names_of.values()], len(names_of)
    matrix = np.corrcoef([ranks[-1] for ranks in ranks_of.values()]).reshape(k, k)
    spread = [np.corrcoef(ranks[:-1])[np.triu_indices(len(ranks) - 1, 1)] if len(ranks) > 2 else np.empty(0)
              for ranks in ranks_of.values()]
    matrix[np.diag_indices(k)] = [of_pairs.mean() if of_pairs.size else np.nan for of_pairs in spread]
    table = [["score", "between runs", *names],
             *([name, f"{of_pairs.min():.2f} to {of_pairs.max():.2f}" if of_pairs.size else "-",
                *(f"{value:.2f}" for value in row)]
               for name, of_pairs, row in zip(names, spread, matrix, strict=True))]
    with replacing(folder / "correlations.md") as temporary:
        temporary.write_text(markdown(table))
    with replacing(folder / "correlations.png") as temporary:
        draw_matrix(names, matrix, f"{title}: rank correlation of scores, hard images high; on the diagonal "
                    "between runs").save(temporary, format="PNG")


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing the mean of theirs, float64 (n,)."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[positions]


if __name__ == "__main__":
    options.run_script(main)
