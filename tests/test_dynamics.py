"""Training dynamics: the numbers recorded, their file, and how selection.py finds and trusts it."""
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import mindspore as ms
import numpy as np
import pytest

import train
from conftest import TRAINED, check_one_line, random_data
from datasets.pipeline import training_batches
from forks import Forks
from models.checkpoint import load_checkpoint
from two_layers import NAME, TwoLayers
from utils.errors import BadInput
from utils.runs import Dynamics

RUN = Path("ckpt/CIFAR100", NAME)


# The numbers

def in_numpy(network: TwoLayers, images: np.ndarray) -> np.ndarray:
    """A network's logits, float64, of normalized images (n, 3, 16, 16)."""
    (w1, b1), (w2, b2) = ((layer.weight.asnumpy().astype(float), layer.bias.asnumpy())
                          for layer in (network.hidden[0], network.classifier))
    pooled = images.reshape(len(images), 3, 4, 4, 4, 4).mean((3, 5)).reshape(len(images), -1)
    return np.maximum(pooled @ w1.T + b1, 0) @ w2.T + b2


def test_of_a_run_whose_network_stays(tmp_path: Path) -> None:
    """At a learning rate of next to nothing: each epoch says what the network says of its presented images.

    They are other pictures of the same image in each epoch; 30 images make a smaller last batch.
    """
    n, seed = 30, 3
    data = random_data(n, 7)
    network = TwoLayers(7, True)
    args = f"--epoch 2 --batch_size 20 --lr 1e-30 --seed {seed} --save False"
    train.train(network, data, np.arange(n), tmp_path, train.parse_options(args.split()))
    expected = np.empty((2, 3, n))
    for epoch in range(2):
        for ids, images, labels in training_batches(data, np.arange(n), 20, seed, epoch=epoch):
            for i, logits, label in zip(ids, in_numpy(network, images), labels, strict=True):
                p = np.exp(logits) / np.exp(logits).sum()
                others = np.delete(p, label)
                expected[epoch, :, i] = (p[label], p[label] - max(others),
                                         np.sqrt((1 - p[label]) ** 2 + (others ** 2).sum()))
    recorded = np.load(tmp_path / "dynamics.npy")
    assert recorded.dtype == np.float16
    assert np.abs(recorded - expected).max() < 1e-3
    assert np.abs(recorded[0] - recorded[1]).max() > 1e-2


# The file

def test_recording_them_changes_nothing_else(cifar: Path, script, trained: Path, tmp_path: Path) -> None:
    options = ("--data", cifar, *TRAINED, "--dynamics", "False")
    assert script("train.py", tmp_path, *options).returncode == 0
    assert not list(tmp_path.rglob("dynamics.npy"))
    with_them, without = (load_checkpoint(folder / "last.pth") for folder in (trained, tmp_path / RUN))
    for name, value in with_them.items():
        assert (value == without[name]).all(), name


def record(path: Path, first: int, *epochs: float) -> None:
    """Record epochs of one image, of four, from number `first` on."""
    dynamics = Dynamics(path, 4, 1, resume=first > 0)
    for number, value in enumerate(epochs, first):
        dynamics.pending.append((np.array([0]), ms.Tensor([[value], [0], [0]], ms.float32)))
        dynamics.write_epoch(number)


def test_an_epoch_is_recorded_once_it_is_finished(tmp_path: Path) -> None:
    dynamics = Dynamics(tmp_path / "x.npy", 2, 2, resume=False)
    dynamics.pending.append((np.array([1]), ms.Tensor([[.5], [.25], [1]], ms.float32)))
    assert np.isnan(np.load(tmp_path / "x.npy")).all()
    dynamics.pending.append((np.array([0]), ms.Tensor([[1], [.75], [0]], ms.float32)))
    dynamics.write_epoch(0)
    first, second = np.load(tmp_path / "x.npy")
    assert first.tolist() == [[1, .5], [.75, .25], [0, 1]] and np.isnan(second).all()


def test_a_resumed_run_writes_over_an_epoch_that_its_checkpoint_lacks(tmp_path: Path) -> None:
    record(tmp_path / "x.npy", 0, .125, .25)
    record(tmp_path / "x.npy", 1, .75, .5)
    assert np.load(tmp_path / "x.npy")[:3, 0, 0].tolist() == [.125, .75, .5]


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 3, 1), np.float16))
    with pytest.raises(BadInput, match="x.npy: float16 .3, 3, 1., not float16 .4, 3, 1.; start again"):
        record(tmp_path / "x.npy", 2)


# Found by selection.py

@pytest.fixture
def select(script, work: Path) -> Callable[..., CompletedProcess]:
    def run(*options: object) -> CompletedProcess:
        return script("selection.py", work, "--ckpt", RUN / "best.pth", "--rate", 0.2, "--method",
                      "forgetting", *options)
    return run


@pytest.mark.parametrize("ckpt", ["best.pth", "last.pth"])
def test_they_are_found_beside_the_checkpoint(select, work: Path, ckpt: str) -> None:
    assert select("--ckpt", RUN / ckpt).returncode == 0
    manifest = json.loads((work / "index/CIFAR100-forgetting.json").read_text())
    assert manifest["dynamics"] == str(RUN / "dynamics.npy") and manifest["epochs"] == 3


def test_numpys_other_order_of_the_same_numbers_is_read(select, work: Path) -> None:
    path = work / RUN / "dynamics.npy"
    np.save(path, np.asfortranarray(np.load(path)))
    assert select().returncode == 0


def test_those_of_another_folder_than_the_checkpoints_are_refused(select, trained: Path) -> None:
    check_one_line(select("--dynamics", trained / "dynamics.npy"), "dynamics.npy: not in the folder of",
                   "best.pth", "pass both of one run")


def test_those_of_an_unfinished_run_are_its_finished_epochs(cifar: Path, forks: Forks, script,
                                                            tmp_path: Path) -> None:
    """The run is killed in its third epoch."""
    forks.kill(tmp_path, "os.rename .log.csv.tmp", 2, "train.py", "--data", cifar, *TRAINED)
    result = script("selection.py", tmp_path, "--data", cifar, "--ckpt", RUN / "best.pth", "--rate", 0.2,
                    "--method", "el2n")
    assert result.returncode == 0 and "dynamics: there are 2 epochs" in result.stdout, result.stderr
    assert f"{RUN}/best.pth: its run has finished 2 of 3 epochs; using it anyway" in result.stderr


def test_those_of_other_images_are_refused(select, work: Path) -> None:
    """A label has changed since."""
    path = shutil.copytree(work / "data", work / "other") / "cifar-100-python/train"
    table = pickle.loads(path.read_bytes())
    table["fine_labels"][-1] = 0
    path.write_bytes(pickle.dumps(table))
    result = select("--data", "other")
    warning, error = result.stderr.splitlines()
    assert result.returncode == 2 and "using it anyway" in warning
    assert "not of the images of CIFAR100 in --data" in error


@pytest.mark.parametrize("change", [lambda array: array[..., 1:], lambda array: array + np.float16(np.nan)],
                         ids=["one image less", "NaN"])
def test_those_that_do_not_fit_are_refused(select, work: Path, change: Callable) -> None:
    path = work / RUN / "dynamics.npy"
    np.save(path, change(np.load(path)))
    check_one_line(select(), f"{RUN}/dynamics.npy: ")
    assert not (work / "index").exists()
