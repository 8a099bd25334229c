"""Small data sets in their official layouts, and the scripts through a shell."""
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtime

ROOT = Path(__file__).resolve().parent.parent
CLASSES, TRAIN, TEST = 5, 200, 50
TINY_WNIDS, TINY_TRAIN, TINY_VAL = ("n00000009", "n00000012", "n00000101"), 16, 4  # images a class


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers",
                            "fuzz: 100,000 mutated files a reader, some minutes; run.sh leaves them out")


@pytest.fixture(scope="session", autouse=True)
def device() -> None:
    runtime.set_up("CPU", 0)


def write_cifar(root: Path) -> Path:
    """Write a small data set in the layout of the official python version; return its root."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    base = generator.integers(60, 190, (CLASSES, 3072))
    for name, n in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(n) % CLASSES
        images = np.clip(base[labels] + generator.normal(0, 30, (n, 3072)), 0, 255).astype(np.uint8)
        table = {"data": images, "fine_labels": labels.tolist(), "filenames": [f"{i}.png" for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(table, protocol=2))
    names = {"fine_label_names": [f"class {i}" for i in range(CLASSES)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return root


def write_tiny(root: Path) -> Path:
    """Write a small data set in Tiny ImageNet's official layout; return its folder."""
    folder = root / "tiny-imagenet-200"
    generator = np.random.default_rng(0)
    lines = []
    (folder / "val/images").mkdir(parents=True)
    for label, wnid in enumerate(TINY_WNIDS):
        colour = generator.integers(60, 190, 3)
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("a box\n")
        names = [folder / f"train/{wnid}/images/{wnid}_{i}.JPEG" for i in range(TINY_TRAIN)]
        for i in range(TINY_VAL):
            name = f"val_{i * len(TINY_WNIDS) + label}.JPEG"
            names.append(folder / "val/images" / name)
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
        for i, path in enumerate(names):
            small = np.clip(colour + generator.normal(0, 40, (9, 9, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)
            image.convert("L" if i % 10 == 3 else "RGB").save(path, format="JPEG")
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(reversed(TINY_WNIDS)))
    (folder / "words.txt").write_text(f"{TINY_WNIDS[0]}\tgoldfish, Carassius auratus\nn99999999\tother\n")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.CompletedProcess]:
    """script("train.py", folder, "--epoch", 1): run it in a working folder, its output as text."""
    def run(name: str, folder: Path, *options: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / name), *map(str, options)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return run
