"""robust/'s scripts through a shell, in their own project, and the data sets that read what they write."""
import io
import itertools
import json
import os
import pickle
import re
import shutil
import signal
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

from conftest import CLASSES, TINY_TRAIN, TINY_WNIDS, TRAIN, write_cifar, write_tiny
from datasets import SCENES, DataSet, open_dataset
from forks import ROOT, Forks
from models.checkpoint import save_checkpoint
from robust import attacks, in_place
from robust.attacks import Attack, Budget
from two_layers import NAME, TwoLayers
from utils.arrays import GrowingArray, GrowingArrays
from utils.files import BadInput

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


def make_project(root: Path) -> Path:
    """A copy of the project with one network more, small data sets, checkpoints as training puts them."""
    for part in ("datasets", "methods", "models", "robust", "utils"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/two_layers.py", root / "models")
    with open(root / "models/__init__.py", "a") as file:
        file.write("\nfrom models import two_layers\nNETWORKS[two_layers.NAME] = two_layers.TwoLayers\n")
    write_cifar(root / "data")
    shutil.copytree(write_tiny(root / "data"), root / "data/tiny-imagenet-200-corrupt")
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
    with ThreadPoolExecutor(2) as pool:
        outputs = pool.map(lambda command: run_inside(root, *command), INSIDE)
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


def test_two_runs_from_two_folders_write_the_same_bytes(project: Path, forks: Forks, tmp_path: Path) -> None:
    write_cifar(tmp_path / "data")
    shutil.copytree(write_tiny(tmp_path / "data"), tmp_path / "data/tiny-imagenet-200-corrupt")
    shutil.copytree(project / "ckpt", tmp_path / "ckpt")
    for command in OUTSIDE:
        run(forks, tmp_path, *command)
    inside, outside = files(project / "data"), files(tmp_path / "data")
    assert inside.keys() == outside.keys() and all(inside[name] == outside[name] for name in inside)


def test_the_scripts_write_these_files_alone(inside: Path, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    shutil.copytree(write_tiny(tmp_path), tmp_path / "tiny-imagenet-200-corrupt")
    assert files(inside).keys() - files(tmp_path).keys() == {
        *(f"cifar-100-corrupt/{name}" for name in ("img.bin", "targets.bin", "kinds.npy", "corrupt.json")),
        *(f"attack/{name}" for name in ("cifar_train.npy", "cifar.json", "tiny_img.npy", "tiny_target.npy",
                                        "tiny.json")),
        *(f"noisy/{name}" for name in ("cifar.npy", "cifar_changed.npy", "cifar.json", "tiny_img.npy",
                                       "tiny_target.npy", "tiny_changed.npy", "tiny.json")),
        "tiny-imagenet-200-corrupt/corrupt.json"}


def test_corrupted_cifar_has_the_releases_format(inside: Path) -> None:
    images, targets = (pickle.loads((inside / "cifar-100-corrupt" / name).read_bytes())
                       for name in ("img.bin", "targets.bin"))
    assert images.dtype == np.uint8 and images.shape == (TRAIN, 32, 32, 3)
    assert type(targets) is list and targets == open_dataset("CIFAR100", inside).train.labels.tolist()


def test_kinds_say_which_images_of_cifar_are_corrupted(inside: Path) -> None:
    images = pickle.loads((inside / "cifar-100-corrupt/img.bin").read_bytes())
    kinds = np.load(inside / "cifar-100-corrupt/kinds.npy")
    assert dict(zip(*np.unique(kinds, return_counts=True))) == {
        "clean": 140, "motion blur": 12, "fog": 12, "resolution": 12, "rectangle": 12, "gaussian": 12}
    changed = (images != open_dataset("CIFAR100", inside).train.images).any((1, 2, 3))
    assert (changed == (kinds != "clean")).all()


def test_attacked_cifar_has_the_releases_format(inside: Path) -> None:
    attacked = np.load(inside / "attack/cifar_train.npy")
    assert attacked.dtype == np.uint8 and attacked.shape == (TRAIN, 32, 32, 3)
    assert np.abs(attacked.astype(int) - open_dataset("CIFAR100", inside).train.images).max() == 8


def test_noisy_cifar_has_the_releases_format(inside: Path) -> None:
    noisy, changed = (np.load(inside / "noisy" / name) for name in ("cifar.npy", "cifar_changed.npy"))
    assert noisy.dtype == np.int64 and 0 < changed.sum() < 80
    assert ((noisy != open_dataset("CIFAR100", inside).train.labels) == changed).all()


def test_attacked_tiny_has_the_releases_format(inside: Path) -> None:
    clean = open_dataset("tiny", inside / "tiny-imagenet-200").train
    images, labels = (np.load(inside / "attack" / name) for name in ("tiny_img.npy", "tiny_target.npy"))
    assert images.dtype == np.uint8 and (labels == clean.labels).all()
    assert np.abs(images.astype(int) - clean.pixels(range(TINY_IMAGES))).max() == 8


def test_noisy_tiny_has_the_releases_format(inside: Path) -> None:
    clean = open_dataset("tiny", inside / "tiny-imagenet-200").train
    assert (np.load(inside / "noisy/tiny_img.npy") == clean.pixels(range(TINY_IMAGES))).all()
    changed = np.load(inside / "noisy/tiny_target.npy") != clean.labels
    assert (changed == np.load(inside / "noisy/tiny_changed.npy")).all() and 0 < changed.sum() < 24


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
    assert f"{attack['accuracy_before']:.2f} % before, {attack['accuracy_after']:.2f} % after" in output
    assert "60 of 200 images corrupted: 12 motion blur, 12 fog" in output
    assert "45 of 48 images corrupted" in output
    assert re.search(r"cifar.npy: \d+ of 200 labels changed, [\d.]+ %", output) and "\r" not in output


def kinds_of_copy(inside: Path) -> dict[str, str]:
    note = json.loads((inside / "tiny-imagenet-200-corrupt/corrupt.json").read_text())
    assert note["state"] == "finished"
    return note["kinds"]


def test_a_corrupted_copys_note_says_which_images_are_corrupted(inside: Path) -> None:
    before, after = (files(inside / name) for name in ("tiny-imagenet-200", "tiny-imagenet-200-corrupt"))
    changed = {name for name in before if before[name] != after[name]}
    kinds = kinds_of_copy(inside)
    assert changed == {name for name, kind in kinds.items() if kind != "clean"}
    assert len(changed) == 45 and len(kinds) == TINY_IMAGES


def test_a_corrupted_image_is_a_jpeg_file_that_names_its_corruption(inside: Path) -> None:
    name = next(name for name, kind in kinds_of_copy(inside).items() if kind == "rectangle")
    with Image.open(inside / "tiny-imagenet-200-corrupt" / name) as image:
        assert image.format == "JPEG" and image.info["comment"].endswith(b": rectangle")
        assert np.asarray(image)[8:42, 8:42].max() < 12


def clean_and_scene(project: Path, name: str) -> tuple[DataSet, DataSet]:
    parent = next(parent for parent, scenes in SCENES.items() if name in scenes)
    folder = project / ("data" if parent == "CIFAR100" else "data/tiny-imagenet-200")
    return open_dataset(parent, folder), open_dataset(name, project / FOLDER[name])


@pytest.mark.parametrize("name", FOLDER)
def test_evaluation_is_on_the_clean_test_set(project: Path, name: str) -> None:
    clean, scene = clean_and_scene(project, name)
    ids = range(len(clean.test.labels))
    assert (scene.test.pixels(ids) == clean.test.pixels(ids)).all()
    assert (scene.test.labels == clean.test.labels).all()


@pytest.mark.parametrize("name", FOLDER)
def test_training_images_or_labels_are_perturbed_and_not_both(project: Path, name: str) -> None:
    clean, scene = clean_and_scene(project, name)
    ids = range(len(clean.train.labels))
    images = (scene.train.pixels(ids) != clean.train.pixels(ids)).any()
    labels = (scene.train.labels != clean.train.labels).any()
    assert (images, labels) == ((False, True) if name.endswith("N") else (True, False))


@pytest.mark.parametrize("name", FOLDER)
def test_a_scene_is_trained_on_as_its_clean_set(project: Path, name: str) -> None:
    clean, scene = clean_and_scene(project, name)
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


def test_labels_of_the_first_classes_alone_are_changed(work: Path, forks: Forks) -> None:
    run(forks, work, "noisy-cifar.py", "--data", "data", "--classes", 2)
    changed = np.load(work / "data/noisy/cifar_changed.npy")
    labels = open_dataset("CIFAR100", work / "data").train.labels
    assert changed.any() and labels[changed].max() == 1
    assert json.loads((work / "data/noisy/cifar.json").read_text())["classes"] == 2


def test_share_is_another_name_of_rate(work: Path, forks: Forks) -> None:
    written = []
    for option in ("--rate", "--share"):
        run(forks, work, "noisy-cifar.py", "--data", "data", option, "0.5")
        written.append(files(work / "data/noisy"))
    assert written[0] == written[1] and json.loads(written[0]["cifar.json"])["rate"] == 0.5


# Which fraction of a coreset is perturbed

def table(output: str) -> list[list[str]]:
    """The rows of a Markdown table, without the rule."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in output.splitlines() if line.startswith("|")]
    assert set("".join(rows.pop(1))) == {"-"}
    return rows


NOISY = ("--dataset", "CIFAR100N", "--data", "data")
NOISY_CKPT = f"ckpt/CIFAR100N/{NAME}/best.pth"


@pytest.fixture(scope="module")
def trained(project: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with noisy data and a network trained on them."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(project / "data", folder / "data")
    done = forks.start(folder, "train.py", *NOISY, "--arch", NAME, "--epoch", 3, "--lr", 0.001).finish()
    assert done.returncode == 0 and not done.err, done.err
    return folder


def test_kept_share_counts_what_selection_keeps(trained: Path, forks: Forks) -> None:
    """Marks counted by hand."""
    rates, methods = ("0.2", "0.6"), ("random", "moderate", "el2n")
    noisy, clean = (open_dataset(name, trained / "data").train.labels for name in ("CIFAR100N", "CIFAR100"))
    expected = [["method", "keep 20 %", "keep 60 %"]]
    for method in methods:
        expected.append([method])
        for rate in rates:
            done = forks.start(trained, "selection.py", *NOISY, "--ckpt", NOISY_CKPT, "--method", method,
                               "--rate", rate).finish()
            assert done.returncode == 0, done.err
            name = "CIFAR100N.bin" if method == "moderate" else f"CIFAR100N-{method}.bin"
            kept = set(range(TRAIN)) - set(pickle.loads((trained / "index" / name).read_bytes()).tolist())
            assert len(kept) == float(rate) * TRAIN
            expected[-1].append(f"{100 * sum(noisy[i] != clean[i] for i in kept) / len(kept):.1f} %")
    output = run(forks, trained, "kept-share.py", *NOISY, "--ckpt", NOISY_CKPT, "--methods", *methods,
                 "--rates", *rates, "--save", "index")
    assert table(output) == expected


def test_a_dash_stands_where_a_method_cannot_keep_as_many(trained: Path, forks: Forks) -> None:
    output = run(forks, trained, "kept-share.py", *NOISY, "--ckpt", NOISY_CKPT, "--methods", "ccs",
                 "--rates", "0.8", "0.9", "--save", "index")
    assert re.fullmatch(r"[\d.]+ %", table(output)[1][1]) and table(output)[1][2] == "-"


def changed_labels(inside: Path, name: str, parent: str, folder: Path) -> float:
    return (np.load(inside / "noisy" / name) != open_dataset(parent, folder).train.labels).mean()


PERTURBED = {
    "CIFAR100N": ("mislabelled", lambda inside: changed_labels(inside, "cifar.npy", "CIFAR100", inside)),
    "tinyN": ("mislabelled", lambda inside: changed_labels(inside, "tiny_target.npy", "tiny",
                                                           inside / "tiny-imagenet-200")),
    "CIFAR100C": ("corrupted", lambda inside: 60 / TRAIN),
    "tinyC": ("corrupted", lambda inside: 45 / TINY_IMAGES),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_all_images_of_a_set_are_perturbed_as_much_as_its_script_said(work: Path, forks: Forks,
                                                                      name: str) -> None:
    word, count = PERTURBED[name]
    images = TINY_IMAGES if name.startswith("tiny") else TRAIN
    output = run(forks, work, "kept-share.py", "--dataset", name, "--data", "data", "--arch", NAME, "--ckpt",
                 CKPT.format("tiny" if name.startswith("tiny") else "CIFAR100"), "--methods", "random",
                 "--rates", "1", "0", "--save", "index")
    percent = f"{100 * count(work / 'data'):.1f} %"
    assert f"the fraction that is {word}; of all {images} images {percent}" in output
    assert table(output)[1] == ["random", percent, "-"]


def test_a_network_of_images_of_another_size_is_not_attacked(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text('{"image_size": 16}')
    with pytest.raises(BadInput, match="best.pth: trained on images of 16x16 pixels, not on those of 32x32"):
        attacks.load_attacked(open_dataset("CIFAR100", cifar), NAME, tmp_path / "best.pth")


def test_marks_of_other_labels_are_refused(work: Path, forks: Forks) -> None:
    labels = np.load(work / "data/noisy/cifar.npy")
    np.save(work / "data/noisy/cifar.npy", (labels + 1) % CLASSES)
    done = forks.start(work, "robust/kept-share.py", "--data", "data", "--arch", NAME, "--ckpt",
                       CKPT.format("CIFAR100"), "--save", "index").finish()
    assert done.returncode == 2 and "noisy/cifar.json: of other images or labels than" in done.err


# Settings

def settings() -> dict[tuple[str, int], str]:
    """The table of constants in robust/README.md: script and line to text."""
    text = (ROOT / "robust/README.md").read_text()
    found = re.findall(r"`(robust/[\w-]+\.py)` line (\d+): `([^`]+)`", text)
    return {(name, int(line)): text for name, line, text in found}


def test_the_readme_names_the_settings_of_all_scripts() -> None:
    assert settings().keys() == {("robust/corrupt-cifar.py", 16), ("robust/corrupt-cifar.py", 19),
                                 ("robust/corrupt-tiny.py", 18), ("robust/attack-cifar.py", 18),
                                 ("robust/attack-tiny.py", 18), ("robust/noisy-cifar.py", 7),
                                 ("robust/noisy-tiny.py", 9)}


@pytest.mark.parametrize("name, line", settings())
def test_a_setting_stands_on_the_line_that_the_readme_names(name: str, line: int) -> None:
    assert (ROOT / name).read_text().splitlines()[line - 1].split("  #")[0] == settings()[name, line]


def test_an_edited_constant_is_obeyed(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    path = project / "robust/corrupt-cifar.py"
    text = path.read_text().replace("RATE = 0.06", "RATE = 0.1")
    path.write_text(text.replace('"cifar-100-corrupt"', '"other"'))
    said = run_inside(project, "corrupt-cifar.py")
    assert "100 of 200 images corrupted" in said and "CIFAR100C reads" in said
    assert (project / "data/other/img.bin").exists()


# Runs that are stopped

@pytest.mark.parametrize("batches", [0, 3])
def test_a_killed_attack_goes_on_and_gives_the_same_bytes(work: Path, forks: Forks, batches: int) -> None:
    """Killed while it writes the images of a batch."""
    whole = files(work / "data/attack")
    shutil.rmtree(work / "data/attack")
    command = ("robust/attack-cifar.py", *OUTSIDE[2][1:])
    stop = {"places": str(work / "places"), "change": "open .cifar_train.images.npy",
            "bytes": 128 + 32 * 3072 * batches + 5000}
    killed = forks.start(work, *command, stop=stop).finish()
    assert killed.returncode == -signal.SIGXFSZ, killed.err
    resumed = forks.start(work, *command).finish()
    assert resumed.returncode == 0, resumed.err
    assert resumed.out.count(f"going on after image {32 * batches} of {TRAIN}") == (batches > 0)
    assert files(work / "data/attack") == {name: whole[name] for name in ("cifar_train.npy", "cifar.json")}


class Stop(BaseException):
    pass


FewSteps = Callable[..., None]


@pytest.fixture
def attack(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FewSteps:
    """attack(folder, steps=2): PGD on CIFAR-100 without a network, its signs and labels from the pixels."""
    monkeypatch.setattr(attacks, "load_network", lambda *_: None)
    monkeypatch.setattr(attacks, "make_gradient_sign",
                        lambda *_: lambda x, _: np.sign(np.sin(x)).astype(np.float32))
    monkeypatch.setattr(attacks, "make_predict", lambda *_: lambda pixels: pixels[:, 3, 3, 0] % CLASSES)
    data = open_dataset("CIFAR100", inside)
    checkpoint = tmp_path / "x.pth"
    checkpoint.write_text("weights")

    def run_attack(folder: str, steps: int = 2) -> None:
        attacks.attack_to_file(data, tmp_path / folder / "cifar_train.npy", tmp_path / folder / "cifar.json",
                               Attack("PGD", Budget(steps=steps), "resnet20", checkpoint, "CPU", 64, 7))

    return run_attack


def test_an_attack_may_be_stopped_at_any_moment(attack: FewSteps, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before, amid and after each change of a file, and run again."""
    attack("whole")
    whole = files(tmp_path / "whole")
    real_write, real_unlink, real_replace = GrowingArray._write, Path.unlink, os.replace

    def stop_after(moments: int) -> bool:
        """Whether the attack was finished before."""
        left = iter(range(moments))

        def step() -> None:
            if next(left, None) is None:
                raise Stop

        def write(self: GrowingArray, position: int, content: bytes | memoryview) -> None:
            half = len(content) // 2
            for start, part in ((0, content[:half]), (half, content[half:])):
                step()
                real_write(self, position + start, part)

        with monkeypatch.context() as patch:
            patch.setattr(GrowingArray, "_write", write)
            patch.setattr(os, "replace", lambda *names: (step(), real_replace(*names), step()))
            patch.setattr(Path, "unlink", lambda path, **options: (
                step() if path.suffix in (".json", ".npy") else None, real_unlink(path, **options)))
            try:
                attack("stopped")
            except Stop:
                return False
        return True

    for moments in itertools.count():
        if stop_after(moments):
            break
        attack("stopped")
        assert files(tmp_path / "stopped") == whole, moments
        shutil.rmtree(tmp_path / "stopped")
    assert moments > 40


def stop_at_third_batch(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    real, calls = GrowingArrays.append, iter(range(2))

    def append(self: GrowingArrays, **rows: np.ndarray) -> None:
        if next(calls, None) is None:
            raise error
        real(self, **rows)

    patch.setattr(GrowingArrays, "append", append)


def test_an_attack_stopped_before_its_end_is_not_made_again(attack: FewSteps, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture) -> None:
    """While a large file's SHA-256 is computed, too."""
    with monkeypatch.context() as patch, pytest.raises(Stop):
        real = attacks.sha256

        def stop(path: Path) -> str:
            if path.suffix == ".npy":
                raise Stop
            return real(path)

        patch.setattr(attacks, "sha256", stop)
        attack("stopped")
    attack("stopped")
    assert f"going on after image {TRAIN} of {TRAIN}" in capsys.readouterr().out


def test_two_places_with_a_scenes_files_are_refused(inside: Path, tmp_path: Path) -> None:
    """Above the link that --data names, and above the folder that it leads to."""
    shutil.copytree(inside / "tiny-imagenet-200", tmp_path / "shared/tiny-imagenet-200")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tiny-imagenet-200").symlink_to(tmp_path / "shared/tiny-imagenet-200")
    shutil.copytree(inside / "noisy", tmp_path / "data/noisy")
    open_dataset("tinyN", tmp_path / "data/tiny-imagenet-200")
    shutil.copytree(inside / "noisy", tmp_path / "shared/noisy")
    with pytest.raises(BadInput, match="shared/noisy and .*data/noisy: both hold tiny_img.npy"):
        open_dataset("tinyN", tmp_path / "data/tiny-imagenet-200")


def test_an_unfinished_attack_with_other_settings_is_not_overwritten(attack: FewSteps, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at_third_batch(patch, Stop())
        attack("stopped")
    before = files(tmp_path / "stopped")
    with pytest.raises(BadInput, match="an unfinished attack with steps 2 .not 3.; finish it with those, or"):
        attack("stopped", steps=3)
    assert files(tmp_path / "stopped") == before


def test_ctrl_c_says_that_an_attack_goes_on(attack: FewSteps, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="same command goes on from"):
        stop_at_third_batch(patch, KeyboardInterrupt())
        attack("stopped")
    attack("stopped")
    assert "going on after image 128 of 200" in capsys.readouterr().out


def test_a_finished_attack_is_not_made_again(attack: FewSteps, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture) -> None:
    attack("whole")
    monkeypatch.setattr(attacks, "load_attacked", None)
    attack("whole")
    assert "cifar_train.npy: this attack is there already" in capsys.readouterr().out


def test_an_unfinished_attack_stays_when_a_finished_one_is_asked_for_again(
        attack: FewSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack("stopped")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at_third_batch(patch, Stop())
        attack("stopped", steps=3)
    before = files(tmp_path / "stopped")
    attack("stopped")
    assert files(tmp_path / "stopped") == before and ".cifar_train.images.npy" in before


def test_a_finished_attack_with_other_settings_is_replaced(attack: FewSteps, tmp_path: Path) -> None:
    attack("one", steps=3)
    attack("other")
    attack("other", steps=3)
    assert files(tmp_path / "one") == files(tmp_path / "other")


def copy_of(inside: Path, folder: Path) -> Path:
    """A copy of Tiny ImageNet beside a link to the original."""
    (folder / "tiny-imagenet-200").symlink_to(inside / "tiny-imagenet-200")
    return shutil.copytree(inside / "tiny-imagenet-200", folder / "another-corrupt")


def stop_corruption(folder: Path, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin to corrupt a copy and stop after some images."""
    real_replace, left = os.replace, iter(range(images))

    def replace_some(source: Path, target: Path) -> None:
        if str(target).endswith(".JPEG") and next(left, None) is None:
            raise Stop
        real_replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(os, "replace", replace_some)
        in_place.corrupt_copy(folder, 0.2, 42)


@pytest.mark.parametrize("images", [0, 1, 20, 44])
def test_a_stopped_corruption_goes_on(inside: Path, tmp_path: Path, images: int,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(inside, tmp_path)
    stop_corruption(folder, images, monkeypatch)
    in_place.corrupt_copy(folder, 0.2, 42)
    assert files(folder) == files(inside / "tiny-imagenet-200-corrupt")


def test_half_a_corruption_is_neither_read_nor_finished_otherwise(inside: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(inside, tmp_path)
    stop_corruption(folder, 20, monkeypatch)
    with pytest.raises(BadInput, match="corrupt-tiny.py again"):
        open_dataset("tinyC", folder)
    with pytest.raises(BadInput, match="half corrupted, with --rate 0.2 --seed 42"):
        in_place.corrupt_copy(folder, 0.2, 43)


def test_a_copy_is_not_corrupted_twice(work: Path) -> None:
    folder = work / "data/tiny-imagenet-200-corrupt"
    with pytest.raises(BadInput, match="corrupted already, with --rate 0.2 --seed 42"):
        in_place.corrupt_copy(folder, 0.2, 42)
    (folder / "corrupt.json").unlink()
    with pytest.raises(BadInput, match="corrupted already, but .* is missing"):
        in_place.corrupt_copy(folder, 0.2, 42)


def test_the_original_is_never_corrupted(work: Path, tmp_path: Path) -> None:
    folder = work / "data/tiny-imagenet-200"
    before = files(folder)
    (tmp_path / "link-corrupt").symlink_to(folder)
    other = shutil.copytree(folder, tmp_path / "tinyimagenet")  # an original by another name
    for path in (folder, tmp_path / "link-corrupt", other):
        with pytest.raises(BadInput, match="is the original .*; copy it with cp -r"):
            in_place.corrupt_copy(path, 0.2, 42)
    assert files(folder) == files(other) == before


@pytest.mark.parametrize("part", ["train", "train/n00000012", "train/n00000009/images/n00000009_0.JPEG"])
def test_links_out_of_the_copy_are_never_corrupted(inside: Path, tmp_path: Path, part: str) -> None:
    folder = copy_of(inside, tmp_path)
    shutil.move(folder / part, tmp_path / "outside")
    (folder / part).symlink_to(tmp_path / "outside")
    before = files(tmp_path)
    with pytest.raises(BadInput, match="a link that leads out of the copy, so its target would be corrupted"):
        in_place.corrupt_copy(folder, 0.2, 42)
    assert files(tmp_path) == before


# Files that do not fit

class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("trap",)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


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
    assert "\n" not in str(error.value) and not (work / "trap").exists()


# Those that need data; tests/test_bad_input.py has more.
COMMANDS_REFUSED = [
    ("corrupt-tiny.py", "corrupted already"),
    ("corrupt-tiny.py --data data/tiny-imagenet-200", "is the original"),
    (f"attack-cifar.py --arch {NAME} --eps 0.5/255", "--eps"),
    (f"attack-tiny.py --arch {NAME} --ckpt {CKPT.format('CIFAR100')}", "best.pth: trained for 5 classes"),
    (f"kept-share.py --dataset tinyC --ckpt {CKPT.format('tiny')} --arch resnet18", "not a checkpoint of"),
    (f"kept-share.py --ckpt {CKPT.format('CIFAR100')} --arch {NAME} --methods el2n", "dynamics.npy: missing"),
]


@pytest.mark.parametrize("command, culprit", COMMANDS_REFUSED)
def test_bad_input_gets_one_line_and_overwrites_nothing(work: Path, forks: Forks, command: str,
                                                        culprit: str) -> None:
    name, *options = command.split()
    before = files(work / "data")
    done = forks.start(work, f"robust/{name}", *(() if "--data" in options else ("--data", "data")), *options,
                       *(("--save", "index") if name == "kept-share.py" else ())).finish()
    assert done.returncode == 2 and culprit in done.err, done.err
    assert done.err.startswith(f"{name}: error: ") and done.err.count("\n") == 1
    assert files(work / "data") == before
