"""Small data sets in their official layouts, and the scripts run as by a shell."""
import csv
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import utils  # noqa: F401  before MindSpore

# isort: split

import numpy as np
import pytest
from PIL import Image

from datasets import SOURCES, DataSet
from datasets.images import Split
from forks import Forks
from two_layers import NAME
from utils.device import set_up

CLASSES, TRAIN, TEST = 5, 200, 50
SMALL = ("--arch", NAME, "--batch_size", 100)  # one graph for training and one for tests
TRAINED = (*SMALL, "--epoch", 3)  # options of the run `trained`
TIMES = ("train_seconds", "test_seconds", "images_per_second")
TINY_WNIDS, TINY_TRAIN, TINY_VAL = ("n00000009", "n00000012", "n00000101"), 16, 4  # images a class


@pytest.fixture(scope="session", autouse=True)
def device() -> None:
    set_up("CPU", 0)


def random_data(n: int, classes: int) -> DataSet:
    """Random images of 16x16 pixels, the same ones for training and for tests."""
    generator = np.random.default_rng(0)
    split = Split(generator.integers(0, 256, (n, 16, 16, 3), np.uint8),
                  generator.integers(0, classes, n, np.int32))
    return DataSet("random", split, split, [str(i) for i in range(classes)], SOURCES["toy"], "")


def log(folder: Path, times: bool = True) -> list[dict[str, str]]:
    """The rows of a run's log.csv, with or without times; none where there is no log yet."""
    if not (folder / "log.csv").exists():
        return []
    with open(folder / "log.csv", newline="") as file:
        return [{name: value for name, value in row.items() if times or name not in TIMES}
                for row in csv.DictReader(file)]


def set_args(folder: Path, **args: object) -> None:
    """Change what a run's args.json says."""
    path = folder / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | args))


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def npy(array: np.ndarray) -> bytes:
    """The content of a .npy file, also of objects."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class Payload:
    """Makes a folder when it is unpickled without care."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("TRAP",)


def objects(path: Path) -> None:
    """Write a .npy file with a payload."""
    path.write_bytes(npy(np.array([Payload()], object)))


def check_one_line(result: CompletedProcess, *words: str, status: int = 2) -> None:
    """A script has ended with one line on standard error that has these words."""
    assert result.returncode == status and result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def names(folder: Path) -> set[str]:
    """Of all that is in a folder."""
    return {path.name for path in folder.iterdir()}


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


def write_cifar10(root: Path) -> Path:
    """Write the same images and labels in the layout of CIFAR-10, with keys in bytes as the official ones."""
    source, folder = write_cifar(root) / "cifar-100-python", root / "cifar-10-batches-py"
    folder.mkdir()
    train, test, meta = (pickle.loads((source / name).read_bytes()) for name in ("train", "test", "meta"))
    size = TRAIN // 5
    tables = {f"data_batch_{i + 1}": (train["data"][i * size:(i + 1) * size],
                                      train["fine_labels"][i * size:(i + 1) * size]) for i in range(5)}
    for name, (images, labels) in (tables | {"test_batch": (test["data"], test["fine_labels"])}).items():
        (folder / name).write_bytes(pickle.dumps({b"data": images, b"labels": labels}, protocol=2))
    meta = {b"label_names": meta["fine_label_names"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def write_tiny(root: Path) -> Path:
    """Write a small data set in Tiny ImageNet's official layout; return its folder."""
    folder = root / "tiny-imagenet-200"
    generator = np.random.default_rng(0)
    lines = []
    (folder / "val/images").mkdir(parents=True)
    for label, wnid in enumerate(TINY_WNIDS):
        color = generator.integers(60, 190, 3)
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("a box\n")
        names = [folder / f"train/{wnid}/images/{wnid}_{i}.JPEG" for i in range(TINY_TRAIN)]
        for i in range(TINY_VAL):
            name = f"val_{i * len(TINY_WNIDS) + label}.JPEG"
            names.append(folder / "val/images" / name)
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
        for i, path in enumerate(names):
            small = np.clip(color + generator.normal(0, 40, (9, 9, 3)), 0, 255).astype(np.uint8)
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
def forks() -> Iterator[Forks]:
    with Forks() as running:
        yield running


@pytest.fixture(scope="session")
def script(forks: Forks) -> Callable[..., CompletedProcess]:
    """script("train.py", folder, "--epoch", 1): run it in a working folder, its output as text."""
    def run(name: str, folder: Path, *options: object) -> CompletedProcess:
        done = forks.start(folder, name, *options).finish()
        return CompletedProcess(done.request["command"], done.returncode, done.out, done.err)
    return run


@pytest.fixture
def work(cifar: Path, trained: Path, tmp_path: Path) -> Path:
    """A working folder with data and the run of three epochs."""
    (tmp_path / "data").symlink_to(cifar)
    shutil.copytree(trained, tmp_path / "ckpt/CIFAR100" / NAME)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, cifar: Path, script) -> Path:
    """The folder of a run of three epochs on the whole set; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("trained")
    result = script("train.py", folder, "--data", cifar, *TRAINED)
    assert result.returncode == 0, result.stderr
    return folder / "ckpt/CIFAR100" / NAME
