"""The picture by which a person judges a selection."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets import DataSet

WIDTH, MARGIN, HEIGHT = 880, 20, 220
CELL, COLUMNS = 64, 12
BINS = 120
INK, KEPT, DROPPED = "#222222", "#2f7ebc", "#c9ced6"


def draw_selection(data: DataSet, distances: np.ndarray, order: np.ndarray, kept: np.ndarray,
                   rate: float) -> Image.Image:
    """Histogram of the distances with the kept band marked, and images nearest, at the median and farthest.

    Args:
        distances: (n,) to each image's class centre.
        order: ids by ascending distance.
        kept: ids of the coreset.
    """
    font = ImageFont.load_default(15)
    small = ImageFont.load_default(10)
    n = len(order)
    middle = max(0, n // 2 - COLUMNS // 2)
    rows = {"nearest to their class centre": order[:COLUMNS],
            "at the median distance": order[middle:][:COLUMNS], "farthest": order[-COLUMNS:][::-1]}
    row_height = 26 + CELL + 18
    sheet = Image.new("RGB", (WIDTH, 60 + HEIGHT + 40 + len(rows) * row_height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 14), f"{data.name}: {len(kept)} of {n} training images kept (rate {rate:g})", INK, font)
    draw_histogram(pen, distances, distances[kept], 50, small)
    top = 50 + HEIGHT + 40
    for title, ids in rows.items():
        pen.text((MARGIN, top), title, INK, font)
        for column, i in enumerate(ids):
            left = MARGIN + column * (CELL + 6)
            picture = Image.fromarray(data.train.pixels([i])[0])
            picture = picture.resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top + 24))
            name = data.classes[data.train.labels[i]].replace("_", " ")
            pen.text((left, top + 26 + CELL), name[:12], INK, small)
        top += row_height
    return sheet


def draw_histogram(pen: ImageDraw.ImageDraw, distances: np.ndarray, kept: np.ndarray, top: int,
                   font: ImageFont.ImageFont) -> None:
    """Bars of the number of images by distance; the kept ones in colour."""
    counts, edges = np.histogram(distances, BINS)
    kept_counts, _ = np.histogram(kept, edges)
    scale = HEIGHT / max(counts.max(), 1)
    step = (WIDTH - 2 * MARGIN) / BINS
    base = top + HEIGHT
    for i, (count, inside) in enumerate(zip(counts, kept_counts)):
        left, right = MARGIN + i * step, MARGIN + (i + 1) * step - 1
        pen.rectangle((left, base - count * scale, right, base), fill=DROPPED)
        if inside:
            pen.rectangle((left, base - inside * scale, right, base), fill=KEPT)
    pen.text((MARGIN, base + 4), f"{edges[0]:.3g}", INK, font)
    pen.text((WIDTH - MARGIN, base + 4), f"{edges[-1]:.3g}", INK, font, anchor="ra")
    pen.text((WIDTH / 2, base + 4),
             f"distance to the class centre; kept (blue): {kept.min():.4g} to {kept.max():.4g}", INK, font,
             anchor="ma")
