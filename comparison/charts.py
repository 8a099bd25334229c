"""Plots of runs with several methods, rates and seeds."""
import re
from itertools import pairwise

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from comparison.tables import WHOLE, Row, by_cell, by_protocol, mean_and_deviation, names_and_rates
from methods import METHODS
from methods.rules import WINDOWS
from utils.errors import BadInput

# Okabe and Ito's colors, which color-blind readers tell apart.
COLORS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C00", "#7F3C8D",
          "#666666", "#A0522D")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 880, 480, 70, 280, 50, 60
INK, GRID, BAND = "#222222", "#dddddd", "#eeeeee"
Lines = dict[str, list[tuple[float, float, float]]]  # by name, points of x, mean and deviation


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
    base = cells.get((WHOLE, 1.0))
    whole = (WHOLE, mean_and_deviation(base.values())[0], float("nan")) if base else None
    return draw_chart(f"{title}: test accuracy after the last epoch, %; equal {equal}", "images kept", lines,
                      {rate: f"{100 * rate:g} %" for rate in rates}, whole)


def draw_intervals(compared: dict[str, list[Row]]) -> tuple[Image.Image, list[str]] | None:
    """Last epoch's accuracy by the quantile of a score around which images are kept, the easy end first.

    One line per comparison and method that has three or more quantiles at the rate with the most of them; for
    a single comparison random's mean too, with a band of one standard deviation. It shows the protocol that
    `draw_plot` shows. A window at an end of the ranks stands where its center lies: of a fifth, `lowest` and
    the quantile 0.1 are one window.

    Args:
        compared: rows of runs.csv by the comparison's name.

    Returns:
        The picture and the names of its lines, such as "aum", of several comparisons "aum, CIFAR100N"; None:
        no method has three quantiles.

    Raises:
        BadInput: some comparisons have runs with equal epochs, others with equal steps only.
    """
    shown = {title: next(iter(by_protocol(rows).items())) for title, rows in compared.items()}
    equal, *others = {equal for equal, _ in shown.values()}
    if others:
        raise BadInput(", ".join(f"{title}: equal {name}" for title, (name, _) in shown.items()) + "; one "
                       "picture takes comparisons of one protocol")
    found: dict[float, dict[str, dict[float, dict[int, float]]]] = {}  # by rate, line, quantile and seed
    several = len(compared) > 1
    for title, (_, rows) in shown.items():
        cells = by_cell(rows, "last_accuracy")
        for (name, rate), values in cells.items():
            if window := easy_quantile(name):
                label = f"{window[0]}, {title}" if several else window[0]
                center = round(min(max(window[1], rate / 2), 1 - rate / 2), 6)
                line = found.setdefault(rate, {}).setdefault(label, {})
                line[center] = values | line.get(center, {})
    lines: dict[float, Lines] = {
        rate: {label: sorted((center, *mean_and_deviation(runs.values())) for center, runs in line.items())
               for label, line in of_rate.items() if len(line) >= 3} for rate, of_rate in found.items()}
    rate = max(lines, key=lambda rate: sum(map(len, lines[rate].values())), default=0.0)
    if not lines.get(rate):
        return None
    ticks = {quantile: f"{quantile:g}" for line in lines[rate].values() for quantile, *_ in line}
    heading = f"test accuracy after the last epoch, %; keep {100 * rate:g} %, equal {equal}"
    axis = "quantile of the score around which images are kept, from the easy end"
    if several:
        return draw_chart(heading, axis, lines[rate], ticks, None), [*lines[rate]]
    random = cells.get(("random", rate))
    level = ("random", *mean_and_deviation(random.values())) if random else None
    return draw_chart(f"{title}: {heading}", axis, lines[rate], ticks, level), [*lines[rate]]


def easy_quantile(name: str) -> tuple[str, float] | None:
    """A name without its window, and the window's quantile from the easy end; None: no window of a score."""
    method = METHODS.get(name.partition(":")[0])
    if not method:  # the whole set
        return None
    given = re.search(":keep=([^:]+)", name)
    keep = given[1] if given else method.rule
    try:
        quantile = float(WINDOWS.get(keep, keep))
    except ValueError:
        return None
    return re.sub(":keep=[^:]+", "", name), quantile


def draw_chart(title: str, axis: str, lines: Lines, ticks: dict[float, str],
               level: tuple[str, float, float] | None) -> Image.Image:
    """Lines of means with bars of one standard deviation, where that is not NaN (a single run).

    Args:
        ticks: the marks below, x to text.
        level: a horizontal line's name, mean and deviation; with a band where that is not NaN.
    """
    xs = sorted(ticks)
    ends = np.clip([mean + sign * np.nan_to_num(width) for line in lines.values()
                    for _, mean, width in line for sign in (-1, 1)] + ([level[1]] if level else []), 0, 100)
    tick = next(size for size in (1, 2, 5, 10, 20) if np.ptp(ends) <= 6 * size)
    low = float(np.floor(ends.min() / tick) * tick)
    high = max(float(np.ceil(ends.max() / tick) * tick), low + tick)
    spread = xs[-1] - xs[0] or 0.2
    first, last = xs[0] - 0.1 * spread, xs[-1] + 0.1 * spread
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(16), ImageFont.load_default(13)

    def x(value: float) -> float:
        return LEFT + (value - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        height = min(max((accuracy - low) / (high - low), 0), 1)  # a wide bar may end outside
        return HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM)

    if level and not np.isnan(level[2]):
        _, mean, width = level
        pen.rectangle((LEFT, y(mean + width), WIDTH - RIGHT, y(mean - width)), BAND)
    pen.text((LEFT, 14), title, INK, font)
    for accuracy in np.arange(low, high + tick / 2, tick):
        pen.line((LEFT, y(accuracy), WIDTH - RIGHT, y(accuracy)), GRID)
        pen.text((LEFT - 8, y(accuracy)), f"{accuracy:g}", INK, small, anchor="rm")
    for value, text in ticks.items():
        pen.text((x(value), HEIGHT - BOTTOM + 8), text, INK, small, anchor="ma")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 24), axis, INK, small, anchor="ma")
    if level:
        pen.line((LEFT, y(level[1]), WIDTH - RIGHT, y(level[1])), INK, 1)
    # Beside one another: all lines within a tenth of the distance of marks, or over the width for one mark.
    step = min((x(after) - x(before) for before, after in pairwise(xs)), default=0.0)
    gap = min(4, 0.2 * step / len(lines)) if step else (WIDTH - LEFT - RIGHT) / (len(lines) + 1)
    height = min(22, (HEIGHT - TOP - 20) // (len(lines) + 1))  # of a line of the legend
    small_name = ImageFont.load_default(min(13, height))
    for i, (name, line) in enumerate(lines.items()):
        color, shift = COLORS[i % len(COLORS)], gap * (i - (len(lines) - 1) / 2)
        points = [(x(value) + shift, y(mean)) for value, mean, _ in line]
        pen.line(points, color, 3)
        for (left, top), (_, mean, width) in zip(points, line, strict=True):
            if not np.isnan(width):
                pen.line((left, y(mean - width), left, y(mean + width)), color, 2)
            mark(pen, left, top, 4, i)
        top = TOP + 10 + height * i
        mark(pen, WIDTH - RIGHT + 18, top, min(6, height // 2 - 1), i)
        pen.text((WIDTH - RIGHT + 32, top), name, INK, small_name, anchor="lm")
    if level:
        top = TOP + 10 + height * len(lines)
        pen.line((WIDTH - RIGHT + 10, top, WIDTH - RIGHT + 26, top), INK, 1)
        pen.text((WIDTH - RIGHT + 32, top), f"{level[0]} {level[1]:.1f}", INK, small_name, anchor="lm")
    return sheet


def draw_matrix(names: list[str], values: np.ndarray, title: str) -> Image.Image:
    """A square matrix of correlations, each a number on its color: blue above 0, orange below, NaN white.

    Args:
        values: (k, k), from -1 to 1, one row and one column per name.
    """
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    captions = [f"{name}  {row + 1}" for row, name in enumerate(names)]
    cell, left, top = 48, 20 + round(max(map(small.getlength, captions))), 60
    side = cell * len(names)
    sheet = Image.new("RGB", (max(left + side + 20, WIDTH), top + side + 40), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((12, 14), title, INK, font)
    for row, caption in enumerate(captions):
        y = top + cell * row
        pen.text((left - 8, y + cell / 2), caption, INK, small, anchor="rm")
        pen.text((left + cell * (row + 0.5), top + side + 8), str(row + 1), INK, small, anchor="ma")
        for column, value in enumerate(values[row]):
            x, share = left + cell * column, np.nan_to_num(abs(value))
            hue = ImageColor.getrgb(COLORS[2 if value > 0 else 1])
            color = tuple(round(255 + share * (part - 255)) for part in hue)
            pen.rectangle((x, y, x + cell - 2, y + cell - 2), color)
            if not np.isnan(value):
                pen.text((x + cell / 2, y + cell / 2), f"{value:.2f}", "white" if value > 0.6 else INK, small,
                         anchor="mm")
    return sheet


def mark(pen: ImageDraw.ImageDraw, x: float, y: float, half: float, number: int) -> None:
    """A line's mark: a color, and a disk, a square, a diamond or a ring for the lines that have it."""
    color, box = COLORS[number % len(COLORS)], (x - half, y - half, x + half, y + half)
    shape = number // len(COLORS) % 4
    if shape == 1:
        pen.rectangle(box, color)
    elif shape == 2:
        pen.polygon([(x, y - half - 1), (x + half + 1, y), (x, y + half + 1), (x - half - 1, y)], color)
    else:
        pen.ellipse(box, color if shape == 0 else "white", color, 2)
