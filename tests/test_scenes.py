"""robust/'s scripts through a shell, in their own project, and the data sets that read what they write."""
import json
import os
import pickle
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mindspore import nn
from PIL import Image

import runtime
from conftest import CLASSES, ROOT, TINY_TRAIN, TINY_WNIDS, TRAIN, write_cifar, write_tiny
from datasets import SCENES, open_dataset
from files import BadInput, save_checkpoint
from models import NETWORKS
from models.layers import classifier
from robust import attacks, in_place, results

TINY_IMAGES = TINY_TRAIN * len(TINY_WNIDS)
ATTACK = ("--arch", "linear", "--batch_size", 32)
COMMANDS = (("corrupt-cifar.py",), ("noisy-cifar.py",), ("attack-cifar.py", *ATTACK), ("noisy-tiny.py",),
            ("corrupt-tiny.py",), ("attack-tiny.py", *ATTACK, "--attack", "GSA"))
PLACES = {"inside": "robust", "outside": "."}  # working folder of each project
FOLDER = {"CIFAR100C": "data", "CIFAR100A": "data", "CIFAR100N": "data",
          "tinyC": "data/tiny-imagenet-200-corrupt", "tinyA": "data/tiny-imagenet-200",
          "tinyN": "data/tiny-imagenet-200"}
LINEAR = '''

class Linear(ms.nn.Cell):
    def __init__(self, num_classes, small_images):
        super().__init__()
        self.flatten = ms.nn.Flatten()
        self.classifier = ms.nn.Dense(3072 if small_images else 12288, num_classes)

    def features(self, x):
        return self.flatten(x)

    def construct(self, x):
        return self.classifier(self.features(x))


NETWORKS["linear"] = Linear
'''


class Linear(nn.Cell):
    """The parameters of the network that `LINEAR` adds to a project's own."""

    def __init__(self, pixels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = classifier(pixels, num_classes)


def make_project(root: Path) -> Path:
    """A copy of the project, small data sets in the official layouts, checkpoints as training puts them."""
    for part in ("datasets", "models", "robust"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, root)
    with open(root / "models/__init__.py", "a") as file:
        file.write(LINEAR)
    write_cifar(root / "data")
    shutil.copytree(write_tiny(root / "data"), root / "data/tiny-imagenet-200-corrupt")
    for name, pixels, classes in (("CIFAR100", 3072, CLASSES), ("tiny", 12288, len(TINY_WNIDS))):
        path = root / f"ckpt/{name}/resnet50/best.pth"
        path.parent.mkdir(parents=True)
        save_checkpoint(Linear(pixels, classes), path)
    return root


def start(project: Path, folder: str, name: str, *options: object) -> subprocess.Popen:
    script = os.path.relpath(project / "robust" / name, project / folder)
    return subprocess.Popen([sys.executable, script, *map(str, options)], cwd=project / folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(project: Path, folder: str, name: str, *options: object) -> subprocess.CompletedProcess:
    process = start(project, folder, name, *options)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two projects in which all six scripts have run, at one time: from inside robust/, and from outside."""
    made = {}
    for place in PLACES:
        made[place] = make_project(tmp_path_factory.mktemp(place))
        if made["inside"] is not made[place]:  # one set of weights: they are drawn anew each time
            for name in ("CIFAR100", "tiny"):
                path = f"ckpt/{name}/resnet50/best.pth"
                shutil.copy(made["inside"] / path, made[place] / path)

    def work(place: str) -> None:
        for command in COMMANDS:
            result = run(made[place], PLACES[place], *command)
            assert result.returncode == 0 and not result.stderr, result.stderr
            (made[place] / "output.txt").open("a").write(result.stdout)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, PLACES))
    return made


@pytest.fixture
def project(projects: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a project that a test may spoil."""
    return Path(shutil.copytree(projects["outside"], tmp_path / "project"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_from_two_folders_write_the_same_bytes(projects: dict[str, Path]) -> None:
    inside, outside = (files(project / "data") for project in projects.values())
    assert inside.keys() == outside.keys() and all(inside[name] == outside[name] for name in inside)
    assert {"cifar-100-corrupt/img.bin", "cifar-100-corrupt/targets.bin", "attack/cifar_train.npy",
            "attack/tiny_img.npy", "attack/tiny_target.npy", "noisy/cifar.npy", "noisy/tiny_img.npy",
            "noisy/tiny_target.npy"} < inside.keys()
    assert not [name for name in inside if ".tmp" in name or "partial" in name]


def test_formats_are_the_releases(projects: dict[str, Path]) -> None:
    data = projects["inside"] / "data"
    clean = open_dataset("CIFAR100", data).train
    images, targets = (pickle.loads((data / "cifar-100-corrupt" / name).read_bytes())
                       for name in ("img.bin", "targets.bin"))
    kinds = np.load(data / "cifar-100-corrupt/kinds.npy")
    assert images.dtype == np.uint8 and images.shape == (TRAIN, 32, 32, 3)
    assert targets == clean.labels.tolist()
    assert type(targets) is list and dict(zip(*np.unique(kinds, return_counts=True))) == {
        "clean": 140, "motion blur": 12, "fog": 12, "resolution": 12, "rectangle": 12, "gaussian": 12}
    assert ((images != clean.images).any((1, 2, 3)) == (kinds != "clean")).all()
    attacked, noisy = np.load(data / "attack/cifar_train.npy"), np.load(data / "noisy/cifar.npy")
    assert attacked.dtype == np.uint8 and attacked.shape == images.shape
    assert np.abs(attacked.astype(int) - clean.images).max() == 8
    changed = np.load(data / "noisy/cifar_changed.npy")
    assert noisy.dtype.kind == "i" and ((noisy != clean.labels) == changed).all() and 0 < changed.sum() < 80
    tiny = open_dataset("tiny", data / "tiny-imagenet-200").train
    pixels = tiny.pixels(range(TINY_IMAGES))
    assert (np.load(data / "noisy/tiny_img.npy") == pixels).all()
    assert np.abs(np.load(data / "attack/tiny_img.npy").astype(int) - pixels).max() == 8
    assert (np.load(data / "attack/tiny_target.npy") == tiny.labels).all()
    changed = np.load(data / "noisy/tiny_target.npy") != tiny.labels
    assert (changed == np.load(data / "noisy/tiny_changed.npy")).all()


def test_records_and_output(projects: dict[str, Path]) -> None:
    data, output = projects["inside"] / "data", (projects["inside"] / "output.txt").read_text()
    pgd, gsa = (json.loads((data / f"attack/{name}.json").read_text()) for name in ("cifar", "tiny"))
    assert pgd["attack"] == "PGD" and pgd["steps"] == 10 and pgd["eps"] == 8 / 255 and gsa["attack"] == "GSA"
    assert pgd["accuracy_after"] <= pgd["accuracy_before"]
    assert f"{pgd['accuracy_before']:.2f} % before, {pgd['accuracy_after']:.2f} % after" in output
    assert "60 of 200 images corrupted: 12 motion blur, 12 fog" in output and "\r" not in output
    assert re.search(r"cifar.npy: \d+ of 200 labels changed, [\d.]+ %", output)
    note = json.loads((data / "tiny-imagenet-200-corrupt/corrupt.json").read_text())
    assert note["state"] == "finished" and note["rate"] == 0.2 and len(note["kinds"]) == TINY_IMAGES
    assert "45 of 48 images corrupted" in output and note["kinds"]["train/n00000009/images/n00000009_0.JPEG"]


def test_corrupted_copy(projects: dict[str, Path]) -> None:
    data = projects["inside"] / "data"
    kinds = json.loads((data / "tiny-imagenet-200-corrupt/corrupt.json").read_text())["kinds"]
    before, after = (files(data / name) for name in ("tiny-imagenet-200", "tiny-imagenet-200-corrupt"))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name, kind in kinds.items() if kind != "clean"} and len(changed) == 45
    name = next(name for name, kind in kinds.items() if kind == "rectangle")
    with Image.open(data / "tiny-imagenet-200-corrupt" / name) as image:
        assert np.asarray(image)[8:42, 8:42].max() < 12 and image.info["comment"].endswith(b": rectangle")
    assert before.keys() | {"corrupt.json"} == after.keys()


@pytest.mark.parametrize("name", FOLDER)
def test_evaluation_is_on_the_clean_test_set(projects: dict[str, Path], name: str) -> None:
    project = projects["inside"]
    parent = next(parent for parent, scenes in SCENES.items() if name in scenes)
    clean = open_dataset(parent, project / ("data" if parent == "CIFAR100" else "data/tiny-imagenet-200"))
    data = open_dataset(name, project / FOLDER[name])
    ids = range(len(clean.test.labels))
    assert (data.test.pixels(ids) == clean.test.pixels(ids)).all()
    assert (data.test.labels == clean.test.labels).all()
    ids = range(len(clean.train.labels))
    assert len(data.train.labels) == len(ids) and data.name == name
    assert ((data.train.pixels(ids) != clean.train.pixels(ids)).any()
            or (data.train.labels != clean.train.labels).any())
    for part in ("recipe", "mean", "std", "classes", "small_images", "train_transform", "test_transform"):
        assert getattr(data, part) == getattr(clean, part)
    if name[-1] != "N":
        assert (data.train.labels == clean.train.labels).all()


def test_train_and_select_and_see_what_is_kept(project: Path) -> None:
    """The documented commands for a scene, then kept-share.py on what selection.py saved."""
    small = ("--dataset", "CIFAR100N", "--data", "data", "--arch", "linear")
    checkpoint = "ckpt/CIFAR100N/linear/best.pth"
    for script, *options in (("../train.py", *small, "--epoch", 1, "--lr", 0.001),
                             ("../selection.py", *small, "--ckpt", checkpoint, "--rate", 0.2)):
        result = run(project, ".", script, *options)
        assert result.returncode == 0, result.stderr
    result = run(project, "robust", "kept-share.py")
    assert result.returncode == 0, result.stderr
    distances = np.load(project / "index/CIFAR100N.distances.npz")["distances"]
    changed = np.load(project / "data/noisy/cifar_changed.npy")
    nearest = changed[np.argsort(distances, kind="stable")[:80]].sum() / changed.sum()
    dropped = pickle.loads((project / "index/CIFAR100N.bin").read_bytes())
    kept = np.delete(changed, dropped).sum() / changed.sum()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]]
            for line in result.stdout.splitlines() if line[:1] == "|"]
    assert rows[0] == ["images kept", "20 %", "40 %", "60 %"]
    assert rows[2][:2] == ["moderate", f"{100 * kept:.1f} %"]
    assert rows[4][0] == "nearest to the centre" and rows[4][2] == f"{100 * nearest:.1f} %"
    assert f"Share of the {changed.sum()} mislabelled images among CIFAR100N's {TRAIN}" in result.stdout


def settings() -> list[tuple[str, int, str]]:
    """README's table of constants: script, line, text."""
    found = re.findall(r"`(robust/[\w-]+\.py)` line (\d+): `([^`]+)`", (ROOT / "README.md").read_text())
    return [(name, int(line), text) for name, line, text in found]


def test_readme_names_the_lines_of_the_settings() -> None:
    named = {(name, line): text for name, line, text in settings()}
    assert named.keys() == {("robust/corrupt-cifar.py", 16), ("robust/corrupt-cifar.py", 19),
                            ("robust/corrupt-tiny.py", 18), ("robust/attack-cifar.py", 18),
                            ("robust/attack-tiny.py", 18), ("robust/noisy-cifar.py", 7),
                            ("robust/noisy-tiny.py", 9)}
    for (name, line), text in named.items():
        assert (ROOT / name).read_text().splitlines()[line - 1].split("  #")[0] == text


def test_an_edited_constant_is_obeyed(project: Path) -> None:
    path = project / "robust/corrupt-cifar.py"
    text = path.read_text().replace("RATE = 0.06", "RATE = 0.1")
    path.write_text(text.replace('"cifar-100-corrupt"', '"other"'))
    said = run(project, ".", "corrupt-cifar.py").stdout
    assert "100 of 200 images corrupted" in said and "CIFAR100C reads" in said
    assert (project / "data/other/img.bin").exists()


def test_a_killed_attack_goes_on_and_gives_the_same_bytes(project: Path) -> None:
    whole = files(project / "data/attack")
    shutil.rmtree(project / "data/attack")
    partial = project / "data/attack/.cifar_train.partial"
    options = ("--arch", "linear", "--batch_size", 32)
    process = start(project, ".", "attack-cifar.py", *options)
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 3 * 32 * 3072):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = run(project, ".", "attack-cifar.py", *options)
    assert result.returncode == 0 and ("going on after image" in result.stdout) == (process.returncode != 0)
    assert files(project / "data/attack") == {name: whole[name] for name in ("cifar_train.npy", "cifar.json")}


def fake_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks without a network: signs and labels from the pixels."""
    monkeypatch.setattr(attacks, "load_network", lambda *_: None)
    monkeypatch.setattr(attacks, "make_gradient_sign",
                        lambda *_: lambda x, _: np.sign(np.sin(x)).astype(np.float32))
    monkeypatch.setattr(attacks, "make_predict", lambda *_: lambda pixels: pixels[:, 3, 3, 0] % CLASSES)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("moment", range(0, 30, 3))
def test_an_attack_may_be_stopped_at_any_moment(projects: dict[str, Path], tmp_path: Path, moment: int,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after so many steps of what writes files, some of them half done, and run again."""
    fake_network(monkeypatch)
    data, checkpoint = open_dataset("CIFAR100", projects["inside"] / "data"), tmp_path / "x.pth"
    checkpoint.write_text("weights")

    def attack(folder: str, budget: attacks.Budget = attacks.Budget()) -> None:
        attacks.attack_to_file(data, tmp_path / folder / "cifar_train.npy", tmp_path / folder / "cifar.json",
                               "PGD", budget, "resnet20", checkpoint, "CPU", 32, 7)

    attack("whole")
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps > moment:
            raise Stop

    class Stopping(attacks.BlockFile):
        def _write(self, content: bytes) -> None:
            for part in (content[:len(content) // 2], content[len(content) // 2:]):
                step()
                self.file.write(part)
                self.file.flush()

    real_unlink, real_replace = Path.unlink, os.replace
    with monkeypatch.context() as patch:
        patch.setattr(attacks, "BlockFile", Stopping)
        patch.setattr(os, "replace", lambda *args: (step(), real_replace(*args), step()))
        patch.setattr(Path, "unlink",
                      lambda self, **kw: (step(), real_unlink(self, **kw)) if "partial" in str(self)
                      else real_unlink(self, **kw))
        try:
            attack("stopped")
        except Stop:
            pass
    partial = tmp_path / "stopped/.cifar_train.partial"
    if partial.exists() and b"\n" in partial.read_bytes():
        before = files(tmp_path / "stopped")
        with pytest.raises(BadInput, match="unfinished attack with steps 10 .not 7"):
            attack("stopped", attacks.Budget(steps=7))
        assert files(tmp_path / "stopped") == before
    attack("stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    monkeypatch.setattr(attacks, "load_network", None)
    attack("stopped")  # is there already


@pytest.mark.parametrize("stop", [0, 1, 20, 44])
def test_a_stopped_corruption_goes_on(tmp_path: Path, projects: dict[str, Path], stop: int,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    clean, folder = projects["inside"] / "data/tiny-imagenet-200", tmp_path / "copy"
    shutil.copytree(clean, folder)
    (tmp_path / "tiny-imagenet-200").symlink_to(clean)
    real_replace, done = os.replace, 0

    def replace_some(source: Path, target: Path) -> None:
        nonlocal done
        if str(target).endswith(".JPEG"):
            if done == stop:
                raise Stop
            done += 1
        real_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_some)
        with pytest.raises(Stop):
            in_place.corrupt_copy(folder, 0.2, 42)
    with pytest.raises(BadInput, match="corrupt-tiny.py again"):
        open_dataset("tinyC", folder)
    with pytest.raises(BadInput, match="half corrupted, with --rate 0.2 --seed 42"):
        in_place.corrupt_copy(folder, 0.2, 43)
    in_place.corrupt_copy(folder, 0.2, 42)
    assert files(folder) == files(projects["inside"] / "data/tiny-imagenet-200-corrupt")
    with pytest.raises(BadInput, match="corrupted already, with --rate 0.2 --seed 42"):
        in_place.corrupt_copy(folder, 0.2, 42)
    (folder / "corrupt.json").unlink()
    with pytest.raises(BadInput, match="corrupted already, but .* is missing"):
        in_place.corrupt_copy(folder, 0.2, 42)


def test_the_original_is_never_corrupted(tmp_path: Path, projects: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(projects["inside"] / "data/tiny-imagenet-200",
                                  tmp_path / "tiny-imagenet-200"))
    before = files(folder)
    (tmp_path / "tiny-imagenet-200-corrupt").symlink_to(folder)
    for path in (folder, tmp_path / "tiny-imagenet-200-corrupt"):
        with pytest.raises(BadInput, match="is the original; copy it with cp -r"):
            in_place.corrupt_copy(path, 0.2, 42)
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/train")
    (tmp_path / "copy/train").symlink_to(folder / "train")
    with pytest.raises(BadInput, match="link that leads out"):
        in_place.corrupt_copy(tmp_path / "copy", 0.2, 42)
    assert files(folder) == before


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("trap",)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    return results.npy_header(shape).replace(b"|u1", descr.encode())


IMAGES = np.zeros((TRAIN, 32, 32, 3), np.uint8)
TINY_PIXELS = np.zeros((TINY_IMAGES, 64, 64, 3), np.uint8)
LABELS = [0] * TRAIN
BAD = [
    ("CIFAR100C", "cifar-100-corrupt/img.bin", None, "missing; make it with robust/corrupt-cifar.py"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", None, "missing; make it with robust/corrupt-cifar.py"),
    ("CIFAR100A", "attack/cifar_train.npy", None, "missing; make it with robust/attack-cifar.py"),
    ("CIFAR100N", "noisy/cifar.npy", None, "missing; make it with robust/noisy-cifar.py"),
    ("tinyA", "attack/tiny_img.npy", None, "missing; make it with robust/attack-tiny.py"),
    ("tinyA", "attack/tiny_target.npy", None, "missing; make it with robust/attack-tiny.py"),
    ("tinyN", "noisy/tiny_img.npy", None, "missing; make it with robust/noisy-tiny.py"),
    ("tinyC", "tiny-imagenet-200-corrupt/corrupt.json", None, "run robust/corrupt-tiny.py on a copy"),
    ("tinyC", "tiny-imagenet-200-corrupt/corrupt.json", b"[" * 10 ** 5, "run robust/corrupt-tiny.py again"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", IMAGES[1:], "not uint8 \\(200, 32, 32, 3\\)"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", IMAGES.astype(float), "not uint8"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", IMAGES.transpose(0, 3, 1, 2), "not uint8"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", LABELS, "list, not uint8"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", Trap(), "not a pickle of plain arrays"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", LABELS[1:], "not 200 whole numbers from 0 to 4"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", LABELS[1:] + [CLASSES], "not 200 whole numbers"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", LABELS[1:] + [-1], "not 200 whole numbers"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", LABELS[1:] + [0.5], "not 200 whole numbers"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", LABELS[1:] + ["a"], "not 200 whole numbers"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", Trap(), "not a pickle of plain arrays"),
    ("CIFAR100A", "attack/cifar_train.npy", IMAGES[:, :31], "not uint8"),
    ("CIFAR100A", "attack/cifar_train.npy", b"", "not a whole .npy file"),
    ("CIFAR100A", "attack/cifar_train.npy", header((TRAIN, 32, 32, 3)) + bytes(5), "not a whole .npy file"),
    ("CIFAR100A", "attack/cifar_train.npy", header((10 ** 15, 32, 32, 3)), "not a whole .npy file"),
    ("CIFAR100A", "attack/cifar_train.npy", header((TRAIN,), "|O") + pickle.dumps(Trap()),
     "not a whole .npy file"),
    ("CIFAR100A", "attack/cifar_train.npy", pickle.dumps(Trap()), "not a whole .npy file"),
    ("CIFAR100A", "attack/cifar_train.npy", b"PK\x05\x06" + bytes(18), "not a .npy file"),
    ("CIFAR100N", "noisy/cifar.npy", np.full(TRAIN, CLASSES), "not 200 whole numbers"),
    ("CIFAR100N", "noisy/cifar.npy", np.zeros(TRAIN), "not 200 whole numbers"),
    ("CIFAR100N", "noisy/cifar.npy", np.zeros((TRAIN, 1), int), "not 200 whole numbers"),
    ("CIFAR100N", "noisy/cifar.npy", np.full(TRAIN, 2 ** 32), "not 200 whole numbers"),
    ("tinyA", "attack/tiny_img.npy", TINY_PIXELS[1:], "not uint8 \\(48, 64, 64, 3\\)"),
    ("tinyA", "attack/tiny_target.npy", np.zeros(TINY_IMAGES - 1, int), "not 48 whole numbers from 0 to 2"),
    ("tinyN", "noisy/tiny_img.npy", TINY_PIXELS.astype(np.int16), "not uint8"),
    ("tinyN", "noisy/tiny_target.npy", np.full(TINY_IMAGES, -1), "not 48 whole numbers"),
]


@pytest.mark.parametrize("dataset, name, content, message", BAD)
def test_files_that_do_not_fit_are_refused(projects: dict[str, Path], tmp_path: Path, dataset: str, name: str,
                                           content, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(projects["inside"] / "data", tmp_path / "data")
    path = tmp_path / "data" / name
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None and name.endswith(".bin"):
        path.write_bytes(pickle.dumps(content))
    elif content is not None:
        np.save(path, content)
    with pytest.raises(BadInput, match=message) as error:
        open_dataset(dataset, Path(FOLDER[dataset]))
    assert str(error.value).startswith(f"{Path('data', name)}:") or str(path) in str(error.value)
    assert "\n" not in str(error.value) and not (tmp_path / "trap").exists()


COMMANDS_REFUSED = [
    ("corrupt-cifar.py --rate 0.3", "--rate"),
    ("corrupt-cifar.py --data nowhere", "nowhere/cifar-100-python"),
    ("corrupt-tiny.py", "corrupted already"),
    ("corrupt-tiny.py --data data/tiny-imagenet-200", "is the original"),
    ("noisy-cifar.py --share 1.5", "--share"),
    ("noisy-tiny.py --data nowhere", "nowhere/tiny-imagenet-200/train"),
    ("attack-cifar.py --attack FGSM", "--attack"),
    ("attack-cifar.py --arch linear --eps 0.5/255", "--eps"),
    ("attack-cifar.py --arch linear --ckpt nowhere.pth", "nowhere.pth"),
    ("attack-tiny.py --arch linear --ckpt ckpt/CIFAR100/resnet50/best.pth --seed 1", "best.pth"),
    ("kept-share.py --dataset tinyC --index index", "index/tinyC.distances.npz: missing"),
]


@pytest.mark.parametrize("command, culprit", COMMANDS_REFUSED)
def test_bad_input_gets_one_line_and_overwrites_nothing(projects: dict[str, Path], command: str, culprit: str,
                                                       monkeypatch: pytest.MonkeyPatch,
                                                       capfd: pytest.CaptureFixture) -> None:
    """The scripts within this process, which saves the start of each."""
    monkeypatch.chdir(projects["outside"])
    monkeypatch.syspath_prepend(ROOT / "robust")
    monkeypatch.setattr(runtime, "set_up", lambda *_: "CPU")  # MindSpore takes some settings once
    monkeypatch.setitem(NETWORKS, "linear", lambda classes, small: Linear(3072 if small else 12288, classes))
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv",
                        [name, *(["--data", "data"] if "--data" not in arguments else []), *arguments])
    before = files(projects["outside"] / "data")
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "robust" / name), run_name="__main__")
    error = capfd.readouterr().err
    assert end.value.code == 2 and culprit in error, error
    assert error.startswith(f"{name}: error: ") and error.count("\n") == 1
    assert files(projects["outside"] / "data") == before
