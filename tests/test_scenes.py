"""robust/'s scripts through a shell, in their own project, and the data sets that read what they write."""
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from conftest import CLASSES, TINY_TRAIN, TINY_WNIDS, TRAIN, npy, write_cifar, write_cifar10, write_tiny
from datasets import SCENES, SOURCES, DataSet, Split, open_dataset
from forks import ROOT, Forks
from models.checkpoint import save_checkpoint
from robust import attacks
from robust.attacks import Attack
from two_layers import NAME, TwoLayers
from utils import arrays
from utils.errors import BadInput

TINY_IMAGES = TINY_TRAIN * len(TINY_WNIDS)
ATTACK = ("--arch", NAME, "--batch_size", "32")
# As documented, from inside the project's robust/; the same from elsewhere, with the options that this needs.
INSIDE = (("corrupt-cifar.py",), ("noisy-cifar.py",), ("attack-cifar.py", "--attack", "PGD", *ATTACK),
          ("noisy-tiny.py",), ("corrupt-tiny.py",), ("attack-tiny.py", *ATTACK))
CKPT = "ckpt/{}/resnet50/best.pth"
OUTSIDE = (("corrupt-cifar.py", "--data", "data"), ("noisy-cifar.py", "--data", "data"),
           ("attack-cifar.py", "--attack", "PGD", *ATTACK, "--data", "data", "--ckpt",
            CKPT.format("CIFAR100")),
           ("noisy-tiny.py", "--data", "data/tiny-imagenet-200"), ("corrupt-tiny.py", "--data", "data"),
           ("attack-tiny.py", *ATTACK, "--data", "data/tiny-imagenet-200", "--ckpt", CKPT.format("tiny")))
FOLDER = {"CIFAR100C": "data", "CIFAR100A": "data", "CIFAR100N": "data",
          "tinyC": "data/tiny-imagenet-200-corrupt", "tinyA": "data/tiny-imagenet-200",
          "tinyN": "data/tiny-imagenet-200"}


def write_data(root: Path) -> Path:
    """Small data sets and a copy to corrupt."""
    write_cifar(root)
    shutil.copytree(write_tiny(root), root / "tiny-imagenet-200-corrupt")
    return root


def make_project(root: Path) -> Path:
    """A copy of the project with one network more, small data sets, checkpoints as training puts them."""
    for part in ("datasets", "methods", "models", "robust", "utils"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/two_layers.py", root / "models")
    with open(root / "models/__init__.py", "a") as file:
        file.write("\nfrom models import two_layers\nNETWORKS[two_layers.NAME] = two_layers.TwoLayers\n")
    write_data(root / "data")
    ms.set_seed(0)
    for name, classes in (("CIFAR100", CLASSES), ("tiny", len(TINY_WNIDS))):
        path = root / CKPT.format(name)
        path.parent.mkdir(parents=True)
        save_checkpoint(TwoLayers(classes, small_images=True), path)
    return root


def run_inside(project: Path, name: str, *options: str) -> str:
    """Run a script of a project from inside its robust/; return its output."""
    result = subprocess.run([sys.executable, name, *options], cwd=project / "robust", capture_output=True,
                            text=True, timeout=600)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


def run(forks: Forks, folder: Path, name: str, *options: object) -> str:
    """Run a script of this project's robust/ from a folder; return its output."""
    done = forks.start(folder, f"robust/{name}", *options).finish()
    assert done.returncode == 0 and not done.err, done.err
    return done.out


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all six scripts have run as documented, from inside robust/."""
    root = make_project(tmp_path_factory.mktemp("project"))
    # Both attacks write to data/attack, and a second run in one folder is refused: they take turns.
    turns = [[command for command in INSIDE if command[0].startswith("attack") is attack]
             for attack in (True, False)]
    with ThreadPoolExecutor(2) as pool:
        outputs = pool.map(lambda turn: "".join(run_inside(root, *command) for command in turn), turns)
        (root / "output.txt").write_text("".join(outputs))
    return root


@pytest.fixture(scope="module")
def inside(project: Path) -> Path:
    """That project's data."""
    return project / "data"


@pytest.fixture
def work(project: Path, tmp_path: Path) -> Path:
    """A folder with copies of that project's data and checkpoints, which a test may spoil."""
    for part in ("data", "ckpt"):
        shutil.copytree(project / part, tmp_path / "work" / part)
    return tmp_path / "work"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_from_two_folders_write_the_same_bytes_and_these_files_alone(
        project: Path, forks: Forks, tmp_path: Path) -> None:
    before = files(write_data(tmp_path / "data"))
    shutil.copytree(project / "ckpt", tmp_path / "ckpt")
    for command in OUTSIDE:
        run(forks, tmp_path, *command)
    inside, outside = files(project / "data"), files(tmp_path / "data")
    assert inside.keys() == outside.keys() and all(inside[name] == outside[name] for name in inside)
    assert inside.keys() - before.keys() == {
        *(f"cifar-100-corrupt/{name}" for name in ("img.bin", "targets.bin", "kinds.npy", "corrupt.json")),
        *(f"attack/{name}" for name in ("cifar_train.npy", "cifar.json", "tiny_img.npy", "tiny_target.npy",
                                        "tiny.json")),
        *(f"noisy/{name}" for name in ("cifar.npy", "cifar_changed.npy", "cifar.json", "tiny_img.npy",
                                       "tiny_target.npy", "tiny_changed.npy", "tiny.json")),
        "tiny-imagenet-200-corrupt/corrupt.json"}


def test_corrupted_cifar_has_the_releases_format_and_kinds(inside: Path) -> None:
    images, targets = (pickle.loads((inside / "cifar-100-corrupt" / name).read_bytes())
                       for name in ("img.bin", "targets.bin"))
    clean, kinds = open_dataset("CIFAR100", inside).train, np.load(inside / "cifar-100-corrupt/kinds.npy")
    assert images.dtype == np.uint8 and images.shape == (TRAIN, 32, 32, 3)
    assert type(targets) is list and targets == clean.labels.tolist()
    assert ((images != clean.images).any((1, 2, 3)) == (kinds != "clean")).all()
    assert {kind: (kinds == kind).sum() for kind in kinds} == {
        "clean": 140, "motion blur": 12, "fog": 12, "resolution": 12, "rectangle": 12, "gaussian": 12}


@pytest.mark.parametrize("name, attacked, images, labels, changed", [
    ("CIFAR100", "cifar_train.npy", None, "cifar.npy", "cifar_changed.npy"),
    ("tiny", "tiny_img.npy", "tiny_img.npy", "tiny_target.npy", "tiny_changed.npy")])
def test_attacked_images_and_noisy_labels_have_the_releases_format(
        project: Path, inside: Path, name: str, attacked: str, images: str | None, labels: str,
        changed: str) -> None:
    clean, _ = clean_and_scene(project, f"{name}N")
    pixels, found = clean.train.pixels(range(len(clean.train.labels))), np.load(inside / "attack" / attacked)
    assert found.dtype == np.uint8 and found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).max() == 8
    noisy, marks = (np.load(inside / "noisy" / file) for file in (labels, changed))
    assert noisy.dtype == np.int64 and 0 < marks.sum() < len(noisy) // 2
    assert ((noisy != clean.train.labels) == marks).all()
    if images:
        assert (np.load(inside / "attack" / labels) == clean.train.labels).all()
        assert (np.load(inside / "noisy" / images) == pixels).all()


def test_records_say_what_was_done(inside: Path) -> None:
    records = {name: json.loads((inside / f"{name}.json").read_text())
               for name in ("attack/cifar", "attack/tiny", "noisy/tiny", "cifar-100-corrupt/corrupt")}
    told = {name: [record.get(key) for key in ("attack", "steps", "rate", "seed", "images")]
            for name, record in records.items()}
    assert told == {"attack/cifar": ["PGD", 10, None, 42, TRAIN],
                    "attack/tiny": ["GSA", None, None, None, TINY_IMAGES],
                    "noisy/tiny": [None, None, 0.2, 42, TINY_IMAGES],
                    "cifar-100-corrupt/corrupt": [None, None, 0.06, 42, TRAIN]}
    assert all(record["versions"]["mindspore"] == ms.__version__ for record in records.values())


def test_output_is_plain_lines(project: Path, inside: Path) -> None:
    output = (project / "output.txt").read_text()
    attack = json.loads((inside / "attack/cifar.json").read_text())
    for words in (f"{attack['accuracy_before']:.2f} % before, {attack['accuracy_after']:.2f} % after",
                  "60 of 200 images corrupted: 12 motion blur, 12 fog", "45 of 48 images corrupted"):
        assert words in output
    assert re.search(r"cifar.npy: \d+ of 200 labels changed, [\d.]+ %", output) and "\r" not in output


def test_the_scripts_write_files_of_their_own_for_cifar10(project: Path, inside: Path, forks: Forks,
                                                          tmp_path: Path) -> None:
    """Here it has the images and labels of CIFAR-100, so that corruptions and labels are the same."""
    write_cifar10(tmp_path / "data")
    shutil.copytree(project / "ckpt/CIFAR100", tmp_path / "ckpt/CIFAR10")
    for name, *options in (("corrupt-cifar.py",), ("noisy-cifar.py",),
                           (*INSIDE[2], "--ckpt", "ckpt/CIFAR10/resnet50/best.pth")):
        run(forks, tmp_path, name, *options, "--dataset", "CIFAR10", "--data", "data")
    assert {"cifar-10-corrupt", "attack", "noisy"} == set(os.listdir(tmp_path / "data")) - {
        "cifar-100-python", "cifar-10-batches-py"}
    for own, other in (("cifar-10-corrupt/img.bin", "cifar-100-corrupt/img.bin"),
                       ("noisy/cifar10.npy", "noisy/cifar.npy"),
                       ("noisy/cifar10_changed.npy", "noisy/cifar_changed.npy")):
        assert (tmp_path / "data" / own).read_bytes() == (inside / other).read_bytes()
    attacked = open_dataset("CIFAR10A", tmp_path / "data").train.images.astype(int)
    assert np.abs(attacked - open_dataset("CIFAR10", tmp_path / "data").train.images).max() == 8
    for scene in "CN":
        found = open_dataset(f"CIFAR10{scene}", tmp_path / "data")
        expected = open_dataset(f"CIFAR100{scene}", inside)
        assert found.images_sha256 == expected.images_sha256
        assert (found.perturbed == expected.perturbed).all()
        assert found.source.mean == SOURCES["CIFAR10"].mean


def kinds_of_copy(inside: Path) -> dict[str, str]:
    note = json.loads((inside / "tiny-imagenet-200-corrupt/corrupt.json").read_text())
    assert note["state"] == "finished"
    return note["kinds"]


def test_a_corrupted_copys_note_says_which_images_are_corrupted(inside: Path) -> None:
    before, after = (files(inside / name) for name in ("tiny-imagenet-200", "tiny-imagenet-200-corrupt"))
    changed, kinds = {name for name in before if before[name] != after[name]}, kinds_of_copy(inside)
    assert changed == {name for name, kind in kinds.items() if kind != "clean"}
    assert len(changed) == 45 and len(kinds) == TINY_IMAGES
    name = next(name for name, kind in kinds.items() if kind == "rectangle")
    with Image.open(io.BytesIO(after[name])) as image:
        assert image.format == "JPEG" and np.asarray(image)[8:42, 8:42].max() < 12


def clean_and_scene(project: Path, name: str) -> tuple[DataSet, DataSet]:
    parent = next(parent for parent, scenes in SCENES.items() if name in scenes)
    folder = project / ("data" if parent == "CIFAR100" else "data/tiny-imagenet-200")
    return open_dataset(parent, folder), open_dataset(name, project / FOLDER[name])


@pytest.mark.parametrize("name", FOLDER)
def test_a_scene_differs_from_its_clean_set_in_training_images_or_labels(project: Path, name: str) -> None:
    """And knows which ones are corrupted or mislabelled; of attacked images it does not say so."""
    clean, scene = clean_and_scene(project, name)
    differ = []
    for one, other in ((clean.train, scene.train), (clean.test, scene.test)):
        ids = range(len(one.labels))
        differ += [(one.pixels(ids) != other.pixels(ids)).any((1, 2, 3)), one.labels != other.labels]
    assert [part.any() for part in differ] == [not name.endswith("N"), name.endswith("N"), False, False]
    changed = differ[0] | differ[1]
    assert clean.perturbed is None
    assert scene.perturbed is None if name.endswith("A") else (scene.perturbed == changed).all()
    assert name.endswith("A") or not changed.all()
    assert scene.classes == clean.classes
    for part in ("recipe", "mean", "std", "small_images", "train_transform", "test_transform", "sizes"):
        assert getattr(scene.source, part) == getattr(clean.source, part)


def test_a_linked_folder_has_its_files_where_it_lies(work: Path, forks: Forks, tmp_path: Path) -> None:
    shutil.rmtree(work / "data/noisy")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(work / "data/tiny-imagenet-200")
    run(forks, tmp_path, "noisy-tiny.py", "--data", "here/link")
    assert os.listdir(tmp_path / "here") == ["link"]
    assert open_dataset("tinyN", tmp_path / "here/link").train.labels.tolist() == (
        np.load(work / "data/noisy/tiny_target.npy").tolist())


def test_some_labels_of_the_first_classes_alone_are_changed(work: Path, forks: Forks) -> None:
    """--share is another name of --rate."""
    run(forks, work, "noisy-cifar.py", "--data", "data", "--classes", 2, "--share", 0.5)
    changed = np.load(work / "data/noisy/cifar_changed.npy")
    labels = open_dataset("CIFAR100", work / "data").train.labels
    assert 0.3 < changed[labels < 2].mean() < 0.7 and not changed[labels >= 2].any()
    record = json.loads((work / "data/noisy/cifar.json").read_text())
    assert (record["classes"], record["rate"]) == (2, 0.5)
    with pytest.raises(BadInput, match="--classes 5: images or labels of CIFAR100N were changed in"):
        open_dataset("CIFAR100N", work / "data")
    assert open_dataset("CIFAR100N", work / "data", classes=2).mislabelled.any()
    folder = work / "data/tiny-imagenet-200"
    with pytest.raises(BadInput, match="the first 3 classes; .*the script in robust/ again with --classes 2"):
        open_dataset("tinyN", folder, classes=2)
    run(forks, work, "noisy-tiny.py", "--data", "data", "--classes", 2, "--rate", 0.5)
    tiny = open_dataset("tinyN", folder, classes=2)
    assert tiny.mislabelled.any() and tiny.train.labels.max() == 1


@pytest.mark.parametrize("script, name, record", [
    ("noisy-cifar.py", "noisy/cifar.npy", "noisy/cifar.json"),
    ("corrupt-cifar.py", "cifar-100-corrupt/img.bin", "cifar-100-corrupt/corrupt.json"),
    ("attack-cifar.py", "attack/cifar_train.npy", "attack/cifar.json")])
@pytest.mark.parametrize("beside", [False, True])
def test_what_a_script_did_not_write_is_not_overwritten(work: Path, forks: Forks, script: str, name: str,
                                                        record: str, beside: bool) -> None:
    """Human labels, the release's files: without a record, or in place of what the record is of."""
    if not beside:
        (work / "data" / record).unlink()
    (work / "data" / name).write_bytes(b"mine")
    (options,) = (options for other, *options in OUTSIDE if other == script)
    done = forks.start(work, f"robust/{script}", *options).finish()
    assert done.returncode == 2 and f"{name}: not written by this script" in done.err
    assert done.err.count("\n") == 1 and (work / "data" / name).read_bytes() == b"mine"


def test_other_labels_beside_attacked_images_are_not_overwritten(work: Path, forks: Forks) -> None:
    path = work / "data/attack/tiny_target.npy"
    labels = 1 - np.load(path)
    np.save(path, labels)
    done = forks.start(work, f"robust/{OUTSIDE[5][0]}", *OUTSIDE[5][1:]).finish()
    assert done.returncode == 2 and "tiny_target.npy: its labels differ from those of data/tiny" in done.err
    assert done.err.count("\n") == 1 and (np.load(path) == labels).all()


def test_what_is_mislabelled_or_corrupted_counts_once() -> None:
    split = Split(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32),
                  mislabelled=np.array([True, True, False, False]),
                  corrupted=np.array([True, False, True, False]))
    data = DataSet("x", split, split, ["a", "b"], SOURCES["CIFAR100"], "")
    assert data.perturbed.tolist() == [True, True, True, False]


def test_a_network_of_images_of_another_size_is_not_attacked(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text('{"image_size": 16}')
    with pytest.raises(BadInput, match="best.pth: trained on images of 16x16 pixels, but .* have 32x32"):
        attacks.load_attacked(open_dataset("CIFAR100", cifar), NAME, tmp_path / "best.pth")


# Those that the README of the original names, by which people edit the scripts.
LINES = {("corrupt-cifar.py", 16): 'FOLDER = "cifar-100-corrupt"', ("corrupt-cifar.py", 19): "RATE = 0.06",
         ("corrupt-tiny.py", 18): "RATE = 0.2", ("attack-cifar.py", 18): 'ATTACK = "GSA"',
         ("attack-tiny.py", 18): 'ATTACK = "GSA"', ("noisy-cifar.py", 7): "RATE = 0.2",
         ("noisy-tiny.py", 9): "RATE = 0.2"}


def test_settings_stand_on_the_lines_of_the_original_and_the_readme_names_them() -> None:
    text = (ROOT / "robust/README.md").read_text()
    named = re.findall(r"`robust/([\w-]+\.py)` line (\d+): `([^`]+)`", text)
    assert {(name, int(line)): setting for name, line, setting in named} == LINES
    for (name, line), setting in LINES.items():
        assert (ROOT / "robust" / name).read_text().splitlines()[line - 1].split("  #")[0] == setting


def test_a_line_that_is_edited_as_the_original_says_is_obeyed(forks: Forks, cifar: Path, tmp_path: Path
                                                              ) -> None:
    shutil.copytree(ROOT / "robust", tmp_path / "robust")
    shutil.copytree(cifar, tmp_path / "data")
    path = tmp_path / "robust/corrupt-cifar.py"
    for edit in ("19s/0.06/0.04/", "16s/cifar-100-corrupt/other/"):
        subprocess.run(["sed", "-i", edit, path], check=True)
    done = forks.start(tmp_path / "robust", str(path)).finish()
    assert "40 of 200 images corrupted" in done.out and "CIFAR100C reads" in done.out, done.err
    assert (tmp_path / "data/other/img.bin").exists()


# Runs that are stopped

def test_a_killed_attack_is_resumed_and_gives_the_same_bytes(work: Path, forks: Forks) -> None:
    """Killed at its first record of finished images, at the second, and when all are finished."""
    whole = files(work / "data/attack")
    shutil.rmtree(work / "data/attack")
    command = ("robust/attack-cifar.py", *OUTSIDE[2][1:])
    assert "resuming" not in forks.kill(work, "open ..cifar_train.json.tmp", 0, *command)
    assert "resuming" not in forks.kill(work, "open ..cifar_train.json.tmp", 1, *command)
    said = forks.kill(work, "os.rename .cifar_train.npy", 0, *command)
    assert f"resuming after image 32 of {TRAIN}" in said
    resumed = forks.start(work, *command).finish()
    assert resumed.returncode == 0, resumed.err
    assert f"resuming after image {TRAIN} of {TRAIN}" in resumed.out
    assert files(work / "data/attack") == {name: whole[name] for name in ("cifar_train.npy", "cifar.json")}


@pytest.fixture
def attack(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """attack(folder, steps=2): PGD on CIFAR-100 without a network, its signs and labels from the pixels."""
    monkeypatch.setattr(arrays, "RECORD_SECONDS", 0)
    monkeypatch.setattr(attacks, "load_network", lambda *_: None)
    monkeypatch.setattr(attacks, "make_gradient_sign",
                        lambda *_: lambda x, _: np.sign(np.sin(x)).astype(np.float32))
    monkeypatch.setattr(attacks, "make_predict", lambda *_: lambda pixels: pixels[:, 3, 3, 0] % CLASSES)
    checkpoint = tmp_path / "x.pth"
    checkpoint.write_text("weights")

    def run_attack(folder: str, steps: int = 2, classes: int | None = None) -> None:
        pgd = Attack("PGD", "resnet20", checkpoint, steps=steps, batch_size=64, seed=7)
        whole = open_dataset("CIFAR100", inside).train if classes else None
        attacks.attack_to_file(open_dataset("CIFAR100", inside, classes=classes),
                               tmp_path / folder / "cifar_train.npy", tmp_path / folder / "cifar.json", pgd,
                               "CPU", whole)

    return run_attack


def test_an_attack_on_the_first_classes_leaves_the_others(attack: Callable, inside: Path,
                                                          tmp_path: Path) -> None:
    attack("attack", classes=2)
    (tmp_path / "cifar-100-python").symlink_to(inside / "cifar-100-python")
    clean = open_dataset("CIFAR100", tmp_path).train
    changed = (np.load(tmp_path / "attack/cifar_train.npy") != clean.images).any((1, 2, 3))
    assert np.array_equal(changed, clean.labels < 2)
    assert len(open_dataset("CIFAR100A", tmp_path, classes=2).train.labels) == (clean.labels < 2).sum()
    with pytest.raises(BadInput, match=f"--classes {CLASSES}: images or labels of CIFAR100A were changed in"):
        open_dataset("CIFAR100A", tmp_path)


def stop_at_third_batch(attack: Callable, error: type[BaseException], match: str | None = None,
                        **options: int) -> None:
    """Begin an attack into the folder "stopped" and raise an error in it."""
    real, calls = arrays.ResumableArrays.write, iter(range(2))

    def write(self: arrays.ResumableArrays, **rows: np.ndarray) -> None:
        if next(calls, None) is None:
            raise error
        real(self, **rows)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(error, match=match):
        patch.setattr(arrays.ResumableArrays, "write", write)
        attack("stopped", **options)


def test_two_folders_with_a_scenes_files_are_refused(inside: Path, tmp_path: Path) -> None:
    """Above the link that --data names, and above the folder that it leads to."""
    shutil.copytree(inside / "tiny-imagenet-200", tmp_path / "shared/tiny-imagenet-200")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tiny-imagenet-200").symlink_to(tmp_path / "shared/tiny-imagenet-200")
    shutil.copytree(inside / "noisy", tmp_path / "data/noisy")
    open_dataset("tinyN", tmp_path / "data/tiny-imagenet-200")
    shutil.copytree(inside / "noisy", tmp_path / "shared/noisy")
    with pytest.raises(BadInput, match="shared/noisy and .*data/noisy: both hold tiny_img.npy"):
        open_dataset("tinyN", tmp_path / "data/tiny-imagenet-200")


def test_an_unfinished_attack_with_other_settings_is_not_overwritten(attack: Callable,
                                                                     tmp_path: Path) -> None:
    stop_at_third_batch(attack, SystemExit)
    before = files(tmp_path / "stopped")
    with pytest.raises(BadInput, match="an unfinished attack with steps 2 .not 3.; finish it with these set"):
        attack("stopped", steps=3)
    assert files(tmp_path / "stopped") == before


def test_ctrl_c_says_how_an_attack_is_resumed(attack: Callable, tmp_path: Path,
                                              capsys: pytest.CaptureFixture) -> None:
    attack("whole")
    stop_at_third_batch(attack, KeyboardInterrupt, "128 of 200 images are done; repeat the command to resume")
    attack("stopped")
    assert "resuming after image 128 of 200" in capsys.readouterr().out
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_finished_attack_is_not_made_again_and_an_unfinished_one_stays(
        attack: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    attack("stopped")
    stop_at_third_batch(attack, SystemExit, steps=3)
    before = files(tmp_path / "stopped")
    monkeypatch.setattr(attacks, "load_attacked", None)
    attack("stopped")
    assert "cifar_train.npy: this attack exists already" in capsys.readouterr().out
    assert files(tmp_path / "stopped") == before and ".cifar_train.npy" in before


def test_a_finished_attack_with_other_settings_is_replaced(attack: Callable, tmp_path: Path) -> None:
    attack("one", steps=3)
    attack("other")
    attack("other", steps=3)
    assert files(tmp_path / "one") == files(tmp_path / "other")


@pytest.mark.parametrize("script, change, record", [
    ("corrupt-cifar.py", "os.rename .img.bin.tmp", "cifar-100-corrupt/corrupt.json"),
    ("noisy-cifar.py", "os.rename .cifar.npy.tmp", "noisy/cifar.json")])
def test_a_record_never_describes_files_of_another_run(work: Path, forks: Forks, script: str, change: str,
                                                       record: str) -> None:
    forks.kill(work, change, 0, f"robust/{script}", "--data", "data", "--rate", 0.1)
    assert json.loads((work / "data" / record).read_text()) == {"state": "unfinished"}
    with pytest.raises(BadInput, match=f"{record}: robust/{script} --dataset CIFAR100 was stopped before"):
        open_dataset("CIFAR100N" if "noisy" in script else "CIFAR100C", work / "data")
    run(forks, work, script, "--data", "data", "--rate", 0.1)


def copy_of(inside: Path, folder: Path, copy: Callable = shutil.copy2) -> Path:
    """A copy of Tiny ImageNet beside a link to the original."""
    (folder / "tiny-imagenet-200").symlink_to(inside / "tiny-imagenet-200")
    return shutil.copytree(inside / "tiny-imagenet-200", folder / "another-corrupt", copy_function=copy)


def refuse_corruption(forks: Forks, folder: Path, message: str) -> None:
    done = forks.start(folder.parent, "robust/corrupt-tiny.py", "--data", folder).finish()
    assert done.returncode == 2 and re.search(message, done.err) and done.err.count("\n") == 1, done.err


def test_half_a_corruption_is_neither_read_nor_resumed(inside: Path, tmp_path: Path, forks: Forks) -> None:
    """Killed where it is about to write an image."""
    folder = copy_of(inside, tmp_path)
    image = [name for name, kind in kinds_of_copy(inside).items() if kind != "clean"][20]
    forks.kill(tmp_path, f"open {Path(image).name}", 0, "robust/corrupt-tiny.py", "--data", folder)
    before = files(folder)
    refuse_corruption(forks, folder, "half corrupted, by a run that was stopped; delete the folder, copy")
    with pytest.raises(BadInput, match="delete the folder, copy tiny-imagenet-200 again with cp -r and run"):
        open_dataset("tinyC", folder)
    assert files(folder) == before


def test_the_original_is_never_corrupted(work: Path, tmp_path: Path, forks: Forks) -> None:
    folder = work / "data/tiny-imagenet-200"
    before = files(folder)
    (tmp_path / "link-corrupt").symlink_to(folder)
    other = shutil.copytree(folder, tmp_path / "tinyimagenet")  # an original by another name
    for path in (folder, tmp_path / "link-corrupt", other):
        refuse_corruption(forks, path, "is the original .*; copy it with cp -r")
    assert files(folder) == files(other) == before


def test_the_original_of_a_copy_by_hard_links_is_not_corrupted(inside: Path, tmp_path: Path,
                                                               forks: Forks) -> None:
    before = files(inside / "tiny-imagenet-200")
    folder = copy_of(inside, tmp_path, os.link)
    run(forks, tmp_path, "corrupt-tiny.py", "--data", folder)
    assert files(folder) == files(inside / "tiny-imagenet-200-corrupt")
    assert files(inside / "tiny-imagenet-200") == before


@pytest.mark.parametrize("part", ["train", "train/n00000012", "train/n00000009/images/n00000009_0.JPEG"])
def test_links_out_of_the_copy_are_never_corrupted(inside: Path, tmp_path: Path, forks: Forks,
                                                   part: str) -> None:
    folder = copy_of(inside, tmp_path)
    shutil.move(folder / part, tmp_path / "outside")
    (folder / part).symlink_to(tmp_path / "outside")
    before = files(tmp_path)
    refuse_corruption(forks, folder, "a link that leads out of the copy, so its target would be corrupted")
    assert files(tmp_path) == before


# Files that do not fit; tests/test_bad_input.py has more, hostile ones too

IMAGES = np.zeros((TRAIN, 32, 32, 3), np.uint8)
TINY_PIXELS = np.zeros((TINY_IMAGES, 64, 64, 3), np.uint8)
LABELS = [0] * TRAIN
BAD = [
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", None, "missing; make it with robust/corrupt-cifar.py"),
    ("tinyA", "attack/tiny_target.npy", None, "missing; make it with robust/attack-tiny.py"),
    ("tinyC", "tiny-imagenet-200-corrupt/corrupt.json", None, "run robust/corrupt-tiny.py on a copy"),
    ("tinyC", "tiny-imagenet-200-corrupt/corrupt.json", b"[" * 10 ** 5, "delete the folder, copy"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", IMAGES[1:], "not uint8 \\(200, 32, 32, 3\\)"),
    ("CIFAR100C", "cifar-100-corrupt/img.bin", LABELS, "list, not uint8"),
    ("CIFAR100C", "cifar-100-corrupt/targets.bin", LABELS[1:] + [CLASSES], "not 200 whole numbers"),
    ("CIFAR100A", "attack/cifar_train.npy", npy(np.zeros((TRAIN, 32, 32, 3), np.uint8))[:-5], "not an inta"),
    ("CIFAR100N", "noisy/cifar.npy", np.zeros(TRAIN), "not 200 whole numbers"),
    ("tinyA", "attack/tiny_target.npy", np.zeros(TINY_IMAGES - 1, int), "not 48 whole numbers from 0 to 2"),
    ("tinyN", "noisy/tiny_img.npy", TINY_PIXELS.astype(np.int16), "not uint8"),
    ("tinyN", "noisy/tiny_target.npy", np.full(TINY_IMAGES, -1), "not 48 whole numbers"),
]


@pytest.mark.parametrize("dataset, name, content, message", BAD)
def test_files_that_do_not_fit_are_refused(work: Path, dataset: str, name: str, content: Any, message: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    path = work / "data" / name
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
    assert "\n" not in str(error.value)


COMMANDS_REFUSED = [
    ("corrupt-tiny.py", "corrupted already"),
    (f"attack-cifar.py --arch {NAME} --eps 0.5/255", "--eps"),
    (f"attack-tiny.py --arch {NAME} --ckpt {CKPT.format('CIFAR100')}", "best.pth: trained for 5 classes"),
]


@pytest.mark.parametrize("command, culprit", COMMANDS_REFUSED)
def test_bad_input_gets_one_line_and_overwrites_nothing(work: Path, forks: Forks, command: str,
                                                        culprit: str) -> None:
    name, *options = command.split()
    before = files(work / "data")
    done = forks.start(work, f"robust/{name}", *options, "--data", "data").finish()
    assert done.returncode == 2 and culprit in done.err, done.err
    assert done.err.startswith(f"{name}: error: ") and done.err.count("\n") == 1
    assert files(work / "data") == before
