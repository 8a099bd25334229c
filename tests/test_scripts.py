"""The documented commands through a shell, on a small set in the official layout."""
import csv
import json
import pickle
import re
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

import train
from conftest import CLASSES, TEST, TRAIN
from files import load_checkpoint

SMALL = ("--arch", "resnet20", "--epoch", 2, "--batch_size", 64)
TIMES = ("train_seconds", "test_seconds", "images_per_second")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, cifar: Path, script) -> Path:
    """A folder in which the three commands have run."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "data").symlink_to(cifar)
    base = "ckpt/CIFAR100/resnet20/best.pth"
    for name, *options in (
            ("train.py", "--dataset", "CIFAR100", "--data", "data", *SMALL),
            ("selection.py", "--dataset", "CIFAR100", "--arch", "resnet20", "--ckpt", base, "--rate", 0.2),
            ("train.py", "--dataset", "CIFAR100", "--data", "data", *SMALL, "--prune", "index/CIFAR100.bin")):
        result = script(name, folder, *options)
        assert result.returncode == 0 and not result.stderr, result.stderr
        (folder / "output.txt").open("a").write(result.stdout)
    return folder


def log(folder: Path) -> list[dict]:
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


def test_files_of_a_run(work: Path) -> None:
    run = work / "ckpt/CIFAR100/resnet20"
    rows = log(run)
    assert [row["lr"] for row in rows] == ["0.1", "0.02"]
    assert list(rows[0]) == list(train.COLUMNS) and [row["epoch"] for row in rows] == ["1", "2"]
    args = json.loads((run / "args.json").read_text())
    assert args["arch"] == "resnet20" and args["seed"] == 42
    assert args["versions"]["mindspore"] == ms.__version__
    shutil.copy(run / "best.pth", work / "best.ckpt")
    assert ms.load_checkpoint(str(work / "best.ckpt"))["classifier.bias"].shape == (CLASSES,)
    assert load_checkpoint(run / "last.pth")["classifier.bias"].shape == (CLASSES,)


def test_output_is_plain_lines(work: Path) -> None:
    text = (work / "output.txt").read_text()
    assert f"CIFAR100: {TRAIN} of {TRAIN} training images, {TEST} test images, {CLASSES} classes" in text
    assert f"kept 40 of {TRAIN} images" in text
    assert "coreset-moderate-0.2" in text and "\r" not in text


def test_index_manifest_and_picture(work: Path) -> None:
    drop = pickle.loads((work / "index/CIFAR100.bin").read_bytes())
    manifest = json.loads((work / "index/CIFAR100.json").read_text())
    assert drop.dtype == np.int64 and len(drop) == len(set(drop)) == 160
    assert manifest["kept"] == 40 and manifest["dropped"] == 160 and manifest["images"] == TRAIN
    assert manifest["rate"] == 0.2 and manifest["centre"] == "median"
    assert len(manifest["checkpoint_sha256"]) == 64
    low, high = manifest["kept_band"]
    distances = np.load(work / "index/CIFAR100.distances.npz")["distances"]
    kept = np.delete(distances, drop)
    assert (kept.min(), kept.max()) == (low, high)
    assert (np.sort(distances)[80:120] == np.sort(kept)).all()
    picture = Image.open(work / "index/CIFAR100.png")
    assert picture.size[0] > 600 and len(picture.getcolors(10 ** 6)) > 100


def test_another_rate_uses_the_distances_again(work: Path, script, tmp_path: Path) -> None:
    base = work / "ckpt/CIFAR100/resnet20/best.pth"
    options = ("--arch", "resnet20", "--ckpt", base, "--save", tmp_path, "--rate")
    shutil.copy(work / "index/CIFAR100.distances.npz", tmp_path)
    assert "using the distances" in script("selection.py", work, *options, 0.4).stdout
    assert "using the distances" not in script("selection.py", work, *options, 0.4, "--center", "mean").stdout


def test_coreset_run_leaves_the_base_run_alone(work: Path) -> None:
    base = work / "ckpt/CIFAR100/resnet20"
    assert sorted(path.name for path in base.iterdir()) == [
        "args.json", "best.pth", "coreset-moderate-0.2", "last.pth", "log.csv"]
    assert len(log(base / "coreset-moderate-0.2")) == 2


def test_same_seed_same_bytes_and_earlier_run_kept(work: Path, script, tmp_path: Path) -> None:
    first = work / "ckpt/CIFAR100/resnet20"
    options = ("--data", work / "data", *SMALL, "--model_dir", tmp_path)
    assert script("train.py", tmp_path, *options).returncode == 0
    second = tmp_path / "CIFAR100/resnet20"
    for name in ("best.pth", "last.pth"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    strip = [[{k: v for k, v in row.items() if k not in TIMES} for row in log(run)]
             for run in (first, second)]
    assert strip[0] == strip[1]
    result = script("selection.py", tmp_path, "--data", work / "data", "--arch", "resnet20", "--rate", 0.2,
                    "--ckpt", second / "best.pth")
    assert result.returncode == 0
    assert (tmp_path / "index/CIFAR100.bin").read_bytes() == (work / "index/CIFAR100.bin").read_bytes()
    result = script("train.py", tmp_path, *options, "--seed", 1, "--save", "False", "--eval_freq", 2)
    dated = re.search("moved the files of an earlier run to (.*)", result.stdout)[1]
    assert (Path(dated) / "best.pth").read_bytes() == (first / "best.pth").read_bytes()
    assert not (second / "best.pth").exists()
    assert log(second)[0]["test_acc"] == "" and log(second)[1]["test_acc"] != ""
    assert log(second)[0]["train_loss"] != log(first)[0]["train_loss"]


def test_random_control(work: Path, script, tmp_path: Path) -> None:
    ids = []
    for seed in (1, 1, 2):
        result = script("selection.py", work, "--method", "random", "--rate", 0.2, "--seed", seed,
                        "--save", tmp_path)
        assert result.returncode == 0
        ids.append(set(pickle.loads((tmp_path / "CIFAR100.bin").read_bytes())))
    assert ids[0] == ids[1] != ids[2] and len(ids[0]) == len(ids[2]) == 160


def test_toy_needs_no_files(script, tmp_path: Path) -> None:
    result = script("selection.py", tmp_path, "--dataset", "toy", "--method", "random", "--rate", 0.5)
    assert result.returncode == 0 and "kept 1500 of 3000" in result.stdout


def test_a_run_that_diverges_stops(work: Path, script, tmp_path: Path) -> None:
    result = script("train.py", work, *SMALL, "--lr", 1e30, "--model_dir", tmp_path)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert re.search("epoch 1/2: .* step [1-4], learning rate 1e[+]30; start again with a smaller --lr",
                     result.stderr)


def test_nothing_temporary_is_left(work: Path) -> None:
    assert not [path for path in work.rglob("*") if ".tmp" in path.name or path.name.endswith(".ckpt.ckpt")]
