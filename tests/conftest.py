"""A small data set in CIFAR-100's official layout, and the scripts through a shell."""
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runtime

ROOT = Path(__file__).resolve().parent.parent
CLASSES, TRAIN, TEST = 5, 200, 50


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fuzz: 100,000 mutated files a reader, some minutes; run.sh leaves them out")


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
