"""The documented commands on a small set in the official layout, each script in a Python of its own."""
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

import selection
import train
from conftest import CLASSES, SMALL, TEST, TRAIN, TRAINED, check_one_line, contents, log, names
from forks import ROOT, Forks
from models.checkpoint import load_checkpoint, save_checkpoint
from two_layers import NAME, TwoLayers
from utils.runs import COLUMNS

BASE = Path("ckpt/CIFAR100/resnet6")
OPTIONS = ("--dataset", "CIFAR100", "--data", "data", "--arch", "resnet6", "--epoch", "2", "--batch_size",
           "100")
COMMANDS = (("train.py", *OPTIONS),
            ("selection.py", "--dataset", "CIFAR100", "--ckpt", f"{BASE}/best.pth", "--rate", "0.2"),
            ("train.py", *OPTIONS, "--prune", "index/CIFAR100.bin"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, cifar: Path, script) -> Path:
    """A folder in which the three commands have run."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "data").symlink_to(cifar)
    for name, *options in COMMANDS:
        if "--prune" in options:
            result = script(name, folder, *options)
        else:
            result = subprocess.run([sys.executable, ROOT / name, *options], cwd=folder, capture_output=True,
                                    text=True)
        assert result.returncode == 0 and not result.stderr, result.stderr
        (folder / "output.txt").open("a").write(result.stdout)
    return folder


def test_the_base_run_writes_these_files_and_the_coreset_run_leaves_them_alone(work: Path) -> None:
    run = {"args.json", "best.pth", "last.pth", "log.csv"}
    kept = {"best.features.npy", "best.features.json", "best.logits.npy"}
    assert names(work / BASE) == {*run, *kept, "dynamics.npy", "coreset-moderate-0.2"}
    assert names(work / BASE / "coreset-moderate-0.2") == run
    assert not [path for path in work.rglob("*") if path.name.startswith(".") or ".tmp" in path.name]


def test_the_log_has_a_row_per_epoch_and_args_json_the_options(work: Path) -> None:
    rows = log(work / BASE)
    assert tuple(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2"] and [row["lr"] for row in rows] == ["0.1", "0.02"]
    args = json.loads((work / BASE / "args.json").read_text())
    assert args["arch"] == "resnet6" and args["seed"] == 42
    assert args["versions"]["mindspore"] == ms.__version__


def test_mindspore_reads_a_checkpoint_under_its_own_suffix(work: Path) -> None:
    shutil.copy(work / BASE / "best.pth", work / "best.ckpt")
    theirs, ours = ms.load_checkpoint(str(work / "best.ckpt")), load_checkpoint(work / BASE / "best.pth")
    assert {name for name in theirs if not name.startswith("resume.")} == ours.keys()
    assert (theirs["classifier.bias"].asnumpy() == ours["classifier.bias"]).all()


def test_output_is_plain_lines(work: Path) -> None:
    text = (work / "output.txt").read_text()
    assert f"CIFAR100: {TRAIN} of {TRAIN} training images, {TEST} test images, {CLASSES} classes" in text
    assert f"kept 40 of {TRAIN} images" in text and f"CIFAR100: 40 of {TRAIN} training images" in text
    assert "\r" not in text


def test_the_index_drops_what_is_not_in_the_middle_and_has_manifest_and_picture(work: Path) -> None:
    drop = pickle.loads((work / "index/CIFAR100.bin").read_bytes())
    scores = np.load(work / "index/CIFAR100.scores.npy")
    kept = np.delete(scores, drop)
    assert drop.dtype == np.int64 and len(kept) == 40
    assert (np.sort(scores)[80:120] == np.sort(kept)).all()
    manifest = json.loads((work / "index/CIFAR100.json").read_text())
    expected = {"dataset": "CIFAR100", "method": "moderate", "rate": 0.2, "center": "median", "images": TRAIN,
                "kept": 40, "dropped": 160, "arch": "resnet6", "image_size": 32,
                "checkpoint": f"{BASE}/best.pth"}
    assert {name: manifest[name] for name in expected} == expected
    picture = Image.open(work / "index/CIFAR100.png")
    assert picture.size[0] > 600 and len(picture.getcolors(10 ** 6)) > 100


def test_evaluation_of_a_run_agrees_with_its_log(work: Path, script) -> None:
    """Data set, network and classes are found in args.json; --data is the only option."""
    result = script("models/evaluate.py", work, "--ckpt", BASE / "best.pth")
    best = max(log(work / BASE), key=lambda row: float(row["test_acc"]))  # the first of equal ones
    figures = [f"{float(best[name]):.2f} %" for name in ("test_acc", "test_worst_class_acc",
                                                         "test_worst_tenth_acc")]
    assert re.findall(r"[\d.]+ %", result.stdout) == figures, result.stderr


def test_evaluation_of_a_checkpoint_without_its_run(cifar: Path, script, tmp_path: Path) -> None:
    """Of a network that takes every image for one of class 2, of which there are 10, as of each."""
    network = TwoLayers(CLASSES, True)
    network.classifier.bias.set_data(ms.Tensor([0, 0, 1e6, 0, 0], ms.float32))
    save_checkpoint(network, tmp_path / "new.pth")
    options = "models/evaluate.py", tmp_path, "--ckpt", "new.pth", "--data", cifar
    check_one_line(script(*options, "--arch", NAME), "--dataset and --arch: not in args.json beside new.pth")
    result = script(*options, "--arch", NAME, "--dataset", "CIFAR100")
    assert result.returncode == 0 and result.stdout.splitlines()[1:] == [  # the first is of the data set
        "CIFAR100: test accuracy 20.00 %, of the worst class (class 0) 0.00 %, mean of the worst tenth of "
        "the classes 0.00 %; most confused:",
        "10 class 0 as class 2, 0 class 2 as class 0", "10 class 1 as class 2, 0 class 2 as class 1",
        "0 class 2 as class 3, 10 class 3 as class 2", "0 class 2 as class 4, 10 class 4 as class 2"]


# The same commands again

def test_the_files_of_an_earlier_run_are_moved_and_options_are_obeyed(cifar: Path, trained: Path, script,
                                                                      tmp_path: Path) -> None:
    """Images are smaller, no checkpoint is written, and every second epoch is tested."""
    run = shutil.copytree(trained, tmp_path / "ckpt/CIFAR100" / NAME)
    result = script("train.py", tmp_path, "--data", cifar, *TRAINED, "--save", False, "--image_size", 8,
                    "--eval_freq", 2)
    assert result.returncode == 0, result.stderr
    dated = tmp_path / re.search("moved the files of an earlier run to (.*)", result.stdout)[1]
    assert contents(dated) == contents(trained)
    assert names(run) == {"args.json", "dynamics.npy", "log.csv", dated.name}
    assert json.loads((run / "args.json").read_text())["image_size"] == 8
    assert [row["test_acc"] == "" for row in log(run)] == [True, False, False]


def test_a_pretrained_network_is_ahead_in_the_first_epoch(script, tmp_path: Path) -> None:
    """All layers are taken; for another number of classes all but the classifier, which args.json knows."""
    def run(folder: str, *options: object) -> tuple[str, Path]:
        result = script("train.py", tmp_path, "--dataset", "toy", *SMALL, "--model_dir", folder, *options)
        assert result.returncode == 0 and not result.stderr, result.stderr
        return result.stdout, tmp_path / folder / "toy" / NAME

    _, base = run("base", "--epoch", 4)
    pretrained = "--pretrained", base / "best.pth"
    _, new = run("new", "--epoch", 1)
    said, ahead = run("ahead", "--epoch", 1, *pretrained)
    assert f"{base}/best.pth: took the weights of hidden, classifier\n" in said
    for accuracy in ("train_acc", "test_acc"):
        assert float(log(ahead)[0][accuracy]) > float(log(new)[0][accuracy]) + 5
    said, five = run("five", "--epoch", 1, "--lr", 1e-30, "--classes", 5, *pretrained)  # the weights stay
    assert "took the weights of hidden; the classifier is new\n" in said
    before, after = load_checkpoint(base / "best.pth"), load_checkpoint(five / "last.pth")
    assert (before["hidden.0.weight"] == after["hidden.0.weight"]).all()
    assert after["classifier.weight"].shape[0] == 5
    args = json.loads((five / "args.json").read_text())
    assert args["pretrained_sha256"] == hashlib.sha256((base / "best.pth").read_bytes()).hexdigest()
    result = script("train.py", tmp_path, "--dataset", "toy", *SMALL, "--model_dir", "new", "--epoch", 1,
                    *pretrained, "--resume")
    check_one_line(result, "--resume: pretrained_sha256 is", "but None in new/toy")


def test_boolean_options_by_themselves_mean_true() -> None:
    args = train.parse_options(["--save", "--skip_damaged", "--dynamics", "false"])
    assert (args.save, args.skip_damaged, args.dynamics) == (True, True, False)
    method = ["--method", "random", "--rate", "0.5"]
    given = [selection.parse_options([*method, *more]).selection.per_class
             for more in ([], ["--per_class"], ["--per_class", "False"])]
    assert given == [False, True, False]


def test_a_run_that_diverges_stops(cifar: Path, script, tmp_path: Path) -> None:
    result = script("train.py", tmp_path, "--data", cifar, *SMALL, "--epoch", 2, "--lr", 1e38)
    check_one_line(result, "train.py: error: epoch ", "/2: ",
                   ", learning rate 1e+38; start again with a smaller --lr", status=1)


def test_a_name_that_the_terminal_cannot_show_is_no_error(script, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import sys; sys.stdout.reconfigure(encoding='ascii')\n"
                                   "from utils import options; options.run_script(lambda: print('\\u732b'))")
    result = script(str(tmp_path / "x.py"), tmp_path)
    assert result.returncode == 0 and result.stdout == "\\u732b\n", result.stderr


@pytest.mark.parametrize("present", [(), ("numpy", "numpy.libs", "PIL", "pillow.libs", "tqdm")])
@pytest.mark.parametrize("command", ["train.py", "compare.py", "robust/attack-tiny.py"])
def test_before_installation_one_line_says_what_to_install(tmp_path: Path, present: tuple[str, ...],
                                                           command: str) -> None:
    """Without any package, and without MindSpore alone."""
    for name in present:
        source = Path(np.__file__).parents[1] / name
        if source.exists():
            (tmp_path / name).symlink_to(source)
    result = subprocess.run([sys.executable, "-S", *command.split()], cwd=ROOT, capture_output=True,
                            text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    check_one_line(result, f"No module named '{'mindspore' if present else 'numpy'}'; ",
                   "pip install -r requirements.txt\n")


def test_imports_leave_ctrl_c_alone_outside_the_scripts() -> None:
    code = "import signal, utils; assert signal.getsignal(2) is signal.default_int_handler"
    for arguments in (("-c", code), ()):  # the second as typed at Python's prompt
        subprocess.run([sys.executable, *arguments], input=code, cwd=ROOT / "docs", text=True, check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT)})


# Setting up

def fake_python(path: Path, version: str = "(3, 11)") -> None:
    """A Python that says what it is asked to do; a virtual environment of it is a copy of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""#!{sys.executable}
import os, shutil, sys
arguments = sys.argv[1:]
if arguments[0] == "-c":
    sys.version_info = {version}
    exec(arguments[1])
elif arguments[1] == "venv":
    folder = arguments[-1]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder + "/bin")
    shutil.copy(__file__, folder + "/bin/python")
elif arguments[2] == "install":
    print("pip with PYTHONPATH", repr(os.environ["PYTHONPATH"]))
""")
    path.chmod(0o755)


@pytest.fixture
def set_up(tmp_path: Path) -> Callable[[], subprocess.CompletedProcess]:
    """set_up(): utils/environment.sh in a project of its own, as demo.sh has it."""
    (tmp_path / "project/utils").mkdir(parents=True)
    shutil.copy(ROOT / "utils/environment.sh", tmp_path / "project/utils")
    (tmp_path / "project/requirements.txt").write_text("numpy\n")
    fake_python(tmp_path / "bin/python3.11")
    (tmp_path / "elsewhere/utils").mkdir(parents=True)
    surroundings = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PYTHONPATH": "/usr",
                    "CDPATH": f"{tmp_path}/elsewhere"}
    command = "source utils/environment.sh; environment requirements.txt; echo $PYTHON"
    return lambda: subprocess.run(["bash", "-euc", command], cwd=tmp_path / "project", env=surroundings,
                                  capture_output=True, text=True)


def test_an_environment_is_made_once_and_anew_where_its_python_is_gone(set_up: Callable, tmp_path: Path
                                                                       ) -> None:
    python = tmp_path / "project/.venv/bin/python"
    first, second = set_up(), set_up()
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    third = set_up()
    assert first.returncode == second.returncode == third.returncode == 0, (first, second, third)
    assert "pip with PYTHONPATH ''" in first.stdout and first.stdout.endswith(f"{python}\n")
    assert second.stdout == f"{python}\n" and "pip with" in third.stdout and python.is_file()


def test_an_environment_of_another_python_is_left_alone(set_up: Callable, tmp_path: Path) -> None:
    fake_python(tmp_path / "project/.venv/bin/python", version="(3, 13)")
    result = set_up()
    check_one_line(result, "move it away\n")


# The demo

def test_the_demo_ends_with_its_table(forks: Forks, tmp_path: Path) -> None:
    """demo.sh as it is, but for fewer epochs, a small network, and scripts that run as forks."""
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils/environment.sh").write_text(f"environment() {{ PYTHON={tmp_path}/python; }}\n")
    (tmp_path / "python").write_text(f"""#!{sys.executable}
import json, os, socket, sys
script, *options = sys.argv[1:]
if script == "-":
    sys.argv.pop(0)
    exec(sys.stdin.read())
    sys.exit()
connection = socket.socket(socket.AF_UNIX)
connection.connect({forks.address!r})
request = dict(command=["{ROOT}/" + script, *options], folder=os.getcwd(), limits={{}}, stop=None,
               options_only=False, environment={{}})
connection.sendall(json.dumps(request).encode() + b"\\n")
status, out, err = json.loads(connection.makefile().readlines()[1])
sys.stdout.write(out)
sys.exit(err or status)
""")
    (tmp_path / "python").chmod(0o755)
    demo = (ROOT / "demo.sh").read_text()
    for before, after in (("--epoch 20", "--epoch 3"), ("--epoch 120", "--epoch 8"), ("_freq 40", "_freq 4"),
                          ("_freq 10", "_freq 3"), ("--batch_size 32", "--batch_size 50"),
                          ("--arch resnet6", f"--arch {NAME}"), ("toy/resnet6", f"toy/{NAME}")):
        assert before in demo
        demo = demo.replace(before, after)
    (tmp_path / "demo.sh").write_text(demo)
    result = subprocess.run(["bash", "demo.sh", "x"], cwd=tmp_path, capture_output=True, text=True)
    check_one_line(result, "demo.sh: error: seed x")
    result = subprocess.run(["bash", "demo.sh", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "demo/ckpt/toy" / NAME
    for name, counts in (("whole set", "3000 19.8 3 180"), ("random", "600 18.2 8 96"),
                         ("moderate", "600 [0-9.]+ 8 96"), ("aum", "600 [0-9.]+ 8 96")):
        rows = log(run if name == "whole set" else next(run.glob(f"coreset-{name}-0.2*")))
        seconds = sum(float(row["train_seconds"]) for row in rows)
        line = f"\\n{name} {counts} {float(rows[-1]['test_acc']):.2f} {seconds:.1f}\\n"
        assert re.search(line.replace(" ", " +"), result.stdout), result.stdout
    picture = "demo/index/moderate/toy.png"
    assert (tmp_path / picture).exists() and picture in result.stdout
