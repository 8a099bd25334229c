"""The scripts that draw README's pictures."""
import csv
import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw

from conftest import CLASSES
from datasets import open_dataset
from forks import ROOT
from models import NETWORKS
from models.checkpoint import save_checkpoint
from robust.corruptions import CORRUPTIONS
from two_layers import NAME, TwoLayers

IMAGES = 12
CELL, STEP, LEFT, TOP = 64, 70, 270, 20  # of the sheet of scenes
ROWS = ("clean", *(f"corruption: {name}" for name in CORRUPTIONS), "attack: GSA",
        "GSA - clean, x10 around gray", "attack: PGD", "PGD - clean, x10 around gray")


def load(name: str) -> ModuleType:
    """A script of imgs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"imgs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw_scenes, draw_published = load("draw_scenes"), load("draw_published")


class Texts:
    """Takes part in drawing and keeps each text with its place."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.found = []
        real = ImageDraw.ImageDraw.text

        def text(pen: ImageDraw.ImageDraw, place: tuple, words: str, *arguments: object,
                 **options: object) -> None:
            self.found.append((tuple(place), words))
            real(pen, place, words, *arguments, **options)

        patch.setattr(ImageDraw.ImageDraw, "text", text)


# The sheet of scenes

@pytest.fixture(scope="module")
def drawn(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The sheet of a small network, its texts, and what was printed."""
    folder = tmp_path_factory.mktemp("imgs")
    save_checkpoint(TwoLayers(CLASSES, True), folder / "best.pth")
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, NAME, TwoLayers)
        patch.setattr(draw_scenes, "set_up", lambda *_: "CPU")  # MindSpore takes some settings once
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        texts = Texts(patch)
        options = {"data": cifar, "ckpt": folder / "best.pth", "arch": NAME, "images": IMAGES,
                   "batch_size": 5, "out": folder / "scenes.png"}
        draw_scenes.main([word for name, value in options.items() for word in (f"--{name}", str(value))])
    with Image.open(folder / "scenes.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    return {"pixels": pixels, "texts": texts, "printed": "\n".join(printed), "folder": folder}


def cells(drawn: dict, title: str) -> np.ndarray:
    """The images in a row of the sheet, int (5, 32, 32, 3)."""
    top = TOP + ROWS.index(title) * STEP
    row = [drawn["pixels"][top:top + CELL:2, left:left + CELL:2]
           for left in range(LEFT, LEFT + CLASSES * STEP, STEP)]
    return np.stack(row).astype(int)


@pytest.fixture(scope="module")
def clean(cifar: Path) -> np.ndarray:
    """The test images that are shown: the first of each class."""
    return open_dataset("CIFAR100", cifar).test.images[:CLASSES].astype(int)


def test_the_sheet_has_a_row_a_scene_and_a_column_a_class(drawn: dict) -> None:
    titles = [words for (left, _), words in drawn["texts"].found if left == TOP]
    captions = [words for (left, _), words in drawn["texts"].found if left >= LEFT]
    assert titles == list(ROWS) and captions == [f"class {i}" for i in range(CLASSES)]
    assert drawn["pixels"].shape == (2 * TOP + 10 * STEP + 12, LEFT + CLASSES * STEP - 6 + TOP, 3)


def test_the_first_row_shows_the_images_as_they_are(drawn: dict, clean: np.ndarray) -> None:
    assert (cells(drawn, "clean") == clean).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_has_its_row(drawn: dict, clean: np.ndarray, name: str) -> None:
    shown = cells(drawn, f"corruption: {name}")
    if name != "gaussian":
        assert (shown == CORRUPTIONS[name](clean.astype(np.uint8), None)).all()
    assert (shown != clean).any((1, 2, 3)).all()


@pytest.mark.parametrize("name", ["GSA", "PGD"])
def test_each_attack_has_its_row_and_its_difference_magnified(drawn: dict, clean: np.ndarray,
                                                              name: str) -> None:
    difference = cells(drawn, f"attack: {name}") - clean
    assert np.abs(difference).max() == 8
    assert (cells(drawn, f"{name} - clean, x10 around gray") == 128 + 10 * difference).all()


def test_accuracies_are_printed(drawn: dict) -> None:
    assert re.search(f"accuracy of {NAME} on {IMAGES} test images: "
                     r"clean [\d.]+ %, GSA [\d.]+ %, PGD [\d.]+ %$", drawn["printed"], re.MULTILINE)


def test_the_sheet_alone_is_written(drawn: dict) -> None:
    assert sorted(path.name for path in drawn["folder"].iterdir()) == ["best.pth", "scenes.png"]


def test_eight_images_of_different_classes_are_shown() -> None:
    labels = np.array([4, 4, 2, 9, 2, 0, 1, 3, 5, 6, 7, 8])
    assert draw_scenes.spread_over_classes(labels).tolist() == [0, 2, 3, 5, 6, 7, 8, 9]


def test_fewer_images_are_shown_of_fewer_classes() -> None:
    assert draw_scenes.spread_over_classes(np.array([1, 1, 0, 1])).tolist() == [0, 2]


# The published tables

def published() -> list[dict[str, str]]:
    with open(ROOT / "imgs/published.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_best_rows_have_the_highest_mean_ties_too() -> None:
    rows = [{"20": "50.26±3.24"}, {"20": "9.90±9.99"}, {"20": "50.26±0.10"}, {"20": "50.25±0.01"}]
    assert draw_published.best_rows(rows, "20") == {0, 2}


def test_the_drawn_tables_show_the_published_numbers_the_best_in_bold(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row; bold is written twice, a pixel apart."""
    texts, rows = Texts(monkeypatch), published()
    draw_published.draw_tables(rows)
    rows = [row for row in rows if row["source"] == "Xia 2023" and "," not in row["data set"]]
    assert len(rows) == 16
    expected = []
    for row in rows:
        expected.append(row["method"])
        for column in list(row)[3:]:
            means = [float(other[column].partition("±")[0]) for other in rows
                     if other["data set"] == row["data set"]]
            best = float(row[column].partition("±")[0]) == max(means)
            expected += [row[column]] * (2 if best else 1)
    assert [words for _, words in texts.found if words in expected] == expected


def test_main_draws_the_table_of_the_csv_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "imgs/published.csv", tmp_path)
    monkeypatch.setattr(draw_published, "HERE", tmp_path)
    draw_published.main()
    with Image.open(tmp_path / "Table5.png") as found, Image.open(ROOT / "imgs/Table5.png") as committed:
        assert found.format == "PNG" and found.size == committed.size
        assert len(found.convert("L").getcolors()) > 10  # there is text on it
