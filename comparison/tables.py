"""Tables of runs with several methods, rates and seeds."""
import csv
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from utils.errors import BadInput

WHOLE = "whole set"
COLUMNS = ("method", "rate", "seed", "images", "epochs", "steps", "equal", "train_accuracy", "best_accuracy",
           "last_accuracy", "lowest_class_accuracy", "kept_perturbed_percent", "fitted_wrong_labels_percent",
           "seconds", "cpu", "command", "versions", "index_sha256", "checkpoint_sha256")  # of runs.csv
MAY_BE_EMPTY = "lowest_class_accuracy", "kept_perturbed_percent", "fitted_wrong_labels_percent"
NUMBERS = {"rate": float, "seed": int, "best_accuracy": float, "last_accuracy": float, "epochs": int,
           "seconds": float, **dict.fromkeys(MAY_BE_EMPTY, float)}  # columns of runs.csv
# The 97.5 % point of Student's t with 1 to 30 degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
         2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
         2.045, 2.042)
PUBLISHED = {"CIFAR100": "CIFAR-100", "tiny": "Tiny-ImageNet", "CIFAR100N": "CIFAR-100, {} % label noise",
             "CIFAR100C": "CIFAR-100, {} % corrupted"}
Row = dict[str, str]  # of runs.csv or table.csv
Cells = dict[tuple[str, float], dict[int, float]]  # numbers by method and rate, and then by seed


def read_runs(path: Path) -> list[Row]:
    """The rows of a runs.csv; [] where there is none.

    Raises:
        BadInput: it has other columns, or no numbers where they belong.
    """
    if not path.exists():
        return []
    reader = csv.DictReader(path.read_bytes().decode("utf8", "surrogateescape").splitlines())
    rows: list[Row] = list(reader)
    if set(reader.fieldnames or ()) != set(COLUMNS) or any(
            row.keys() != set(COLUMNS) or None in row.values() for row in rows):
        raise BadInput(f"{path}: not a file of compare.py; name another --out")
    for line, row in enumerate(rows, 2):
        for name, kind in NUMBERS.items():
            try:
                if row[name] or name not in MAY_BE_EMPTY:
                    kind(row[name])
            except ValueError:
                what = "whole number" if kind is int else "number"
                raise BadInput(f"{path}, line {line}: {name} is {row[name]!r}, no {what}; correct it or "
                               "delete the line, and the run is made again") from None
    return rows


def by_cell(rows: Iterable[Row], column: str) -> Cells:
    """A column's numbers, of the rows that have one."""
    cells: Cells = {}
    for row in rows:
        if row.get(column):
            cells.setdefault((row["method"], float(row["rate"])), {})[int(row["seed"])] = float(row[column])
    return cells


def by_protocol(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows with equal epochs and those with equal steps, if any; both with the whole set's rows."""
    return {equal: [row for row in rows if row["method"] == WHOLE or row["equal"] == equal]
            for equal in sorted({row["equal"] for row in rows if row["method"] != WHOLE} or {"epochs"})}


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (over n - 1), which is NaN for a single value."""
    array = np.array(list(values))
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences and half the width of its 95 % confidence interval by Student's t.

    t s / sqrt(n) with n - 1 degrees of freedom, s the sample standard deviation; NaN for a single pair.
    """
    mean, deviation = mean_and_deviation(differences)
    degrees = len(differences) - 1
    t = T_975[min(degrees, len(T_975)) - 1] if degrees else float("nan")
    return mean, t * deviation / len(differences) ** 0.5


def plus_minus(mean: float, width: float) -> str:
    return f"{mean:.2f}" + ("" if np.isnan(width) else f" ± {width:.2f}")


def tables(rows: list[Row], paper: list[list[str]]) -> str:
    """table.md: last epoch's accuracy, best epoch's, differences to random, hours; the published figures.

    Args:
        rows: those of runs.csv.
        paper: published figures, a header and rows; []: none.
    """
    parts = []
    for equal, some in by_protocol(rows).items():
        parts += [f"## Equal {equal}\n", f"Epochs: {epochs_of(some, True)} of the whole set, "
                  f"{epochs_of(some, False)} of a coreset\n"]
        if fitted := by_cell(some, "fitted_wrong_labels_percent").get((WHOLE, 1.0)):
            parts += ["Wrong labels that the training on the whole set has fitted, %: "
                      f"{plus_minus(*mean_and_deviation(fitted.values()))} ({len(fitted)})\n"]
        parts += ["Test accuracy after the last epoch, %: mean ± standard deviation (number of runs); in "
                  "bold the highest mean of the methods with the most runs\n",
                  accuracy_table(some, "last_accuracy"),
                  "Test accuracy of the best epoch, %, picked on the test set as in the paper; under label "
                  "noise that is early stopping by an oracle\n", accuracy_table(some, "best_accuracy"),
                  "Last epoch's accuracy less that of random of the same seed: mean and 95 % interval of the "
                  "mean (number of pairs; of two it is too wide to be of use)\n", difference_table(some)]
        if by_cell(some, "lowest_class_accuracy"):
            parts += ["Lowest test accuracy of a class after the last epoch, %\n",
                      accuracy_table(some, "lowest_class_accuracy")]
        if by_cell(some, "kept_perturbed_percent"):
            parts += ["Mislabelled or corrupted images in the coreset, %\n",
                      accuracy_table(some, "kept_perturbed_percent", best_in_bold=False)]
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    base = sum(float(row["seconds"]) for row in rows if row["method"] == WHOLE) / 3600
    parts.append(f"{hours:.2f} hours of training and testing, {base:.2f} of them base runs.\n")
    if paper:
        parts += ["## Published, ResNet-50\n", markdown(paper)]
    return "\n".join(parts)


def epochs_of(rows: list[Row], whole: bool) -> str:
    """Epochs of the runs on the whole set, or of those on a coreset: a number, or the least and the most."""
    numbers = {int(row["epochs"]) for row in rows if (row["method"] == WHOLE) == whole}
    return " to ".join(map(str, sorted({min(numbers), max(numbers)}))) if numbers else "-"


SUMMARY = ("method", "rate", "equal", "runs", "last_mean", "last_deviation", "best_mean", "best_deviation")


def summary(rows: list[Row]) -> list[Row]:
    """The rows of table.csv: mean and standard deviation for each method, rate and protocol."""
    found, key_of = [], itemgetter("method", "rate", "equal")
    for key in dict.fromkeys(map(key_of, rows)):
        group = [row for row in rows if key_of(row) == key]
        figures = [f"{figure:.4g}" for name in ("last_accuracy", "best_accuracy")
                   for figure in mean_and_deviation(float(row[name]) for row in group)]
        found.append(dict(zip(SUMMARY, (*key, str(len(group)), *figures), strict=True)))
    return found


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A header and rows as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]) + "\n"


def methods_by_rates(rows: list[Row], text: Callable[[str, float], str]) -> list[list[str]]:
    """A header and one row per method: `text` of the method and each rate."""
    methods, rates = names_and_rates(rows)
    return [["method", *(f"keep {100 * rate:g} %" for rate in rates)],
            *([method, *(text(method, rate) for rate in rates)] for method in methods)]


def accuracy_table(rows: list[Row], column: str, best_in_bold: bool = True) -> str:
    """Methods by rates, the whole set first; in bold each rate's highest mean among the most runs."""
    found = {cell: (*mean_and_deviation(values.values()), len(values))
             for cell, values in by_cell(rows, column).items()}

    def text(method: str, rate: float) -> str:
        if (method, rate) not in found:
            return "-"
        mean, deviation, runs = found[method, rate]
        others = [(n, other) for (name, at), (other, _, n) in found.items() if at == rate and name != WHOLE]
        bold = "**" if best_in_bold and method != WHOLE and (runs, mean) == max(others) else ""
        return f"{bold}{plus_minus(mean, deviation)}{bold} ({runs})"

    table = methods_by_rates(rows, text)
    if (WHOLE, 1.0) in found:
        table.insert(1, [f"{WHOLE}: {text(WHOLE, 1.0)}", *[""] * (len(table[0]) - 1)])
    return markdown(table)


def difference_table(rows: list[Row]) -> str:
    """Methods by rates: paired differences to random, seed by seed."""
    cells = by_cell(rows, "last_accuracy")

    table = methods_by_rates(rows, lambda method, rate: minus_random(cells, method, rate) or "-")
    return markdown([row for row in table if row[0] != "random"])


def minus_random(cells: Cells, method: str, rate: float) -> str:
    """Mean and interval of the paired differences, and their number; "" where there is no pair."""
    own, random = cells.get((method, rate), {}), cells.get(("random", rate), {})
    pairs = [own[seed] - random[seed] for seed in sorted(own.keys() & random.keys())]
    if not pairs:
        return ""
    mean, half_width = interval(pairs)
    return f"{'+' * (mean > 0)}{plus_minus(mean, half_width)} ({len(pairs)})"


def names_and_rates(rows: list[Row]) -> tuple[list[str], list[float]]:
    """The methods in the order of their first run, random first, and the rates, ascending."""
    some = [row for row in rows if row["method"] != WHOLE]
    methods = sorted(dict.fromkeys(row["method"] for row in some), key=lambda name: name != "random")
    return methods, sorted({float(row["rate"]) for row in some})


def published_rows(path: Path, dataset: str, perturbed: float) -> list[list[str]]:
    """A header and the rows of a data set in published.csv; [] where it has none.

    Args:
        perturbed: fraction of the training images that are mislabelled or corrupted; published rows are those
            of the nearest 5 %.
    """
    name = PUBLISHED.get(dataset, "").format(5 * round(20 * perturbed))
    with open(path, newline="", encoding="utf8") as file:
        found = [row for row in csv.DictReader(file) if row["data set"] == name]
    rates = [rate for rate in (found[0] if found else []) if any(row[rate] for row in found)][3:]
    rows = [[f"{row['method']} ({row['source']})", *(row[rate] or "-" for rate in rates)] for row in found]
    return [[name, *(f"keep {rate} %" for rate in rates)], *rows] if rows else []
