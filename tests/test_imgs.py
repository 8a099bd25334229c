"""The script that draws README's sheet of scenes."""
import importlib.util
import re
from pathlib import Path

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
CELL, STEP, LEFT, TOP = 64, 70, 270, 20  # of the sheet, in pixels
ROWS = ("clean", *(f"corruption: {name}" for name in CORRUPTIONS), "attack: GSA",
        "GSA - clean, x10 around gray", "attack: PGD", "PGD - clean, x10 around gray")
SPEC = importlib.util.spec_from_file_location("draw_scenes", ROOT / "imgs/draw_scenes.py")
draw_scenes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(draw_scenes)


@pytest.fixture(scope="module")
def drawn(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The sheet of a small network, its texts with their positions, and what was printed."""
    folder = tmp_path_factory.mktemp("imgs")
    save_checkpoint(TwoLayers(CLASSES, True), folder / "best.pth")
    printed, texts, real = [], [], ImageDraw.ImageDraw.text

    def text(pen: ImageDraw.ImageDraw, position: tuple, words: str, *arguments: object, **options) -> None:
        texts.append((position[0], words))
        real(pen, position, words, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, NAME, TwoLayers)
        patch.setattr(draw_scenes, "set_up", lambda *_: "CPU")  # MindSpore takes some settings once
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        patch.setattr(ImageDraw.ImageDraw, "text", text)
        options = {"data": cifar, "ckpt": folder / "best.pth", "arch": NAME, "images": IMAGES,
                   "batch_size": 5, "out": folder / "scenes.png"}
        draw_scenes.main([word for name, value in options.items() for word in (f"--{name}", str(value))])
    with Image.open(folder / "scenes.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    return {"pixels": pixels, "texts": texts, "printed": "\n".join(printed), "folder": folder}


def cells(drawn: dict, title: str) -> np.ndarray:
    """The images in a row of the sheet, int (5, 32, 32, 3)."""
    top = TOP + ROWS.index(title) * STEP
    return np.stack([drawn["pixels"][top:top + CELL:2, left:left + CELL:2]
                     for left in range(LEFT, LEFT + CLASSES * STEP, STEP)]).astype(int)


def test_the_sheet_has_a_row_per_scene_and_a_column_per_class(drawn: dict) -> None:
    assert [words for left, words in drawn["texts"] if left == TOP] == list(ROWS)
    assert [words for left, words in drawn["texts"] if left >= LEFT] == [f"class {i}" for i in range(CLASSES)]
    assert drawn["pixels"].shape == (2 * TOP + 10 * STEP + 12, LEFT + CLASSES * STEP - 6 + TOP, 3)
    assert sorted(path.name for path in drawn["folder"].iterdir()) == ["best.pth", "scenes.png"]


def test_rows_show_clean_images_each_corruption_each_attack_and_its_difference(cifar: Path,
                                                                               drawn: dict) -> None:
    clean = open_dataset("CIFAR100", cifar).test.images[:CLASSES].astype(int)
    assert (cells(drawn, "clean") == clean).all()
    for name in CORRUPTIONS:
        shown = cells(drawn, f"corruption: {name}")
        assert (shown != clean).any((1, 2, 3)).all()
        if name != "gaussian":
            assert (shown == CORRUPTIONS[name](clean.astype(np.uint8), None)).all()
    for name in ("GSA", "PGD"):
        difference = cells(drawn, f"attack: {name}") - clean
        assert np.abs(difference).max() == 8
        assert (cells(drawn, f"{name} - clean, x10 around gray") == 128 + 10 * difference).all()


def test_accuracies_are_printed(drawn: dict) -> None:
    assert re.search(f"accuracy of {NAME} on {IMAGES} test images: "
                     r"clean [\d.]+ %, GSA [\d.]+ %, PGD [\d.]+ %$", drawn["printed"], re.MULTILINE)
