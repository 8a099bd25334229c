"""Runs that are killed, interrupted, resumed, out of disk, in one another's way."""
import csv
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, TRAIN
from files import BadInput, BlockFile, load_checkpoint, locked, replacing

TIMES = ("train_seconds", "test_seconds", "images_per_second")
KILLS = 20


def start(folder: Path, script: str, *options: object,
          limits: Callable[[], None] | None = None) -> subprocess.Popen:
    """Start a script in a working folder, with limits set in the new process."""
    return subprocess.Popen([sys.executable, ROOT / script, *map(str, options)], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limits,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})


def finish(process: subprocess.Popen) -> subprocess.Popen:
    """Wait for a process; its output is then in .out and .err."""
    process.out, process.err = process.communicate(timeout=300)
    return process


def log(folder: Path) -> list[dict]:
    """The rows of a run's log.csv without the times; none where there is no log yet."""
    if not (folder / "log.csv").exists():
        return []
    with open(folder / "log.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES}
                for row in csv.DictReader(file)]


def wait_until(happens: Callable[[], bool], process: subprocess.Popen) -> None:
    """Look often, and stop looking when the process has ended."""
    end = time.monotonic() + 240
    while not happens() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.0005)


def check_whole(run: Path) -> None:
    """Every file of a run can be read from its first to its last byte."""
    for path in run.glob("*.pth"):
        assert load_checkpoint(path)
    for row in log(run):
        assert len(row) == 6 and None not in row.values()
    if (run / "args.json").exists():
        json.loads((run / "args.json").read_text())


@pytest.mark.parametrize("coreset, kills", [(False, KILLS), (True, 3)])
def test_killed_and_resumed_is_as_never_stopped(cifar: Path, tmp_path: Path, coreset: bool,
                                                kills: int) -> None:
    options = ["--data", cifar, "--arch", "two-layers", "--batch_size", 64, "--epoch", 5 * kills,
               "--lr", 0.001]
    if coreset:
        (tmp_path / "half.bin").write_bytes(pickle.dumps(np.arange(0, TRAIN, 2)))
        options += ["--prune", "half.bin"]
    place = Path("CIFAR100/two-layers", "coreset-half-100" if coreset else ".")
    never_stopped = finish(start(tmp_path, "tests/small_train.py", *options, "--model_dir", "whole"))
    assert never_stopped.returncode == 0, never_stopped.err
    run = tmp_path / "killed" / place
    moments = random.Random(0)
    writing = {".last.pth.tmp.tmp": 0, ".best.pth.tmp.tmp": 0, ".log.csv.tmp": 0, "any": 0}
    for kill in range(kills):
        process = start(tmp_path, "tests/small_train.py", *options, "--model_dir", "killed", "--resume")
        temporary = list(writing)[kill % len(writing)]
        if kill == 0:  # before the first epoch's end
            wait_until((run / "args.json").exists, process)
        else:
            epochs = len(log(run)) + 1 + moments.randrange(2)
            wait_until(lambda: len(log(run)) >= epochs, process)
            if temporary == "any":
                time.sleep(moments.random() * 0.1)
            else:  # best.pth is not written in every epoch
                wait_until(lambda: (run / temporary).exists() or len(log(run)) > epochs + 1, process)
        process.kill()
        finish(process)
        assert process.returncode == -signal.SIGKILL, process.err
        writing[temporary] += any(run.glob(".*.tmp*"))
        check_whole(run)
    print("killed while writing:", writing)
    if kills == KILLS:
        assert writing[".last.pth.tmp.tmp"] > 0
    resumed = finish(start(tmp_path, "tests/small_train.py", *options, "--model_dir", "killed", "--resume"))
    assert resumed.returncode == 0 and "resuming after epoch" in resumed.out, resumed.err
    expected = tmp_path / "whole" / place
    assert log(run) == log(expected) and len(log(run)) == 5 * kills
    for name in ("best.pth", "last.pth"):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in expected.iterdir())


@pytest.fixture
def finished(cifar: Path, tmp_path: Path) -> tuple[Path, list]:
    """A run of two epochs and its options."""
    options = ["--data", cifar, "--arch", "two-layers", "--batch_size", 64, "--epoch", 2, "--lr", 0.001]
    assert finish(start(tmp_path, "tests/small_train.py", *options)).returncode == 0
    return tmp_path / "ckpt/CIFAR100/two-layers", options


def test_resuming_needs_the_runs_own_options_and_files(finished: tuple[Path, list], tmp_path: Path) -> None:
    run, options = finished
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def resume(*more: object) -> subprocess.Popen:
        return finish(start(tmp_path, "tests/small_train.py", *options, "--resume", *more))

    for more, name in ((("--lr", 0.002), "lr is 0.002, but 0.001"), (("--epoch", 3), "epoch is 3, but 2"),
                       (("--batch_size", 32), "batch_size is 32, but 64"),
                       (("--seed", 1), "seed is 1, but 42")):
        result = resume(*more)
        assert result.returncode == 2 and name in result.err and result.err.count("\n") == 1
        assert before == {path.name: path.read_bytes() for path in run.iterdir()}
    result = resume()
    assert result.returncode == 0 and "resuming after epoch 2" in result.out
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}
    (run / "last.pth").write_bytes(before["best.pth"])  # whole, but without the state
    assert "last.pth: holds no state to resume from" in resume().err
    (run / "last.pth").write_bytes(before["last.pth"])
    (run / "log.csv").write_bytes(before["log.csv"].splitlines(keepends=True)[0])
    assert "log.csv: has no row for each of the 2 epochs" in resume().err
    (run / "log.csv").write_bytes(before["log.csv"])
    (run / "best.pth").unlink()
    assert "best.pth: missing" in resume().err


def test_last_checkpoint_of_a_run_is_one_for_selection(cifar: Path, script, tmp_path: Path) -> None:
    options = ("--data", cifar, "--arch", "resnet20", "--epoch", 1, "--batch_size", 64)
    assert script("train.py", tmp_path, *options).returncode == 0
    result = script("selection.py", tmp_path, "--data", cifar, "--arch", "resnet20", "--rate", 0.5, "--ckpt",
                    "ckpt/CIFAR100/resnet20/last.pth")
    assert result.returncode == 0 and "kept 100 of 200" in result.stdout


def test_ctrl_c_is_one_line_and_the_finished_epochs_are_safe(cifar: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "tests/small_train.py", "--data", cifar, "--arch", "two-layers",
                    "--epoch", 10_000)
    run = tmp_path / "ckpt/CIFAR100/two-layers"
    wait_until(lambda: len(log(run)) >= 3, process)
    process.send_signal(signal.SIGINT)
    finish(process)
    assert process.returncode == 130
    assert process.err == ("small_train.py: stopped; the finished epochs are safe in "
                           "ckpt/CIFAR100/two-layers; go on with --resume\n")
    check_whole(run)
    assert not list(run.glob(".*"))


def test_selection_goes_on_where_it_was(cifar: Path, script, tmp_path: Path) -> None:
    assert script("train.py", tmp_path, "--data", cifar, "--arch", "resnet20", "--epoch", 1).returncode == 0
    options = ("--data", cifar, "--arch", "resnet20", "--ckpt", "ckpt/CIFAR100/resnet20/best.pth",
               "--rate", 0.2)
    assert script("selection.py", tmp_path, *options, "--save", "whole").returncode == 0
    partial = tmp_path / "index/CIFAR100.features.partial"
    process = start(tmp_path, "selection.py", *options)
    wait_until(lambda: partial.exists() and partial.stat().st_size > 20_000, process)
    process.kill()
    assert finish(process).returncode == -signal.SIGKILL, process.err
    assert sorted(path.name for path in partial.parent.iterdir()) == [partial.name]
    with partial.open("ab") as file:
        file.write(b"half a block")
    result = script("selection.py", tmp_path, *options)
    assert result.returncode == 0 and "going on after image" in result.stdout
    for name in ("CIFAR100.bin", "CIFAR100.json", "CIFAR100.distances.npz", "CIFAR100.png"):
        assert (tmp_path / "index" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not partial.exists()


def test_blocks_survive_what_a_kill_leaves(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    arrays = [np.arange(n, dtype=np.float32).reshape(-1, 2) for n in (4, 6, 2)]

    def read(key: str = "key") -> list[list]:
        with BlockFile(path, key) as file:
            return [block.tolist() for block in file.read()]

    with BlockFile(path, "key") as file:
        assert not list(file.read())
        for array in arrays:
            file.append(array)
    whole = path.read_bytes()
    expected = [array.tolist() for array in arrays]
    assert read() == expected
    counts = set()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        blocks = read()
        assert blocks == expected[:len(blocks)]
        counts.add(len(blocks))
        with BlockFile(path, "key") as file:
            list(file.read())
            file.append(arrays[2])
        assert read() == [*blocks, expected[2]]
    assert counts == {0, 1, 2}
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert read() == expected[:2]
    assert read("another key") == [] and read() == []


def test_a_second_run_in_one_folder_stops(cifar: Path, tmp_path: Path) -> None:
    options = ("--data", cifar, "--arch", "two-layers", "--model_dir", "ckpt")
    first = start(tmp_path, "tests/small_train.py", *options, "--epoch", 10_000)
    run = tmp_path / "ckpt/CIFAR100/two-layers"
    wait_until(lambda: len(log(run)) >= 1, first)
    second = finish(start(tmp_path, "tests/small_train.py", *options, "--epoch", 1))
    assert first.poll() is None
    first.kill()
    finish(first)
    assert second.returncode == 2 and "another run is writing to this folder" in second.err
    assert second.err.count("\n") == 1 and not list(run.glob("earlier-*"))
    with locked(run), pytest.raises(BadInput, match="another run"), locked(run):
        pass


def largest_file(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# Of the largest file: args.json is larger, a checkpoint is larger.
@pytest.mark.parametrize("size", [100, 100_000])
def test_a_full_disk_is_one_line_and_leaves_no_temporary_files(finished: tuple[Path, list],
                                                               size: int) -> None:
    run, options = finished
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    process = finish(start(run.parents[2], "tests/small_train.py", *options, limits=largest_file(size)))
    assert process.returncode == 2 and process.err.count("\n") == 1, process.err
    assert "ckpt/CIFAR100/two-layers/" in process.err and "cannot be written: File too large" in process.err
    assert not list(run.rglob(".*"))
    earlier = next(run.glob("earlier-*"))
    assert {path.name: path.read_bytes() for path in earlier.iterdir()} == before


def test_a_full_disk_during_selection(cifar: Path, script, tmp_path: Path) -> None:
    assert script("train.py", tmp_path, "--data", cifar, "--arch", "resnet20", "--epoch", 1).returncode == 0
    options = ("--data", cifar, "--arch", "resnet20", "--ckpt", "ckpt/CIFAR100/resnet20/best.pth",
               "--rate", 0.2)
    process = finish(start(tmp_path, "selection.py", *options, limits=largest_file(20_000)))
    assert process.returncode == 2 and process.err.count("\n") == 1, process.err
    assert "CIFAR100.features.partial: cannot be written: File too large" in process.err
    assert not (tmp_path / "index").exists()


def test_a_full_disk_leaves_the_blocks_of_an_earlier_run(tmp_path: Path) -> None:
    path, array = tmp_path / "x.partial", np.arange(100)
    with BlockFile(path, "key") as file:
        list(file.read())
        file.append(array)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with BlockFile(path, "key") as file:
        assert len(list(file.read())) == 1
        file.append(array)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
        try:
            with pytest.raises(BadInput, match="x.partial: cannot be written"):
                file.append(array)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


def test_no_file_handles_left(cifar: Path, tmp_path: Path) -> None:
    """The limit is set while it trains: with fewer handles from the start, Python itself cannot start."""
    process = start(tmp_path, "tests/small_train.py", "--data", cifar, "--arch", "two-layers",
                    "--epoch", 10_000)
    run = tmp_path / "ckpt/CIFAR100/two-layers"
    wait_until(lambda: len(log(run)) >= 2, process)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (0, 0))
    finish(process)
    check_whole(run)
    assert not list(run.glob(".*"))
    assert process.returncode == 2 and process.err.count("\n") == 1 and "Too many open files" in process.err


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root to mount a small disk")
def test_on_a_small_disk_and_on_a_read_only_one(cifar: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk],
                      capture_output=True).returncode:
        pytest.skip("cannot mount here")
    options = ("--data", cifar, "--arch", "two-layers", "--epoch", 2, "--model_dir", disk)
    try:
        process = finish(start(tmp_path, "tests/small_train.py", *options))
        assert process.returncode == 2 and process.err.count("\n") == 1, process.err
        assert "No space left on device" in process.err and not list(disk.rglob(".*"))
        check_whole(disk / "CIFAR100/two-layers")
        before = sorted(disk.rglob("*"))
        assert subprocess.run(["mount", "-o", "remount,ro", disk]).returncode == 0
        process = finish(start(tmp_path, "tests/small_train.py", *options))
        assert process.returncode == 2 and process.err.count("\n") == 1, process.err
        assert "Read-only file system" in process.err and sorted(disk.rglob("*")) == before
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_replacing_removes_its_file_after_any_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("earlier")
    for error in (KeyboardInterrupt, ValueError, OSError(28, "No space left on device")):
        with pytest.raises((KeyboardInterrupt, ValueError, BadInput)), replacing(path) as temporary:
            temporary.write_text("half")
            raise error
        assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def resident(process: subprocess.Popen) -> int:
    """A process's memory in kB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_memory_does_not_grow_with_the_epochs(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "few.bin").write_bytes(pickle.dumps(np.arange(32, TRAIN)))
    process = start(tmp_path, "train.py", "--data", cifar, "--arch", "resnet20", "--epoch", 10_000,
                    "--prune", "few.bin")
    run = tmp_path / "ckpt/CIFAR100/resnet20/coreset-few-32"
    memory = {}
    for epochs in (5, 30):
        wait_until(lambda: len(log(run)) >= epochs, process)
        memory[epochs] = resident(process)
    process.kill()
    finish(process)
    assert memory[30] < 1.05 * memory[5], memory
