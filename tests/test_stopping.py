"""Runs that are killed, interrupted, resumed, out of disk, in one another's way."""
import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import train
from conftest import SMALL, TRAIN, TRAINED, contents, log, random_data
from datasets import Recipe
from forks import ROOT, Forks, Run
from models.checkpoint import load_checkpoint, save_checkpoint
from two_layers import NAME, WITH_DROPOUT, TwoLayers
from utils.errors import BadInput
from utils.files import replacing
from utils.runs import COLUMNS

RUN, DROPOUT_RUN = Path("CIFAR100", NAME), Path("CIFAR100", WITH_DROPOUT)
LONG = (*SMALL, "--epoch", 10_000)


def wait_until(happens: Callable[[], bool], run: Run) -> None:
    """Look often, and stop looking when the run has ended."""
    while not happens() and run.poll() is None:
        time.sleep(0.001)


def check_whole(folder: Path) -> None:
    """Every file of a run can be read from its first to its last byte."""
    for path in folder.glob("*.pth"):
        assert load_checkpoint(path)
    for row in log(folder):
        assert tuple(row) == COLUMNS and None not in row.values()
    if (folder / "args.json").exists():
        json.loads((folder / "args.json").read_text())
    if (folder / "dynamics.npy").exists() and (folder / "last.pth").exists():
        assert np.load(folder / "dynamics.npy").shape[1:] == (3, TRAIN)


def check_one_line(run: Run, words: str) -> None:
    """A run has ended for bad input, with one line that has these words."""
    assert run.returncode == 2 and run.err.count("\n") == 1 and words in run.err, run.err


# Killed and resumed

# Of the process that is to die: the change of a file at which it does, which one of that kind, and after how
# many bytes of the file if not before the first.
FIRST_EPOCH = [
    *((f"{event} .args.json.tmp", 0, None) for event in ("open", "os.rename")),
    ("open dynamics.npy", 0, None),
    *((f"{event} .log.csv.tmp", 0, None) for event in ("open", "os.rename")),
    ("open .best.pth.tmp.tmp", 0, None), ("open .best.pth.tmp.tmp", 0, 1000),
    *((f"os.rename .best.pth.tmp{suffix}", 0, None) for suffix in (".tmp", ".ckpt", "")),
    ("open .last.pth.tmp.tmp", 0, 1000), ("os.rename .last.pth.tmp", 0, None)]
# Each finishes an epoch and dies in the next one.
LATER_EPOCHS = [
    ("open .log.csv.tmp", 1, None), ("open .log.csv.tmp", 1, 20), ("os.rename .log.csv.tmp", 1, None),
    ("open .last.pth.tmp.tmp", 1, None), ("open .last.pth.tmp.tmp", 1, 10_000),
    *((f"os.rename .last.pth.tmp{suffix}", 1, None) for suffix in (".tmp", ".ckpt", ""))]
DEATHS = [*FIRST_EPOCH, *LATER_EPOCHS]
OF_A_CORESET = [("os.rename .best.pth.tmp", 0, None), ("open .log.csv.tmp", 1, None),
                ("os.rename .last.pth.tmp", 1, None)]


@pytest.mark.parametrize("place, deaths", [
    pytest.param(DROPOUT_RUN, DEATHS, marks=pytest.mark.kills), (RUN, DEATHS[::7]),
    (DROPOUT_RUN / "coreset-half-100", OF_A_CORESET)])
def test_killed_and_resumed_is_as_never_stopped(cifar: Path, forks: Forks, trained: Path, tmp_path: Path,
                                                place: Path, deaths: list) -> None:
    epochs = 3 if place == RUN else len(deaths) + 2
    options = ["--data", cifar, *SMALL, "--arch", place.parts[1], "--epoch", epochs]
    if place.parent == DROPOUT_RUN:
        (tmp_path / "half.bin").write_bytes(pickle.dumps(np.arange(0, TRAIN, 2)))
        options += ["--prune", "half.bin"]
    run, expected = tmp_path / "killed" / place, tmp_path / "whole" / place
    if place == RUN:
        expected = trained
    else:
        never_stopped = forks.start(tmp_path, "train.py", *options, "--model_dir", "whole").finish()
        assert never_stopped.returncode == 0, never_stopped.err
    options += ["--model_dir", "killed", "--resume"]
    for change, number, size in deaths:
        stop = {"change": change, "number": number, "bytes": size}
        killed = forks.start(tmp_path, "train.py", *options, stop=stop).finish()
        assert killed.returncode == (-signal.SIGKILL if size is None else -signal.SIGXFSZ), (stop, killed.err)
        check_whole(run)
        assert all((earlier / "log.csv").exists() for earlier in run.glob("earlier-*"))
    resumed = forks.start(tmp_path, "train.py", *options).finish()
    assert resumed.returncode == 0 and "resuming after epoch" in resumed.out, resumed.err
    assert log(run, times=False) == log(expected, times=False) and len(log(run)) == epochs
    left, right = contents(run), contents(expected)
    assert left.keys() == right.keys()
    for name in left.keys() - {"args.json", "log.csv"}:
        assert left[name] == right[name], name


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """The folder of a finished run in a working folder of its own."""
    return shutil.copytree(trained, tmp_path / "ckpt" / RUN)


def resume(forks: Forks, folder: Path, cifar: Path, *more: object) -> Run:
    return forks.start(folder, "train.py", "--data", cifar, *TRAINED, "--resume", *more).finish()


def test_a_finished_run_is_moved_with_its_data_and_resumed(cifar: Path, forks: Forks, finished: Path,
                                                           tmp_path: Path) -> None:
    """Only the contents of the data and of the run count, not their folders, nor the device."""
    args = finished / "args.json"
    args.write_text(args.read_text().replace('"device": "CPU"', '"device": "Ascend"'))
    before = contents(finished)
    shutil.copytree(cifar, tmp_path / "elsewhere/data")
    shutil.move(tmp_path / "ckpt", tmp_path / "elsewhere/runs")
    run = forks.start(tmp_path / "elsewhere", "train.py", "--data", "data", *TRAINED, "--resume",
                      "--model_dir", "runs").finish()
    assert run.returncode == 0 and "resuming after epoch 3" in run.out
    assert "the run was started with another device: Ascend; numbers may differ" in run.out
    assert contents(tmp_path / "elsewhere/runs" / RUN) == before


@pytest.mark.parametrize("known", ["test_lowest_class_acc,", ""])
def test_a_run_whose_log_has_the_columns_of_an_older_version_is_resumed(cifar: Path, forks: Forks,
                                                                        trained: Path, tmp_path: Path,
                                                                        known: str) -> None:
    """Its column of the worst class had another name; before that there was none."""
    forks.kill(tmp_path, "open .log.csv.tmp", 2, "train.py", "--data", cifar, *TRAINED)
    path, expected = tmp_path / "ckpt" / RUN / "log.csv", log(trained, times=False)
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    worst = COLUMNS.index("test_worst_class_acc")
    older = [",".join(row[:worst] + [row[worst]] * bool(known) + row[worst + 2:]) for row in rows]
    assert header == list(COLUMNS)
    path.write_text("\n".join([",".join(header).replace("test_worst_class_acc,test_worst_tenth_acc,", known),
                               *older]))
    assert resume(forks, tmp_path, cifar).returncode == 0
    for row in expected[:2]:
        row |= {"test_worst_tenth_acc": ""} | ({} if known else {"test_worst_class_acc": ""})
    assert log(path.parent, times=False) == expected and expected[2]["test_worst_tenth_acc"]


def test_a_coreset_run_is_resumed_where_the_same_images_were_selected_anew(cifar: Path, forks: Forks,
                                                                          tmp_path: Path) -> None:
    """Another version or another spelling of a path in the manifest does not matter; other images do."""
    index = tmp_path / "index/CIFAR100-random.bin"

    def train() -> Run:
        return forks.start(tmp_path, "train.py", "--data", cifar, *SMALL, "--epoch", 1, "--prune", index,
                           "--resume").finish()

    assert forks.start(tmp_path, "selection.py", "--data", cifar, "--method", "random", "--rate",
                       0.5).finish().returncode == 0
    assert train().returncode == 0
    manifest = json.loads(index.with_suffix(".json").read_text())
    index.with_suffix(".json").write_text(json.dumps({**manifest, "versions": {"python": "3.99"}}))
    assert "resuming after epoch 1" in train().out
    ids = pickle.loads(index.read_bytes())
    index.write_bytes(pickle.dumps(np.setdiff1d(np.arange(TRAIN), ids)))
    sha256 = hashlib.sha256(index.read_bytes()).hexdigest()
    index.with_suffix(".json").write_text(json.dumps({**manifest, "index_sha256": sha256}))
    check_one_line(train(), "--resume: kept_sha256 is")


def test_a_run_older_than_an_option_that_lacks_its_checkpoint_is_made_again(cifar: Path, forks: Forks,
                                                                           finished: Path, tmp_path: Path
                                                                           ) -> None:
    """As base runs in a clone, whose last.pth is not committed. It is killed where it begins."""
    args = json.loads((finished / "args.json").read_text())
    (finished / "args.json").write_text(json.dumps(
        {name: value for name, value in args.items() if name not in ("amp_level", "damaged")}))
    (finished / "last.pth").unlink()
    said = forks.kill(tmp_path, "open .args.json.tmp", 0, "train.py", "--data", cifar, *TRAINED, "--resume")
    assert f"no finished epoch in ckpt/{RUN}: starting again" in said


def cut_log(run: Path) -> None:
    (run / "log.csv").write_text((run / "log.csv").read_text().splitlines(keepends=True)[0])


@pytest.mark.parametrize("damage, more, why", [
    (None, ("--lr", 0.002), "lr is 0.002, but 0.1"),
    (None, ("--image_size", 16), "image_size is 16, but None"),
    (None, ("--epoch", 4), f"epoch is 4, but 3 in ckpt/{RUN}/args.json, and learning rates change at"),
    (None, ("--dynamics", "False"), "dynamics is False, but True"),
    (lambda run: shutil.copy(run / "best.pth", run / "last.pth"), (), "last.pth: holds no state to resume"),
    (cut_log, (), "log.csv: not the log of the 3 epochs of last.pth"),
    (lambda run: (run / "log.csv").write_text("a,b\n1,2\n"), (), "log.csv: not the log of the 3 epochs"),
    (lambda run: (run / "best.pth").unlink(), (), "best.pth: missing"),
    (lambda run: (run / "dynamics.npy").unlink(), (), "dynamics.npy: missing; start again"),
    (lambda run: (run / "args.json").write_text("{"), (), "args.json: not an object in JSON")])
def test_resuming_needs_the_runs_own_options_and_files(
        cifar: Path, forks: Forks, finished: Path, tmp_path: Path, damage: Callable[[Path], object] | None,
        more: tuple, why: str) -> None:
    if damage:
        damage(finished)
    before = contents(finished)
    check_one_line(resume(forks, tmp_path, cifar, *more), why)
    assert contents(finished) == before


def select(forks: Forks, folder: Path, cifar: Path, *more: object, **settings: object) -> Run:
    return forks.start(folder, "selection.py", "--data", cifar, "--ckpt", "best.pth", "--rate", 0.2,
                       "--method", "grand", *more, **settings).finish()


@pytest.mark.parametrize("change, number, resumed", [
    ("os.rename ..best.features.json.tmp", signal.SIGINT, True),  # the first record of finished rows
    ("os.rename .best.features.npy", signal.SIGKILL, True),
    ("os.rename .best.logits.npy", signal.SIGKILL, False),
    ("os.rename .best.features.json.tmp", signal.SIGKILL, False)])
def test_a_stopped_selection_ends_as_one_that_was_not(cifar: Path, forks: Forks, trained: Path,
                                                      tmp_path: Path, change: str, number: int,
                                                      resumed: bool) -> None:
    """It has 200 images in batches of 64, of which the first is recorded."""
    for name in ("whole", "stopped"):
        shutil.copytree(trained, tmp_path / name)
    assert select(forks, tmp_path / "whole", cifar).returncode == 0
    stop = {"change": change, "signal": number}
    run = select(forks, tmp_path / "stopped", cifar, stop=stop)
    assert run.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        assert run.err == "selection.py: stopped; 64 of 200 images are done; repeat the command to resume\n"
    run = select(forks, tmp_path / "stopped", cifar)
    assert run.returncode == 0 and ("resuming after image" in run.out) == resumed, run.err
    for folder in (".", "index"):
        left = contents(tmp_path / "stopped" / folder)
        assert left == contents(tmp_path / "whole" / folder)
    assert "using the features in best.features.npy" in select(forks, tmp_path / "stopped", cifar).out


# Ctrl-C

def test_a_second_run_in_one_folder_stops_and_after_ctrl_c_the_finished_epochs_are_safe(
        cifar: Path, forks: Forks, tmp_path: Path) -> None:
    folder, command = tmp_path / "ckpt" / RUN, ("train.py", "--data", cifar, *LONG)
    run = forks.start(tmp_path, *command)
    wait_until(lambda: len(log(folder)) >= 3, run)
    second, alive = forks.start(tmp_path, *command).finish(), run.poll() is None
    run.send_signal(signal.SIGINT)
    run.finish()
    check_one_line(second, "another run is writing to this folder")
    assert alive and not list(folder.glob("earlier-*"))
    assert run.returncode == 130
    assert run.err == (f"train.py: stopped; the finished epochs are safe in ckpt/{RUN}; resume with "
                       "--resume\n")
    check_whole(folder)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("save, number, line", [
    (True, 0, "no epoch was finished, so there is nothing to resume"), (False, 1, "nothing was saved")])
def test_ctrl_c_where_there_is_nothing_to_resume(cifar: Path, forks: Forks, tmp_path: Path, save: bool,
                                                 number: int, line: str) -> None:
    """When an epoch's log is written, before its checkpoints are."""
    stop = {"change": "os.rename .log.csv.tmp", "number": number, "signal": signal.SIGINT}
    run = forks.start(tmp_path, "train.py", "--data", cifar, *TRAINED, "--eval_freq", 3, "--save", save,
                      stop=stop).finish()
    assert (run.returncode, run.err) == (130, f"train.py: stopped; {line}\n")


@pytest.mark.parametrize("imported, seconds", [("numpy", 0), ("mindspore", 0), ("", 1), ("", 3)])
def test_ctrl_c_in_the_first_seconds(cifar: Path, tmp_path: Path, imported: str, seconds: float) -> None:
    """Of a real process: while it imports a package, or that long after its first line, when it compiles."""
    with subprocess.Popen([sys.executable, ROOT / "train.py", "--data", cifar, "--image_size", "8"],
                          cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while imported and f"/site-packages/{imported}" not in Path(f"/proc/{run.pid}/maps").read_text():
            time.sleep(0.001)
        assert imported or any("resnet50 on CPU" in line for line in run.stdout)
        time.sleep(seconds)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate()
    assert run.returncode == 130 and "stopped" in said and said.count("\n") == 1, said
    assert not [path for path in tmp_path.iterdir() if path.name != "ckpt"]


def test_ctrl_c_that_is_swallowed_is_repeated(forks: Forks, tmp_path: Path) -> None:
    """MindSpore does that in some steps of a compilation; the run continued."""
    (tmp_path / "x.py").write_text(
        "import contextlib, os, time; from utils.options import run_script\n"
        "def main():\n with contextlib.suppress(KeyboardInterrupt): os.kill(os.getpid(), 2)\n"
        " time.sleep(60)\nrun_script(main)")
    run = forks.start(tmp_path, str(tmp_path / "x.py"))
    assert (run.poll(30), run.err) == (130, "x.py: stopped\n")


def test_output_that_nobody_reads_any_more_is_no_error() -> None:
    """As with `compare.py --dry_run | head -1`."""
    code = "from utils.options import run_script; run_script(lambda: print('x' * 100000))"
    command = f"set -o pipefail; {sys.executable} -c \"{code}\" | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", ["2", "", "0"])
def test_a_closed_standard_stream_is_no_error(cifar: Path, tmp_path: Path, closed: str) -> None:
    """Python has no sys.stderr then, and the next file to be opened would get its number."""
    command = [sys.executable, ROOT / "selection.py", "--data", cifar, "--method", "random", "--rate", "0.2"]
    done = subprocess.run(["bash", "-c", f'"$@" {closed}>&-', "bash", *command], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert len(np.load(tmp_path / "index/CIFAR100-random.kept.npy")) == 40
    assert ("kept 40 of 200" in done.stdout) == (closed != "")


@pytest.mark.parametrize("script, options, words, written", [
    ("train.py", (*SMALL, "--epoch", 4), "epoch 1/4", f"ckpt/{RUN}/log.csv"),
    ("selection.py", ("--method", "random", "--rate", 0.2), "not the official", "index/CIFAR100-random.bin")])
def test_a_run_outlives_its_terminal(cifar: Path, forks: Forks, tmp_path: Path, script: str, options: tuple,
                                     words: str, written: str) -> None:
    """Writing to it fails then, and it sends SIGHUP."""
    run = forks.start(tmp_path, script, "--data", cifar, *options, terminal=words).finish()
    assert run.returncode == 0 and (tmp_path / written).exists()
    assert script == "selection.py" or len(log(tmp_path / "ckpt" / RUN)) == 4


# A run that diverges

def test_divergence_keeps_the_last_good_epoch(tmp_path: Path) -> None:
    """The learning rate of the second of two epochs is 1e37."""
    data = random_data(30, 3)
    recipe = Recipe(epochs=2, milestones=(1,), gamma=1e38, weight_decay=0)
    data = replace(data, source=replace(data.source, recipe=recipe))
    with pytest.raises(FloatingPointError, match="^epoch 2/2: .*, learning rate 1e[+]37; start again with a "
                                                 "smaller --lr"):
        train.train(TwoLayers(3, True), data, np.arange(30), tmp_path,
                    train.parse_options("--epoch 2 --batch_size 10 --lr 0.1".split()))
    assert [row["epoch"] for row in log(tmp_path)] == ["1"]
    first, second = np.load(tmp_path / "dynamics.npy")
    assert np.isfinite(first).all() and np.isnan(second).all()
    for name in ("best.pth", "last.pth"):
        assert all(np.isfinite(value).all() for value in load_checkpoint(tmp_path / name).values())


def test_a_test_loss_that_is_not_finite_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a part of the test images counts as the best accuracy."""
    for name, loss in (("make_train_step", 1), ("make_test_step", np.nan)):
        monkeypatch.setattr(train, name, lambda *_, loss=loss: lambda images, labels: (
            ms.Tensor(loss, ms.float32), labels.sum(), labels))
    with pytest.raises(FloatingPointError, match="^epoch 1/2: the test loss is not a finite number"):
        train.train(TwoLayers(3, True), random_data(30, 3), np.arange(30), tmp_path,
                    train.parse_options("--epoch 2 --batch_size 10 --lr 0.1".split()))
    assert not any((tmp_path / name).exists() for name in ("best.pth", "last.pth", "log.csv"))


@pytest.mark.parametrize("size, steps", [(1, 1), (2, 5)])
def test_several_ranks_go_through_the_pass_in_which_they_diverge(monkeypatch: pytest.MonkeyPatch, size: int,
                                                                 steps: int) -> None:
    """One that left it alone would leave the others waiting for its gradients."""
    monkeypatch.setattr(train.distributed, "size", lambda: size)
    monkeypatch.setattr(train.Metrics, "over_ranks", lambda self: None)
    done = []

    def step(images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        done.append(len(labels))
        return ms.Tensor(np.nan, ms.float32), ms.Tensor(0)

    batches = ((np.arange(2), np.zeros((2, 3, 4, 4), np.float32), np.zeros(2, np.int32)) for _ in range(5))
    assert train.run_batches(step, batches, 5, "epoch 1/1").diverged_at == 1 and len(done) == steps


# Full and read-only disks, memory, file handles

# No room for args.json (800 bytes), three epochs' dynamics (3,700), a checkpoint (5,400), another (16,500).
@pytest.mark.parametrize("size, name", [(100, "args.json"), (1_000, "dynamics.npy"), (5_000, "best.pth"),
                                        (10_000, "last.pth")])
def test_a_full_disk_is_one_line_and_leaves_no_temporary_files(cifar: Path, forks: Forks, finished: Path,
                                                               tmp_path: Path, size: int, name: str) -> None:
    before = contents(finished)
    run = forks.start(tmp_path, "train.py", "--data", cifar, *TRAINED, limits={"RLIMIT_FSIZE": size}).finish()
    check_one_line(run, f"ckpt/{RUN}/{name}: cannot be written: File too large")
    assert not list(finished.rglob(".*"))
    assert contents(next(finished.glob("earlier-*"))) == before


def test_a_full_disk_during_selection(cifar: Path, forks: Forks, trained: Path, tmp_path: Path) -> None:
    run_folder = shutil.copytree(trained, tmp_path / "run")
    before = contents(run_folder)
    run = forks.start(tmp_path, "selection.py", "--data", cifar, "--ckpt", "run/best.pth",
                      limits={"RLIMIT_FSIZE": 7_000}).finish()
    # There is no room beside the index either.
    check_one_line(run, "index/.CIFAR100.features.npy: cannot be written: File too large")
    assert contents(run_folder) == before and not (tmp_path / "index").exists()


def test_memory_does_not_grow_with_the_epochs_and_without_file_handles_it_stops(
        cifar: Path, forks: Forks, tmp_path: Path) -> None:
    """The limit is set while it trains: with fewer handles from the start, Python itself cannot start."""
    run = forks.start(tmp_path, "train.py", "--data", cifar, *LONG)
    folder = tmp_path / "ckpt" / RUN
    memory = []  # resident, in kB
    for epochs in (20, 80):
        wait_until(lambda epochs=epochs: len(log(folder)) >= epochs, run)
        words = Path(f"/proc/{run.pid}/status").read_text().split()
        memory.append(int(words[words.index("VmRSS:") + 1]))
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (0, 0))
    run.finish()
    check_one_line(run, "Too many open files")
    check_whole(folder)
    assert not list(folder.glob(".*"))
    assert memory[1] < 1.02 * memory[0], memory


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own: 14 pages, as many as an epoch's files and a temporary one take."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs root to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=56k", "tmpfs", folder],
                      capture_output=True).returncode:
        pytest.skip("cannot mount here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_on_a_small_disk(cifar: Path, forks: Forks, disk: Path, tmp_path: Path) -> None:
    """It is too small for the dynamics of so many epochs, and full without them when the log has grown."""
    for more, name in ((), "dynamics.npy"), (("--dynamics", "False"), ""):
        run = forks.start(tmp_path, "train.py", "--data", cifar, *LONG, "--model_dir", disk, *more).finish()
        check_one_line(run, f"{name}: cannot be written: No space left on device")
        assert not list(disk.rglob(".*"))
        check_whole(disk / RUN)


def test_on_a_read_only_disk(cifar: Path, forks: Forks, disk: Path, tmp_path: Path) -> None:
    assert subprocess.run(["mount", "-o", "remount,ro", disk]).returncode == 0
    run = forks.start(tmp_path, "train.py", "--data", cifar, *SMALL, "--model_dir", disk).finish()
    check_one_line(run, "Read-only file system")
    assert not list(disk.iterdir())


def test_features_of_a_checkpoint_on_a_read_only_disk(cifar: Path, forks: Forks, trained: Path, disk: Path,
                                                      tmp_path: Path) -> None:
    """They are kept beside the index, for every later selection."""
    run_folder = shutil.copytree(trained, disk / "run")
    assert subprocess.run(["mount", "-o", "remount,ro", disk]).returncode == 0
    for said in (False, True):
        run = forks.start(tmp_path, "selection.py", "--data", cifar, "--ckpt", run_folder / "best.pth",
                          "--rate", 0.2).finish()
        assert run.returncode == 0, run.err
        assert ("using the features in index/CIFAR100.features.npy" in run.out) == said


@pytest.mark.parametrize("umask, mode", [(0o077, 0o600), (0o002, 0o664)])
def test_checkpoints_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_checkpoint(TwoLayers(3, True), tmp_path / "best.pth")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "best.pth").stat().st_mode) == mode


def test_a_file_that_cannot_be_synced_to_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                          ) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "x").write_text("earlier")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BadInput, match="x: cannot be written"), replacing(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").read_text() == "earlier" and list(tmp_path.iterdir()) == [tmp_path / "x"]
