"""Several ranks on a CPU: the same results as one, one line at their ends, whoever ends first.

The ranks are forks, started with the variables that msrun gives; under msrun itself, with three of them and
killed in the first one: `bash tests/run.sh -m ranks`.
"""
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import train
from conftest import TRAIN, random_data
from datasets import open_dataset
from datasets.pipeline import PADDING, EvaluationBatches, TrainingBatches
from forks import ROOT, Forks, Run
from models.checkpoint import load_network, load_state
from two_layers import NAME

RUN = Path("ckpt/CIFAR100", NAME)
# Two batches an epoch, six steps: the second has one image, so that the second rank has none of it.
OPTIONS = ("--arch", NAME, "--batch_size", TRAIN - 1, "--epoch", 3, "--lr", 0.01)
LONG = ("--arch", NAME, "--batch_size", 100, "--epoch", 100_000)
LOGGED = ("train_loss", "train_acc", "test_loss", "test_acc")


def finish(runs: list[Run]) -> list[Run]:
    return [run.finish() for run in runs]


def check(runs: list[Run], status: int = 0, line: str = "") -> None:
    """All have that exit status, and one line at most is said, by one of them."""
    finish(runs)
    said = "".join(run.err for run in runs)
    assert [run.returncode for run in runs] == [status] * len(runs), said
    assert said.count("\n") == bool(line) and line in said, said


def wait_for_epochs(folder: Path, epochs: int, runs: list[Run]) -> None:
    while len(log(folder)) < epochs and all(run.poll() is None for run in runs):
        time.sleep(0.01)


def log(folder: Path) -> list[dict]:
    if not (folder / "log.csv").exists():
        return []
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def check_equal(folder: Path, other: Path) -> None:
    """Weights, momentum and dynamics to 1e-5, all that is logged to six digits."""
    for name in ("last.pth", "best.pth"):
        for found, expected in zip(load_state(folder / name), load_state(other / name)):
            assert found.keys() == expected.keys()
            for key in expected.keys() - {"run"}:
                np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(np.load(folder / "dynamics.npy"), np.load(other / "dynamics.npy"), atol=1e-3)
    for found, expected in zip(log(folder), log(other), strict=True):
        for key in LOGGED:
            assert float(found[key]) == pytest.approx(float(expected[key]), rel=1e-5), key


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cifar: Path, forks: Forks) -> dict[str, Path]:
    """The folders of the same run by one rank and, twice, by two."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "two", "again")}
    command = "train.py", "--data", cifar, *OPTIONS
    pairs = [forks.start_ranks(2, folders[name], *command) for name in ("two", "again")]
    check([forks.start(folders["one"], *command)])
    for pair in pairs:
        check(pair)
        assert pair[0].out.startswith("2 ranks, ") and not pair[1].out
    return {name: folder / RUN for name, folder in folders.items()}


def test_two_ranks_train_as_one_does(runs: dict[str, Path]) -> None:
    check_equal(runs["two"], runs["one"])
    assert contents(runs["two"]).keys() == contents(runs["one"]).keys()


def test_one_seed_gives_two_ranks_the_same_bytes(runs: dict[str, Path]) -> None:
    for name in ("best.pth", "last.pth", "dynamics.npy"):
        assert (runs["two"] / name).read_bytes() == (runs["again"] / name).read_bytes(), name


def test_an_epochs_batches_are_shared_out_whole() -> None:
    """Image for image those of one rank, transformed alike; a rank without images has one of no account."""
    data, size = random_data(41, 3), 3
    whole = list(TrainingBatches(data, np.arange(41), 10, 1).epoch(2))
    shares = [list(TrainingBatches(data, np.arange(41), 10, 1, share=(rank, size)).epoch(2))
              for rank in range(size)]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        for rank, part in enumerate(parts):
            if rank < len(batch[0]):
                for expected, found in zip(batch, part):
                    assert np.array_equal(expected[rank::size], found)
            else:
                assert part[0].tolist() == part[2].tolist() == [PADDING] and part[1].shape[0] == 1


@pytest.mark.parametrize("start", [0, 20])
def test_evaluations_batches_are_shared_out_whole(start: int) -> None:
    data, size = random_data(47, 3), 3
    whole = list(EvaluationBatches(data, data.test, 10).starting_at(start))
    shares = [list(EvaluationBatches(data, data.test, 10, share=(rank, size)).starting_at(start))
              for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    found = [batch for row in zip(*shares) for batch in row]
    for expected, batch in zip(whole, found):
        assert all(np.array_equal(*pair) for pair in zip(expected, batch))
    assert all((labels == PADDING).all() for _, _, labels in found[len(whole):])


def test_a_selection_by_two_ranks_is_that_by_one(cifar: Path, forks: Forks, trained: Path,
                                                 tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / name)
    command = "selection.py", "--data", cifar, "--ckpt", "best.pth", "--rate", 0.2, "--method", "grand"
    pair = forks.start_ranks(2, tmp_path / "two", *command)
    check([forks.start(tmp_path / "one", *command)])
    check(pair)
    assert "kept 40 of 200" in pair[0].out
    for folder in (".", "index"):
        assert contents(tmp_path / "two" / folder) == contents(tmp_path / "one" / folder)


@pytest.mark.ranks
def test_an_attack_by_two_ranks_is_that_by_one(cifar: Path, forks: Forks, trained: Path,
                                               tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(cifar, tmp_path / name)
    command = ("robust/attack-cifar.py", "--ckpt", trained / "best.pth", "--attack", "PGD", "--steps", 2,
               "--batch_size", 64)
    pair = forks.start_ranks(2, tmp_path, *command, "--data", "two")
    check([forks.start(tmp_path, *command, "--data", "one")])
    check(pair)
    assert contents(tmp_path / "two/attack") == contents(tmp_path / "one/attack")


# Ends

def test_a_killed_rank_is_named_and_the_run_goes_on(cifar: Path, forks: Forks, runs: dict[str, Path],
                                                    tmp_path: Path) -> None:
    """The first rank is killed where it is about to put the second epoch's checkpoint in its place."""
    command = "train.py", "--data", cifar, *OPTIONS
    stop = {"places": str(tmp_path / "places"), "change": "os.rename .last.pth.tmp", "number": 1}
    pair = finish(forks.start_ranks(2, tmp_path, *command, of={0: {"stop": stop}}))
    assert [run.returncode for run in pair] == [-signal.SIGKILL, 1]
    assert pair[1].err == ("train.py: error: rank 0 of 2 was killed or has crashed; run the command again, "
                           "of train.py with --resume\n")
    pair = forks.start_ranks(2, tmp_path, *command, "--resume")
    check(pair)
    assert "resuming after epoch 1" in pair[0].out
    for name in ("best.pth", "last.pth", "dynamics.npy"):
        assert (tmp_path / RUN / name).read_bytes() == (runs["two"] / name).read_bytes(), name


@pytest.mark.ranks
@pytest.mark.parametrize("rank, number, status, line", [
    (1, signal.SIGKILL, 1, "train.py: error: rank 1 of 2 was killed or has crashed; "),
    (0, signal.SIGINT, 130, f"train.py: stopped; the finished epochs are safe in {RUN}; go on with "),
    (1, signal.SIGINT, 130, f"train.py: stopped; the finished epochs are safe in {RUN}; go on with ")])
def test_a_signal_to_one_rank_ends_all(cifar: Path, forks: Forks, tmp_path: Path, rank: int, number: int,
                                       status: int, line: str) -> None:
    pair = forks.start_ranks(2, tmp_path, "train.py", "--data", cifar, *LONG)
    wait_for_epochs(tmp_path / RUN, 2, pair)
    pair[rank].send_signal(number)
    start = time.monotonic()
    finish(pair)
    assert time.monotonic() - start < 60
    assert pair[rank].returncode == (-number if number == signal.SIGKILL else status)
    assert pair[1 - rank].returncode == status and not pair[1].err
    assert pair[0].err.startswith(line) and pair[0].err.count("\n") == 1
    assert not list((tmp_path / RUN).glob(".*"))


@pytest.mark.ranks
def test_ctrl_c_to_all_ranks_is_one_line(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    pair = forks.start_ranks(2, tmp_path, "train.py", "--data", cifar, *LONG)
    wait_for_epochs(tmp_path / RUN, 2, pair)
    for run in pair:
        run.send_signal(signal.SIGINT)
    check(pair, 130, "train.py: stopped; the finished epochs are safe")


@pytest.mark.ranks
def test_a_run_that_diverges_ends_all_ranks(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    pair = forks.start_ranks(2, tmp_path, "train.py", "--data", cifar, *LONG, "--lr", 1e38)
    check(pair, 1, "learning rate 1e+38; start again with a smaller --lr")


def test_bad_input_is_one_line(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    """Of all ranks, and of one that alone lacks the data."""
    all_lack = forks.start_ranks(2, tmp_path, "train.py", "--data", "nowhere")
    one_lacks = forks.start_ranks(2, tmp_path, "train.py", "--data", cifar, *LONG,
                                  of={1: {"options": ("--data", "elsewhere", *LONG)}})
    check(all_lack, 2, "train.py: error: nowhere/cifar-100-python")
    check(one_lacks, 2, "train.py: error: elsewhere/cifar-100-python")
    assert not one_lacks[1].err


@pytest.mark.ranks
def test_a_folder_in_use_is_refused_by_all_ranks(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    first = forks.start(tmp_path, "train.py", "--data", cifar, *LONG)
    wait_for_epochs(tmp_path / RUN, 1, [first])
    check(forks.start_ranks(2, tmp_path, "train.py", "--data", cifar, *LONG), 2, "another run is writing to")
    first.send_signal(signal.SIGKILL)


def test_a_wrong_option_is_one_line(forks: Forks, tmp_path: Path) -> None:
    """Before the ranks know one another; msrun kills the others once the first has failed."""
    first, second = forks.start_ranks(2, tmp_path, "train.py", "--epoch", 0)
    check([first], 2, "train.py: error: argument --epoch")
    assert second.poll() is None
    second.send_signal(signal.SIGKILL)
    assert not second.finish().err


# With `-m ranks`

@pytest.mark.ranks
def test_three_ranks_train_as_one_does(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    """Seven batches an epoch, the last one of two images."""
    command = "train.py", "--data", cifar, *OPTIONS, "--batch_size", 33
    three = forks.start_ranks(3, tmp_path, *command, "--model_dir", "three")
    check([forks.start(tmp_path, *command, "--model_dir", "one")])
    check(three)
    check_equal(*(tmp_path / name / RUN.relative_to("ckpt") for name in ("three", "one")))


@pytest.mark.ranks
def test_batch_normalization_keeps_the_first_ranks_statistics(cifar: Path, forks: Forks,
                                                              tmp_path: Path) -> None:
    """So that the network that is tested is the one that is saved: its accuracy is that in the log."""
    command = "train.py", "--data", cifar, "--arch", "resnet20", "--image_size", 8, "--batch_size", 100
    check(forks.start_ranks(2, tmp_path, *command, "--epoch", 2))
    run = tmp_path / "ckpt/CIFAR100/resnet20"
    best = max(float(row["test_acc"]) for row in log(run))
    assert accuracy(run / "best.pth", cifar) == pytest.approx(best, abs=1e-3)


def accuracy(checkpoint: Path, cifar: Path) -> float:
    """Of a resnet20 on the test images at 8x8 pixels, in percent."""
    data = open_dataset("CIFAR100", cifar, 8)
    network = load_network("resnet20", checkpoint, len(data.classes), True)
    return train.run_batches(train.make_test_step(network), iter(EvaluationBatches(data, data.test, 50)), 1,
                             "test").accuracy


@pytest.fixture
def under_msrun(cifar: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """train.py by msrun, in a folder of its own."""
    script = tmp_path / "train.py"  # with the small network
    script.write_text(f"import runpy, sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
                      "import utils\nfrom models import NETWORKS\nfrom two_layers import NAME, TwoLayers\n"
                      f"NETWORKS[NAME] = TwoLayers\nrunpy.run_path({str(ROOT / 'train.py')!r}, "
                      "run_name='__main__')\n")
    folder = Path(sys.executable).parent
    command = [folder / "msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", "--log_dir=log",
               "--master_port=8190", script, "--data", cifar, *LONG]
    process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True,
                               env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.ranks
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_msrun_ends_when_a_worker_does(under_msrun: subprocess.Popen, tmp_path: Path, number: int) -> None:
    while len(log(tmp_path / RUN)) < 2:
        assert under_msrun.poll() is None, under_msrun.stdout.read()
        time.sleep(0.1)
    workers = subprocess.run(["pgrep", "-P", str(under_msrun.pid), "-f", "python.*train.py"],
                             capture_output=True, text=True).stdout.split()
    rank = {}
    for pid in workers:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        rank |= {int(text[11:]): int(pid) for text in variables if text.startswith(b"MS_NODE_ID=")
                 and b"MS_ROLE=MS_WORKER" in variables}
    assert rank.keys() == {0, 1}
    os.kill(rank[1], number)
    start = time.monotonic()
    said, _ = under_msrun.communicate()
    assert time.monotonic() - start < 60 and under_msrun.returncode == 1
    expected = {signal.SIGKILL: "rank 1 of 2 was killed", signal.SIGINT: "the finished epochs are safe"}
    assert sum(expected[number] in line for line in said.splitlines()) == 1, said
    assert not any(Path(f"/proc/{pid}").exists() for pid in rank.values())
