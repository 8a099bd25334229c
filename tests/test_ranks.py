"""Several ranks on a CPU: the same results as one, one line at their ends, msrun ends all when one fails.

The ranks are forks, started with the variables that msrun gives; under msrun itself, with three of them and
with batch normalization: `bash tests/run.sh -m ranks`.
"""
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import TRAIN, contents, log, random_data
from datasets.pipeline import PADDING, evaluation_batches, training_batches
from forks import ROOT, Forks, Run
from models.checkpoint import load_state
from two_layers import NAME, WITH_DROPOUT
from utils.files import locked

RUN = Path("ckpt/CIFAR100", NAME)
# Two batches an epoch, six steps: the second has one image, so that the second rank has none of it.
OPTIONS = ("--arch", NAME, "--batch_size", TRAIN - 1, "--epoch", 3, "--lr", 0.01)
LONG = ("--arch", NAME, "--batch_size", 100, "--epoch", 10_000)
LOGGED = ("train_loss", "train_acc", "test_loss", "test_acc", "test_worst_class_acc",
          "test_worst_tenth_acc")


def check(runs: list[Run]) -> None:
    """All end well and say nothing on standard error."""
    assert [(run.finish().returncode, run.err) for run in runs] == [(0, "")] * len(runs)


def check_equal(folder: Path, other: Path) -> None:
    """Weights, momentum and dynamics to 1e-5, all that is logged to six digits."""
    for name in ("last.pth", "best.pth"):
        for found, expected in zip(load_state(folder / name), load_state(other / name), strict=True):
            assert found.keys() == expected.keys()
            for key in expected:
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


def test_two_ranks_train_as_one_does_with_the_same_bytes_each_time(runs: dict[str, Path]) -> None:
    check_equal(runs["two"], runs["one"])
    assert contents(runs["two"]).keys() == contents(runs["one"]).keys()
    for name in ("best.pth", "last.pth", "dynamics.npy"):
        assert (runs["two"] / name).read_bytes() == (runs["again"] / name).read_bytes(), name


def test_an_epochs_batches_are_shared_out_whole() -> None:
    """Image for image those of one rank, transformed alike; a rank without images has one of no account."""
    data, size = random_data(41, 3), 3
    whole = list(training_batches(data, np.arange(41), 10, 1, epoch=2))
    shares = [list(training_batches(data, np.arange(41), 10, 1, shard=(rank, size), epoch=2))
              for rank in range(size)]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        for rank, part in enumerate(parts):
            if rank < len(batch[0]):
                for expected, found in zip(batch, part, strict=True):
                    assert np.array_equal(expected[rank::size], found)
            else:
                assert part[0].tolist() == part[2].tolist() == [PADDING] and part[1].shape[0] == 1


@pytest.mark.parametrize("start", [0, 20])
def test_evaluations_batches_are_shared_out_whole(start: int) -> None:
    data, size = random_data(47, 3), 3
    whole = list(evaluation_batches(data, data.test, 10, start=start))
    shares = [list(evaluation_batches(data, data.test, 10, shard=(rank, size), start=start))
              for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    found = [batch for row in zip(*shares, strict=True) for batch in row]
    assert len(found) >= len(whole)
    for expected, batch in zip(whole, found, strict=False):
        assert all(np.array_equal(*pair) for pair in zip(expected, batch, strict=True))
    assert all((labels == PADDING).all() for _, _, labels in found[len(whole):])


def test_a_selection_by_two_ranks_is_that_by_one(cifar: Path, forks: Forks, trained: Path,
                                                 tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / name)
    command = ("selection.py", "--data", cifar, "--ckpt", "best.pth", "--rate", 0.2, "--method", "grand",
               "--per_class")
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


@pytest.mark.parametrize("options, status, line", [
    (("--data", "nowhere"), 2, "train.py: error: nowhere/cifar-100-python"),
    (("--epoch", 0), 2, "train.py: error: argument --epoch"),
    (("--lr", 1e38, "--batch_size", 100), 1, "learning rate 1e+38; start again with a smaller --lr"),
    pytest.param(("--model_dir", "used"), 2, "another run is writing to", marks=pytest.mark.ranks)])
def test_an_error_of_all_ranks_is_one_line_of_the_first(cifar: Path, forks: Forks, tmp_path: Path,
                                                        options: tuple, status: int, line: str) -> None:
    """The others would say it later, or wait for a message that the first did not send; msrun ends them."""
    with locked(tmp_path / "used/CIFAR100" / NAME):
        first, second = forks.start_ranks(2, tmp_path, "train.py", "--data", cifar, *OPTIONS, *options)
        first.finish()
    assert first.returncode == status and first.err.count("\n") == 1 and line in first.err
    assert second.poll() is None
    second.send_signal(signal.SIGKILL)
    assert not second.finish().err


# With `-m ranks`

@pytest.mark.ranks
def test_a_killed_run_is_resumed_also_with_dropout(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    """The first rank is killed where it is about to put the second epoch's checkpoint in its place."""
    command = "train.py", "--data", cifar, *OPTIONS, "--arch", WITH_DROPOUT
    check(forks.start_ranks(2, tmp_path, *command, "--model_dir", "whole"))
    stop = {"change": "os.rename .last.pth.tmp", "number": 1}
    first, second = forks.start_ranks(2, tmp_path, *command, "--model_dir", "stopped", of={0: {"stop": stop}})
    assert first.finish().returncode == -signal.SIGKILL
    second.send_signal(signal.SIGKILL)  # as msrun does
    pair = forks.start_ranks(2, tmp_path, *command, "--model_dir", "stopped", "--resume")
    check(pair)
    assert "resuming after epoch 1" in pair[0].out
    for name in ("best.pth", "last.pth", "dynamics.npy"):
        whole, stopped = (tmp_path / part / "CIFAR100" / WITH_DROPOUT / name for part in ("whole", "stopped"))
        assert whole.read_bytes() == stopped.read_bytes(), name


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
    tested = forks.start(tmp_path, "models/evaluate.py", "--ckpt", run / "best.pth", "--data", cifar).finish()
    assert f"test accuracy {best:.2f} %" in tested.out, tested.err


@pytest.fixture
def under_msrun(cifar: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """under_msrun("--lr", 1): train.py by msrun, in a folder of its own."""
    script = tmp_path / "train.py"  # with the small networks; a second rank that is told so lacks the data
    script.write_text(f"import os, runpy, sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
                      "if '--second-lacks' in sys.argv:\n"
                      "    sys.argv.remove('--second-lacks')\n"
                      "    sys.argv += ['--data', 'nowhere'] * (os.environ.get('RANK_ID') == '1')\n"
                      "import utils\nfrom models import NETWORKS\nimport two_layers\n"
                      f"NETWORKS.update(two_layers.NETWORKS)\nrunpy.run_path({str(ROOT / 'train.py')!r}, "
                      "run_name='__main__')\n")
    folder = Path(sys.executable).parent
    started = []

    def start(*options: object) -> subprocess.Popen:
        command = [folder / "msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", "--log_dir=log",
                   "--master_port=8190", script, "--data", cifar, *LONG, *options]
        started.append(subprocess.Popen(list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True,
                                        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def worker(process: subprocess.Popen, rank: int) -> int:
    """The process id of a rank."""
    workers = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "python.*train.py"], capture_output=True,
                             text=True).stdout.split()
    [pid] = [int(pid) for pid in workers
             if {b"MS_ROLE=MS_WORKER", b"MS_NODE_ID=%d" % rank} <= set(
                 Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))]
    return pid


@pytest.mark.ranks
@pytest.mark.parametrize("number, line", [(signal.SIGKILL, "Error code: -9"),
                                          (signal.SIGINT, "the finished epochs are safe")])
def test_msrun_ends_when_a_worker_does(under_msrun: Callable, tmp_path: Path, number: int, line: str) -> None:
    process = under_msrun()
    while len(log(tmp_path / RUN)) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    first, second = worker(process, 0), worker(process, 1)
    os.kill(second, number)
    start = time.monotonic()
    said, _ = process.communicate()
    assert time.monotonic() - start < 60 and process.returncode == 1
    assert sum(line in words for words in said.splitlines()) == 1, said
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.ranks
def test_msrun_shows_the_line_of_a_rank_that_fails_alone(under_msrun: Callable) -> None:
    process = under_msrun("--second-lacks")
    said, _ = process.communicate()
    assert process.returncode == 1
    assert said.count("train.py: error: nowhere/cifar-100-python/train: missing") == 1


@pytest.mark.ranks
def test_two_workers_train_in_mixed_precision(under_msrun: Callable, cifar: Path, forks: Forks,
                                              tmp_path: Path) -> None:
    """The losses are those of one, to a thousandth."""
    mixed = *OPTIONS, "--amp_level", "O2"
    process = under_msrun(*mixed)
    said, _ = process.communicate()
    assert process.returncode == 0 and "0 steps skipped so far" in said, said
    check([forks.start(tmp_path, "train.py", "--data", cifar, *mixed, "--model_dir", "one")])
    for found, expected in zip(log(tmp_path / RUN), log(tmp_path / "one/CIFAR100" / NAME), strict=True):
        assert float(found["train_loss"]) == pytest.approx(float(expected["train_loss"]), rel=1e-3)
