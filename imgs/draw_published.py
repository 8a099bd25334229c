"""Draw Table5.png, the paper's Tables 5 and 6, from published.csv: `python imgs/draw_published.py`."""
import csv
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
PAPER = "Xia 2023"
FULL = {"CIFAR-100": "78.14±0.55", "Tiny-ImageNet": "49.36±0.25"}
ROW, FIRST, COLUMN, MARGIN, SIZE = 30, 230, 140, 24, 18
INK, RULE, SHADE = "#222222", "#888888", "#eef3f8"


def best_rows(rows: list[dict], column: str) -> set[int]:
    """Numbers of the rows with the highest mean in a column."""
    means = [float(row[column].split("±")[0]) for row in rows]
    return {i for i, mean in enumerate(means) if mean == max(means)}


def draw_tables(rows: list[dict]) -> Image.Image:
    """Tables 5 and 6 of all published figures on one sheet, the best mean of each column in bold."""
    rows = [row for row in rows if row["data set"] in FULL and row["source"] == PAPER]
    tables = [(name, list(group)) for name, group in groupby(rows, key=lambda row: row["data set"])]
    columns = list(rows[0])[3:]
    width = 2 * MARGIN + FIRST + COLUMN * len(columns)
    height = 2 * MARGIN + ROW + sum((len(group) + 2) * ROW + MARGIN for _, group in tables)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(SIZE)
    pen.text((MARGIN, MARGIN),
             "Test accuracy of ResNet-50 in %, mean ± deviation of five runs (Xia et al., ICLR 2023)",
             INK, font)
    top = MARGIN + ROW + 10
    for name, group in tables:
        pen.text((MARGIN, top), f"{name} (all images: {FULL[name]})", INK, font)
        for i, column in enumerate(columns):
            pen.text((MARGIN + FIRST + COLUMN * (i + 0.5), top + ROW), f"keep {column} %", INK, font,
                     anchor="ma")
        top += 2 * ROW
        pen.line((MARGIN, top - 4, width - MARGIN, top - 4), RULE)
        best = {column: best_rows(group, column) for column in columns}
        for number, row in enumerate(group):
            if row["method"] == "Moderate-DS":
                pen.rectangle((MARGIN, top - 2, width - MARGIN, top + ROW - 4), SHADE)
            pen.text((MARGIN + 4, top), row["method"], INK, font)
            for i, column in enumerate(columns):
                left = MARGIN + FIRST + COLUMN * (i + 0.5)
                pen.text((left, top), row[column], INK, font, anchor="ma")
                if number in best[column]:  # Pillow's own font has no bold: set it twice, a pixel apart
                    pen.text((left + 1, top), row[column], INK, font, anchor="ma")
            top += ROW
        top += MARGIN - 10
    return sheet


def main() -> None:
    with open(HERE / "published.csv", encoding="utf-8", newline="") as file:
        draw_tables(list(csv.DictReader(file))).save(HERE / "Table5.png")


if __name__ == "__main__":
    main()
