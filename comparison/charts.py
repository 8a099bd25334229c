"""Figures of comparisons; the only file that imports matplotlib."""
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.tables import FEWEST, WHOLE, Row, by_cell, by_protocol, interval, names_and_rates
from methods import METHODS
from methods.rules import WINDOWS
from utils.errors import BadInput
from utils.files import replacing

# Okabe and Ito's colors, which color-blind readers tell apart; random is black, the whole set gray.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
MARKERS = "osD^vP*X<>hp"  # at most as many lines in a figure
ACCURACY = "test accuracy after the last epoch, %"
BARS = f"Bars: 95 % confidence intervals of the means over seeds, where there are {FEWEST} or more."
Runs = dict[int, float]  # accuracies by seed
Windows = dict[tuple[str, str, float], dict[float, Runs]]  # by comparison, method and rate, then by center
Drawn = tuple[Figure, list[str]]  # a figure and the labels of its lines or panels

matplotlib.rcdefaults()  # the user's settings would change the figures
matplotlib.rcParams.update({
    "axes.spines.right": False, "axes.spines.top": False, "axes.titlesize": 9, "figure.titlesize": 10,
    "figure.constrained_layout.use": True, "figure.labelsize": 8, "font.size": 9, "legend.frameon": False,
    "lines.markersize": 5, "savefig.dpi": 150, "svg.hashsalt": "moderate", "text.parse_math": False})


def new_figure(width: float, height: float, title: str, note: str) -> Figure:
    """A figure of a size in inches with a title above and a note below."""
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel(note, x=0.01, ha="left")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write <path>.png and <path>.svg, the same bytes for the same runs."""
    for form, metadata in (("png", {}), ("svg", {"Date": None})):
        with replacing(path.with_name(f"{path.name}.{form}")) as temporary:
            figure.savefig(temporary, format=form, metadata=metadata)


def draw_plot(rows: list[Row], title: str, base_arch: str) -> Figure:
    """Last epoch's accuracy: at one rate a dot per method, at several rates a line per method.

    It shows the runs with equal epochs or, if there are none, those with equal steps. `base_arch` is the
    network of the runs on the whole set.
    """
    equal, rows = next(iter(by_protocol(rows).items()))
    cells = by_cell(rows, "last_accuracy")
    methods, rates = names_and_rates(rows)
    whole = {f"{WHOLE} ({base_arch})": cells[WHOLE, 1.0]} if (WHOLE, 1.0) in cells else {}
    if len(rates) == 1:
        return draw_dots(whole | {method: cells[method, rates[0]] for method in methods},
                         f"{title}: keep {100 * rates[0]:g} %, equal {equal}")
    lines = {method: {100 * rate: cells[method, rate] for rate in rates if (method, rate) in cells}
             for method in methods}
    return draw_rates(lines, whole, f"{title}: equal {equal}")


def draw_dots(methods: dict[str, Runs], title: str) -> Figure:
    """A row per method, sorted by the mean; random's mean and interval as a line and a band."""
    intervals = {name: interval([*runs.values()]) for name, runs in methods.items()}
    order = sorted(intervals, key=lambda name: intervals[name][0])
    figure = new_figure(7, 1.3 + 0.21 * len(order), title,
                        f"{BARS}\nHollow: fewer runs. Line and band: random.")
    axes = figure.subplots()
    for row, name in enumerate(order):
        color = "black" if name == "random" else "0.5" if name.startswith(WHOLE) else COLORS[0]
        mean, half = intervals[name]
        axes.errorbar(mean, row, xerr=half, fmt="o", color=color, mfc="white" if np.isnan(half) else color)
        if name == "random":
            axes.axvspan(mean - half, mean + half, color="0.9", zorder=0)
            axes.axvline(mean, color=color, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(order)), [f"{name} ({len(methods[name])})" for name in order])
    axes.set(ylim=(-0.7, len(order) - 0.3), xlabel=f"{ACCURACY}: mean (number of runs)")
    axes.grid(axis="x", color="0.9")
    return figure


def draw_rates(lines: dict[str, dict[float, Runs]], whole: dict[str, Runs], title: str) -> Figure:
    """Accuracy against the percentage of images kept, of the methods with several rates and the most runs."""
    several = [name for name, points in lines.items() if len(points) > 1] or [*lines]
    most = sorted(several, key=lambda name: sum(map(len, lines[name].values())), reverse=True)
    # The legend has the order of the right ends of the lines.
    ends = {name: interval([*lines[name][max(lines[name])].values()])[0] for name in most[:len(MARKERS)]}
    shown = sorted(ends, key=lambda name: ends[name], reverse=True)
    skipped = f"\n{len(shown)} of {len(lines)} methods: those with several rates and the most runs."
    figure = new_figure(8, 4.5, title, BARS + skipped * (len(shown) < len(lines)))
    axes = figure.subplots()
    for name, runs in whole.items():
        axes.axhline(interval([*runs.values()])[0], color="0.5", linestyle=":", label=name)
    ticks = sorted({rate for points in lines.values() for rate in points})
    for number, name in enumerate(shown):  # the bars of one rate are side by side
        shift = 0.004 * (ticks[-1] - ticks[0]) * (number - (len(shown) - 1) / 2)
        draw_line(axes, {rate + shift: runs for rate, runs in lines[name].items()}, name, number, number)
    axes.set(ylabel=ACCURACY, xlabel="images kept, %", xticks=ticks)
    figure.legend(loc="outside right upper")
    return figure


def draw_line(axes: Axes, points: dict[float, Runs], label: str, color: int, marker: int) -> None:
    """Means of runs by x, with bars for their intervals; colors and markers are numbered."""
    xs = sorted(points)
    means, halves = zip(*(interval([*points[x].values()]) for x in xs), strict=True)
    axes.errorbar(xs, means, yerr=halves, label=label, marker=MARKERS[marker % len(MARKERS)], elinewidth=1,
                  linestyle="-" if marker < len(COLORS) or label == "random" else "--",
                  color="black" if label == "random" else COLORS[color % len(COLORS)])


def window_of(name: str) -> tuple[str, float] | None:
    """A method's name without its window, and the window's difficulty: 0 the easiest image, 1 the hardest.

    None: the method keeps no window of a score, or a cut-off moves the window.
    """
    method = METHODS.get(name.partition(":")[0])
    if not method or ":hard_cutoff=" in name:  # no method: the whole set
        return None
    given = re.search(":keep=([^:]+)", name)
    keep = given[1] if given else method.rule
    try:
        return re.sub(":keep=[^:]+", "", name), float(WINDOWS.get(keep, keep))
    except ValueError:
        return None


def find_windows(compared: dict[str, list[Row]]) -> tuple[str, Windows, dict[tuple[str, float], Runs]]:
    """The protocol that `draw_plot` shows, the runs of methods that keep a window of a score, and random's.

    The center of a window at an end is inside: that of the easiest fifth is at 0.1. BadInput if the
    comparisons have different protocols.
    """
    shown = {title: next(iter(by_protocol(rows).items())) for title, rows in compared.items()}
    equal, *other_protocols = {equal for equal, _ in shown.values()}
    if other_protocols:
        raise BadInput(", ".join(f"{title}: equal {equal}" for title, (equal, _) in shown.items()) +
                       "; one figure takes comparisons of one protocol")
    windows: Windows = {}
    random = {}
    for title, (_, rows) in shown.items():
        for (name, rate), runs in by_cell(rows, "last_accuracy").items():
            if name == "random":
                random[title, rate] = runs
            elif window := window_of(name):
                center = round(min(max(window[1], rate / 2), 1 - rate / 2), 6)
                points = windows.setdefault((title, window[0], rate), {})
                points[center] = runs | points.get(center, {})
    return equal, windows, random


def draw_intervals(compared: dict[str, list[Row]]) -> Drawn | None:
    """Last epoch's accuracy against the difficulty of the images kept, and random's mean with its interval.

    It has a line per comparison and method with three windows or more, at the most frequent of their rates.
    None: there is no such line. `compared` has the rows of runs.csv by the name of the comparison.
    """
    equal, windows, random = find_windows(compared)
    rates = [rate for (_, _, rate), points in windows.items() if len(points) >= 3 for _ in points]
    if not rates:
        return None
    rate = max(rates, key=rates.count)
    lines = {key: points for key, points in windows.items() if key[2] == rate and len(points) >= 3}
    figure = new_figure(7.5, 4.2, f"{', '.join(compared)}: keep {100 * rate:g} %, equal {equal}", BARS)
    axes = figure.subplots()
    names, titles = [*dict.fromkeys(name for _, name, _ in lines)], [*compared]
    labels = [label_of(name, title, titles) for title, name, _ in lines]
    for label, (title, name, _), points in zip(labels, lines, lines.values(), strict=True):
        number = names.index(name)
        draw_line(axes, points, label, titles.index(title) if len(titles) > 1 else number, number)
    for number, title in enumerate(titles):
        if (title, rate) in random:
            mean, half = interval([*random[title, rate].values()])
            color = COLORS[number % len(COLORS)] if len(titles) > 1 else "black"
            axes.axhline(mean, color=color, linestyle=":", label=label_of("random", title, titles))
            axes.axhspan(mean - half, mean + half, color=color, alpha=0.1, linewidth=0)
    axes.set(ylabel=ACCURACY, xlim=(0, 1), xlabel="difficulty of the images kept, 0 easiest, 1 hardest")
    figure.legend(loc="outside right upper")
    return figure, labels


def draw_map(compared: dict[str, list[Row]]) -> Drawn | None:
    """Points ahead of random by rate and difficulty of the images kept, a panel per comparison and method.

    A method needs two windows at rates with runs of random. None: there is no such method.
    """
    equal, windows, random = find_windows(compared)
    panels: dict[str, dict[tuple[float, float], list[float]]] = {}
    for (title, name, rate), points in windows.items():
        baseline = random.get((title, rate), {})
        for center, runs in points.items():
            if ahead := [runs[seed] - baseline[seed] for seed in sorted(runs.keys() & baseline.keys())]:
                panels.setdefault(label_of(name, title, [*compared]), {})[rate, center] = ahead
    panels = {label: cells for label, cells in panels.items() if len(cells) > 1}
    if not panels:
        return None
    rates, centers = (sorted({cell[i] for cells in panels.values() for cell in cells}) for i in (0, 1))
    largest = max(abs(float(np.mean(ahead))) for cells in panels.values() for ahead in cells.values())
    figure = new_figure((1 + 0.5 * len(centers)) * len(panels), 1.7 + 0.45 * len(rates),
                        f"{', '.join(compared)}: points ahead of random, equal {equal}",
                        "Means over seeds (how many). Difficulty: 0 the easiest image, 1 the hardest.")
    subplots = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, cells) in zip(subplots, panels.items(), strict=True):
        values = np.full((len(rates), len(centers)), np.nan)
        texts = np.full(values.shape, "", object)
        for (rate, center), ahead in cells.items():
            cell = rates.index(rate), centers.index(center)
            values[cell], texts[cell] = np.mean(ahead), f"{np.mean(ahead):+.1f}\n({len(ahead)})"
        draw_cells(axes, values, texts, [f"{100 * rate:g} %" for rate in rates], [f"{x:g}" for x in centers],
                   largest)
        axes.set(title=label, ylabel="images kept", xlabel="difficulty at the middle of the window")
    return figure, [*panels]


def label_of(name: str, title: str, titles: Sequence[str]) -> str:
    """The label of a line or panel: the method and, if there are several comparisons, which one."""
    return f"{name}, {title}" if len(titles) > 1 else name


def draw_matrix(names: list[str], values: np.ndarray, title: str, note: str) -> Figure:
    """A matrix of correlations (k, k) with a name per row and column, from -1 to 1, NaN where unknown."""
    figure = new_figure(2.5 + 0.45 * len(names), 2 + 0.4 * len(names), title, note)
    axes = figure.subplots()
    draw_cells(axes, values, np.vectorize("{:.2f}".format)(values), names, names, 1)
    axes.tick_params(axis="x", rotation=90)
    return figure


def draw_cells(axes: Axes, values: np.ndarray, texts: np.ndarray, rows: Sequence[str], columns: Sequence[str],
               largest: float) -> None:
    """Texts on colors by values: blue above 0, red below, deepest at `largest`; NaN white, without text."""
    axes.imshow(values, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, texts[row, column], ha="center", va="center", fontsize=8,
                      color="white" if abs(value) > 0.6 * largest else "black")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
