"""Tables and a plot of runs with several methods, rates and seeds."""
import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.errors import BadInput

WHOLE = "whole set"
# The 97.5 % point of Student's t with 1 to 30 degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
         2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
         2.045, 2.042)
# Okabe and Ito's colors, which color-blind readers tell apart.
COLORS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C00", "#7F3C8D",
          "#666666", "#A0522D")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 480, 70, 200, 50, 60
INK, RULE = "#222222", "#dddddd"
PUBLISHED = {"CIFAR100": "CIFAR-100", "tiny": "Tiny-ImageNet", "CIFAR100N": "CIFAR-100, 20 % label noise",
             "CIFAR100C": "CIFAR-100, 20 % corrupted"}
Row = dict[str, str]  # of runs.csv or table.csv
Cells = dict[tuple[str, float], dict[int, float]]  # numbers by method and rate, and then by seed


def read_runs(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a runs.csv; [] where there is none.

    Raises:
        BadInput: it has other columns.
    """
    if not path.exists():
        return []
    rows = list(csv.DictReader(path.read_bytes().decode("utf8", "replace").splitlines()))
    if any(tuple(row) != tuple(columns) or None in row.values() for row in rows):
        raise BadInput(f"{path}: not a file of compare.py; name another --out")
    return rows


def by_cell(rows: Iterable[Row], column: str) -> Cells:
    """A column's numbers."""
    cells: Cells = {}
    for row in rows:
        cells.setdefault((row["method"], float(row["rate"])), {})[int(row["seed"])] = float(row[column])
    return cells


def by_protocol(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows with equal epochs and those with equal steps, if any; both with the whole set's rows."""
    protocols = sorted({row["equal"] for row in rows if row["method"] != WHOLE} or {"epochs"})
    return {equal: [row for row in rows if row["method"] == WHOLE or row["equal"] == equal]
            for equal in protocols}


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
                  f"{epochs_of(some, False)} of a coreset\n",
                  "Test accuracy after the last epoch, %: mean ± standard deviation (number of runs)\n",
                  accuracy_table(some, "last_accuracy"),
                  "Test accuracy of the best epoch, %, picked on the test set as in the paper; under label "
                  "noise that is early stopping by an oracle\n", accuracy_table(some, "best_accuracy"),
                  "Last epoch's accuracy less that of random of the same seed: mean and 95 % interval of the "
                  "mean (number of pairs)\n", difference_table(some)]
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
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["rate"], row["equal"]), []).append(row)
    found = []
    for key, group in groups.items():
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


def accuracy_table(rows: list[Row], column: str) -> str:
    """Methods by rates, the whole set first, the best mean of each rate in bold."""
    found = {cell: (*mean_and_deviation(values.values()), len(values))
             for cell, values in by_cell(rows, column).items()}

    def text(method: str, rate: float) -> str:
        if (method, rate) not in found:
            return "-"
        mean, deviation, runs = found[method, rate]
        means = [other for (name, at), (other, *_) in found.items() if at == rate and name != WHOLE]
        bold = "**" if method != WHOLE and mean == max(means) else ""
        return f"{bold}{plus_minus(mean, deviation)}{bold} ({runs})"

    table = methods_by_rates(rows, text)
    if (WHOLE, 1.0) in found:
        table.insert(1, [f"{WHOLE}: {text(WHOLE, 1.0)}", *[""] * (len(table[0]) - 1)])
    return markdown(table)


def difference_table(rows: list[Row]) -> str:
    """Methods by rates: paired differences to random, seed by seed."""
    cells = by_cell(rows, "last_accuracy")

    def text(method: str, rate: float) -> str:
        own, random = cells.get((method, rate), {}), cells.get(("random", rate), {})
        pairs = [own[seed] - random[seed] for seed in sorted(own.keys() & random.keys())]
        if not pairs:
            return "-"
        mean, half_width = interval(pairs)
        return ("+" if mean > 0 else "") + f"{plus_minus(mean, half_width)} ({len(pairs)})"

    return markdown([row for row in methods_by_rates(rows, text) if row[0] != "random"])


def names_and_rates(rows: list[Row]) -> tuple[list[str], list[float]]:
    """The methods in the order of their first run, random first, and the rates, ascending."""
    some = [row for row in rows if row["method"] != WHOLE]
    methods = sorted(dict.fromkeys(row["method"] for row in some), key=lambda name: name != "random")
    return methods, sorted({float(row["rate"]) for row in some})


def published_rows(path: Path, dataset: str) -> list[list[str]]:
    """A header and the rows of a data set in published.csv; [] where it has none."""
    with open(path, newline="", encoding="utf8") as file:
        found = [row for row in csv.DictReader(file) if row["data set"] == PUBLISHED.get(dataset)]
    columns = [name for name in (found[0] if found else []) if any(row[name] for row in found)][3:]
    rows = [[f"{row['method']} ({row['source']})", *(row[name] or "-" for name in columns)] for row in found]
    return [[PUBLISHED[dataset], *(f"keep {name} %" for name in columns)], *rows] if rows else []


def draw_plot(rows: list[Row], title: str) -> Image.Image:
    """Last epoch's accuracy by rate: one line per method, bars of one standard deviation, the whole set.

    It shows the runs with equal epochs, where there are some, else those with equal steps.

    Args:
        rows: those of runs.csv, with at least one coreset run.
    """
    equal, rows = next(iter(by_protocol(rows).items()))
    cells = by_cell(rows, "last_accuracy")
    methods, rates = names_and_rates(rows)
    lines = {name: [(rate, *mean_and_deviation(cells[name, rate].values())) for rate in rates
                    if (name, rate) in cells] for name in methods}
    whole = mean_and_deviation(cells[WHOLE, 1.0].values())[0] if (WHOLE, 1.0) in cells else None
    ends = np.clip([mean + sign * np.nan_to_num(width) for line in lines.values() for _, mean, width in line
                    for sign in (-1, 1)] + ([] if whole is None else [whole]), 0, 100)
    tick = next(size for size in (1, 2, 5, 10, 20) if np.ptp(ends) <= 6 * size)
    low = float(np.floor(ends.min() / tick) * tick)
    high = max(float(np.ceil(ends.max() / tick) * tick), low + tick)
    spread = rates[-1] - rates[0] or 0.2
    first, last = rates[0] - 0.1 * spread, rates[-1] + 0.1 * spread
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(16), ImageFont.load_default(13)

    def x(rate: float) -> float:
        return LEFT + (rate - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        height = min(max((accuracy - low) / (high - low), 0), 1)  # a wide bar may end outside
        return HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM)

    pen.text((LEFT, 14), f"{title}: test accuracy after the last epoch, %; equal {equal}", INK, font)
    for accuracy in np.arange(low, high + tick / 2, tick):
        pen.line((LEFT, y(accuracy), WIDTH - RIGHT, y(accuracy)), RULE)
        pen.text((LEFT - 8, y(accuracy)), f"{accuracy:g}", INK, small, anchor="rm")
    for rate in rates:
        pen.text((x(rate), HEIGHT - BOTTOM + 8), f"{100 * rate:g} %", INK, small, anchor="ma")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 24), "images kept", INK, small, anchor="ma")
    if whole is not None:
        pen.line((LEFT, y(whole), WIDTH - RIGHT, y(whole)), INK, 1)
        pen.text((LEFT + 6, y(whole) - 3), f"{WHOLE} {whole:.1f}", INK, small, anchor="lb")
    gap = 4 if len(rates) > 1 else (WIDTH - LEFT - RIGHT) / (len(lines) + 1)  # beside one another
    for i, (name, line) in enumerate(lines.items()):
        color, shift = COLORS[i % len(COLORS)], gap * (i - (len(lines) - 1) / 2)
        points = [(x(rate) + shift, y(mean)) for rate, mean, _ in line]
        pen.line(points, color, 3)
        for (left, top), (_, mean, width) in zip(points, line, strict=True):
            if not np.isnan(width):
                pen.line((left, y(mean - width), left, y(mean + width)), color, 2)
            pen.ellipse((left - 4, top - 4, left + 4, top + 4), color)
        top = TOP + 60 + 22 * i
        pen.rectangle((WIDTH - RIGHT + 12, top - 6, WIDTH - RIGHT + 24, top + 6), color)
        pen.text((WIDTH - RIGHT + 32, top), name, INK, small, anchor="lm")
    return sheet
