"""The summary figure of a selection."""
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, MARGIN, HEIGHT = 880, 20, 220
CELL, COLUMNS = 64, 12
ROW_HEIGHT = 26 + CELL + 18
BINS = 120
INK, KEPT, DROPPED = "#222222", "#2f7ebc", "#c9ced6"
Images = Callable[[np.ndarray], np.ndarray]  # positions (k,) to their square images, uint8 (k, side, side, 3)


def draw_selection(title: str, score: np.ndarray | None, hard: str, score_name: str, kept: np.ndarray,
                   n: int, images: Images | None, captions: Sequence[str]) -> Image.Image:
    """Histogram of the score, with the kept images in color, and the rows of images by `image_rows`.

    Args:
        score: (n,), or None.
        hard: the end of the score with the hard images, "low" or "high".
        kept: positions of the coreset.
        images: None: no images are shown.
        captions: the text below each image, by position; where the font lacks its glyphs, the position.
    """
    parts = image_rows(score, hard, kept, n)
    rows = [(name, positions, images(positions)) for name, positions in parts] if images else []
    height = 60 + (0 if score is None else HEIGHT + 40) + len(rows) * ROW_HEIGHT + MARGIN
    sheet = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(15), ImageFont.load_default(10)
    pen.text((MARGIN, 14), title, INK, font)
    top = 50
    if score is not None:  # bars for the number of images by score, the kept images in color
        counts, edges = np.histogram(score, BINS)
        kept_counts, _ = np.histogram(score[kept], edges)
        scale, step, base = HEIGHT / max(counts.max(), 1), (WIDTH - 2 * MARGIN) / BINS, top + HEIGHT
        for i, (count, inside) in enumerate(zip(counts, kept_counts, strict=True)):
            left, right = MARGIN + i * step, MARGIN + (i + 1) * step - 1
            pen.rectangle((left, base - count * scale, right, base), fill=DROPPED)
            if inside:
                pen.rectangle((left, base - inside * scale, right, base), fill=KEPT)
        band = f"{score[kept].min():.4g} to {score[kept].max():.4g}"
        for x, text, anchor in ((MARGIN, f"{edges[0]:.3g}", "la"), (WIDTH - MARGIN, f"{edges[-1]:.3g}", "ra"),
                                (WIDTH / 2, f"{score_name}; kept (blue): {band}", "ma")):
            pen.text((x, base + 4), text, INK, ImageFont.load_default(13), anchor=anchor)
        top += HEIGHT + 40
    for heading, positions, shown in rows:
        pen.text((MARGIN, top), heading, INK, font)
        for column, (i, pixels) in enumerate(zip(positions, shown, strict=True)):
            left = MARGIN + column * (CELL + 6)
            # Small images show their pixels.
            way = Image.Resampling.NEAREST if len(pixels) <= CELL else Image.Resampling.BILINEAR
            sheet.paste(Image.fromarray(pixels).resize((CELL, CELL), way), (left, top + 24))
            caption = captions[i] if has_glyphs(captions[i], small) else str(i)
            pen.text((left, top + 26 + CELL), fitting(caption, small), INK, small)
        top += ROW_HEIGHT
    return sheet


def fitting(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The first letters of a caption that fit below an image; "…" for the rest."""
    shown = " ".join(caption.replace("_", " ").split())
    while font.getlength(shown) > CELL:
        shown = shown[:-2].rstrip() + "…"
    return shown


def has_glyphs(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> bool:
    """Whether a font can show a text."""
    missing = bytes(font.getmask("\U0010ffff"))  # what is drawn for a character without a glyph
    return all(character.isspace() or bytes(font.getmask(character)) != missing for character in text)


def image_rows(score: np.ndarray | None, hard: str, kept: np.ndarray, n: int) -> list[tuple[str, np.ndarray]]:
    """Headings and positions of images: easiest, kept and hardest; without a score, kept and dropped."""
    def spread(positions: np.ndarray) -> np.ndarray:
        return positions[np.linspace(0, len(positions) - 1, min(COLUMNS, len(positions)), dtype=int)]

    if score is None:
        dropped = np.delete(np.arange(n), kept)
        return [("kept", spread(kept)), *([("dropped", spread(dropped))] if len(dropped) else [])]
    order = np.argsort(score if hard == "high" else -score, kind="stable")
    return [("easiest", order[:COLUMNS]), ("kept, from easy to hard", spread(order[np.isin(order, kept)])),
            ("hardest", order[-COLUMNS:][::-1])]
