"""Tables of runs with several methods, rates and seeds."""
import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np

from utils.errors import BadInput

WHOLE = "whole set"
COLUMNS = ("method", "rate", "seed", "images", "epochs", "steps", "equal", "train_accuracy", "best_accuracy",
           "last_accuracy", "worst_class_accuracy", "worst_tenth_accuracy", "kept_perturbed_percent",
           "fitted_wrong_labels_percent", "seconds", "cpu", "command", "versions", "index_sha256",
           "checkpoint_sha256")  # of runs.csv
MAY_BE_EMPTY = ("worst_class_accuracy", "worst_tenth_accuracy", "kept_perturbed_percent",
                "fitted_wrong_labels_percent")  # files of earlier versions lack some of these columns
FEWEST = 3  # values for an interval
RENAMED = {"lowest_class_accuracy": "worst_class_accuracy"}  # column of older files
NUMBERS = {"rate": float, "seed": int, "best_accuracy": float, "last_accuracy": float, "epochs": int,
           "seconds": float, **dict.fromkeys(MAY_BE_EMPTY, float)}  # columns of runs.csv
# The 97.5 % quantile of Student's t distribution with 1 to 30 degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
         2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
         2.045, 2.042)
PUBLISHED = {"CIFAR100": "CIFAR-100", "tiny": "Tiny-ImageNet", "CIFAR100N": "CIFAR-100, {} % label noise",
             "CIFAR100C": "CIFAR-100, {} % corrupted"}
Row = dict[str, str]  # of runs.csv or table.csv
Cells = dict[tuple[str, float], dict[int, float]]  # numbers by method and rate, and then by seed


def read_runs(path: Path) -> list[Row]:
    """The rows of a runs.csv, perhaps saved by a spreadsheet; [] without a file, BadInput for other content.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[Row] = []
    try:
        reader.fieldnames = [RENAMED.get(name, name) for name in reader.fieldnames or ()]
        names = {*reader.fieldnames}
        if wrong := ({*COLUMNS} - {*MAY_BE_EMPTY} - names) | (names - {*COLUMNS}):
            raise BadInput(f"{path}: not a file of compare.py, or an editor changed its columns, such as "
                           f"{min(wrong)!r}; restore it or choose another --out")
        for row in reader:
            check_row(row, f"{path}, line {reader.line_num}")
            rows.append({name: row.get(name, "") for name in COLUMNS})
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV file ({error}); restore it or choose another --out") from None
    return rows


def check_row(row: Row, where: str) -> None:
    """Raise BadInput if a row lacks cells or has something else in the place of a finite number."""
    if None in row or None in row.values():
        raise BadInput(f"{where}: not as many cells as columns; restore the line if an editor changed it, or "
                       "delete it to repeat the run")
    for name, kind in NUMBERS.items():
        text = row.get(name, "")
        if not text and name in MAY_BE_EMPTY:
            continue
        try:
            valid = math.isfinite(kind(text))
        except (ValueError, OverflowError):
            valid = False
        if not valid:
            expected = "whole number" if kind is int else "finite number with a decimal point"
            raise BadInput(f"{where}: {name} is {text!r}, not a {expected}; restore it if an editor changed "
                           "it, or delete the line to repeat the run")


def by_cell(rows: Iterable[Row], column: str) -> Cells:
    """The numbers of a column, of the rows that have one."""
    cells: Cells = {}
    for row in rows:
        if row.get(column):
            cells.setdefault((row["method"], float(row["rate"])), {})[int(row["seed"])] = float(row[column])
    return cells


def by_protocol(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows with equal epochs and those with equal steps, each with the rows of the whole set."""
    return {equal: [row for row in rows if row["method"] == WHOLE or row["equal"] == equal]
            for equal in sorted({row["equal"] for row in rows if row["method"] != WHOLE} or {"epochs"})}


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (over n - 1), which is NaN for a single value."""
    array = np.array(list(values))
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of n accuracies or paired differences and half the width of its 95 % confidence interval.

    This is t s / sqrt(n), s the sample standard deviation and t Student's, with n - 1 degrees of freedom; NaN
    for fewer than FEWEST values.
    """
    mean, deviation = mean_and_deviation(values)
    if len(values) < FEWEST:
        return mean, float("nan")
    return mean, T_975[min(len(values) - 1, len(T_975)) - 1] * deviation / len(values) ** 0.5


def plus_minus(mean: float, deviation: float) -> str:
    """Mean ± standard deviation; only the mean if the deviation is NaN."""
    return f"{mean:.2f}" + ("" if np.isnan(deviation) else f" ± {deviation:.2f}")


def tables(rows: list[Row], base_arch: str, paper: Sequence[Sequence[str]] = (), failed: Sequence[Row] = ()
           ) -> str:
    """table.md: accuracies of the last and best epoch, differences from random, hours; published figures.

    Args:
        base_arch: the network of the runs on the whole set.
        paper: published figures, a header and rows.
        failed: method, rate, seed and equal of runs that failed, and the error in "failed".
    """
    parts = []
    if failed:
        parts += ["Failed runs, which are not in the tables:\n", *(
            "- {method} {rate}, seed {seed}, equal {equal}: {failed}".format(**row) for row in failed), ""]
    for equal, group in by_protocol([*rows, *failed]).items():
        parts += [f"## Equal {equal}\n", f"Epochs: {epochs_of(group, True)} of the whole set, "
                  f"{epochs_of(group, False)} of a coreset\n"]
        if fitted := by_cell(group, "fitted_wrong_labels_percent").get((WHOLE, 1.0)):
            parts += ["Wrong labels that the run on the whole set has fitted, measured in its last epoch on "
                      "augmented images in training mode, %: "
                      f"{plus_minus(*mean_and_deviation(fitted.values()))} ({len(fitted)})\n"]
        accuracies = partial(accuracy_table, group, base_arch)
        parts += ["Test accuracy after the last epoch, %: mean ± standard deviation (number of runs; 1 of 3: "
                  "two failed or lack this figure). Bold: the highest mean among methods with the same "
                  "seeds, in the group of such methods with the most runs\n", accuracies("last_accuracy"),
                  "Test accuracy of the best epoch, %, picked on the test set as in the paper; under label "
                  "noise that is early stopping by an oracle\n", accuracies("best_accuracy"),
                  "Last epoch's accuracy less that of random with the same seed: mean [95 % confidence "
                  f"interval, given from {FEWEST} pairs on] (number of pairs)\n", difference_table(group)]
        for column, classes in (("worst_class_accuracy", "worst class, an extreme value that varies much"),
                                ("worst_tenth_accuracy", "worst tenth of the classes, on average")):
            if by_cell(group, column):
                parts += [f"Test accuracy after the last epoch, %, of the {classes}\n", accuracies(column)]
        if by_cell(group, "kept_perturbed_percent"):
            parts += ["Mislabelled or corrupted images in the coreset, %\n",
                      accuracies("kept_perturbed_percent", best_in_bold=False)]
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    base = sum(float(row["seconds"]) for row in rows if row["method"] == WHOLE) / 3600
    parts.append(f"{hours:.2f} hours of training and testing, {base:.2f} of them base runs.\n")
    if paper:
        parts += ["## Published, ResNet-50\n", markdown(paper)]
    return "\n".join(parts)


def epochs_of(rows: list[Row], whole: bool) -> str:
    """The number of epochs of the runs on the whole set or on coresets, or the least and the most of them."""
    numbers = {int(row["epochs"]) for row in rows if (row["method"] == WHOLE) == whole and "epochs" in row}
    return " to ".join(map(str, sorted({min(numbers), max(numbers)}))) if numbers else "-"


SUMMARY = ("method", "rate", "equal", "runs", "last_mean", "last_deviation", "best_mean", "best_deviation")


def summary(rows: list[Row]) -> list[Row]:
    """The rows of table.csv: mean and standard deviation for each method, rate and protocol."""
    summarized, key_of = [], itemgetter("method", "rate", "equal")
    for key in dict.fromkeys(map(key_of, rows)):
        group = [row for row in rows if key_of(row) == key]
        figures = [f"{figure:.4g}" for name in ("last_accuracy", "best_accuracy")
                   for figure in mean_and_deviation(float(row[name]) for row in group)]
        summarized.append(dict(zip(SUMMARY, (*key, str(len(group)), *figures), strict=True)))
    return summarized


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A header and rows as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]) + "\n"


def methods_by_rates(rows: list[Row], text: Callable[[str, float], str]) -> list[list[str]]:
    """A header and one row per method, with `text` of the method and each rate."""
    methods, rates = names_and_rates(rows)
    return [["method", *(f"keep {100 * rate:g} %" for rate in rates)],
            *([method, *(text(method, rate) for rate in rates)] for method in methods)]


def accuracy_table(rows: list[Row], base_arch: str, column: str, best_in_bold: bool = True) -> str:
    """Methods by rates; the first row is the whole set, with the same figure for each rate."""
    cells, seeds = by_cell(rows, column), by_cell(rows, "seed")

    def text(method: str, rate: float) -> str:
        runs = cells.get((method, rate))
        if not runs:
            return "-"
        bold = "**" if best_in_bold and method == best_method(cells, rate) else ""
        figures = plus_minus(*mean_and_deviation(runs.values()))
        return f"{bold}{figures}{bold} {number_of(runs, seeds[method, rate])}"

    table = methods_by_rates(rows, text)
    if (WHOLE, 1.0) in cells:
        table.insert(1, [f"{WHOLE} ({base_arch})", *[text(WHOLE, 1.0)] * (len(table[0]) - 1)])
    return markdown(table)


def best_method(cells: Cells, rate: float) -> str | None:
    """The method with the highest mean among methods with the same seeds; None: no two have the same seeds.

    If there are several such groups, the one with the most runs counts; groups of single runs come last.
    """
    groups: dict[frozenset[int], dict[str, float]] = {}
    for (method, at), runs in cells.items():
        if at == rate and method != WHOLE:
            groups.setdefault(frozenset(runs), {})[method] = mean_and_deviation(runs.values())[0]
    compared = [(len(seeds) > 1, len(seeds) * len(means), means)
                for seeds, means in groups.items() if len(means) > 1]
    means = max(compared, key=itemgetter(0, 1), default=(False, 0, {}))[2]
    return max(means, key=means.__getitem__, default=None)


def difference_table(rows: list[Row]) -> str:
    """Methods by rates: differences from random, paired by seed."""
    cells, seeds = by_cell(rows, "last_accuracy"), by_cell(rows, "seed")
    table = methods_by_rates(rows, lambda method, rate: minus_random(
        cells, method, rate, seeds.get((method, rate), ())) or "-")
    return markdown([row for row in table if row[0] != "random"])


def minus_random(cells: Cells, method: str, rate: float, seeds: Collection[int] = ()) -> str:
    """Mean, 95 % interval and number of the paired differences; "" if there is no pair."""
    own, random = cells.get((method, rate), {}), cells.get(("random", rate), {})
    pairs = {seed: own[seed] - random[seed] for seed in sorted(own.keys() & random.keys())}
    if not pairs:
        return ""
    mean, half = interval([*pairs.values()])
    ends = "" if np.isnan(half) else f" [{mean - half:.2f}, {mean + half:.2f}]"
    return f"{mean:+.2f}{ends} {number_of(pairs, seeds)}"


def number_of(runs: Collection[int], seeds: Collection[int]) -> str:
    """The number of seeds with a figure; if others have none, also the number of all seeds."""
    return f"({len(runs)})" if len(runs) >= len(seeds) else f"({len(runs)} of {len(seeds)})"


def names_and_rates(rows: list[Row]) -> tuple[list[str], list[float]]:
    """The methods in the order of their first run, random first, and the rates, ascending."""
    coresets = [row for row in rows if row["method"] != WHOLE]
    methods = sorted(dict.fromkeys(row["method"] for row in coresets), key=lambda name: name != "random")
    return methods, sorted({float(row["rate"]) for row in coresets})


def published_rows(path: Path, dataset: str, perturbed: float) -> list[list[str]]:
    """A header and the rows of a data set in published.csv; [] if it has none.

    Args:
        perturbed: fraction of the training images that are mislabelled or corrupted; it is rounded to 5 %.
    """
    name = PUBLISHED.get(dataset, "").format(5 * round(20 * perturbed))
    with open(path, newline="", encoding="utf8") as file:
        published = [row for row in csv.DictReader(file) if row["data set"] == name]
    if not published:
        return []
    rates = [rate for rate in published[0] if any(row[rate] for row in published)][3:]
    return [[name, *(f"keep {rate} %" for rate in rates)],
            *([f"{row['method']} ({row['source']})", *(row[rate] or "-" for rate in rates)]
              for row in published)]
