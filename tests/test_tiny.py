"""Tiny ImageNet: the reader, the transforms, the recipe, and the documented commands through a shell."""
import csv
import json
import math
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

import train
from conftest import ROOT, TINY_TRAIN, TINY_VAL, TINY_WNIDS, write_tiny
from datasets import SOURCES, DataSet, open_dataset
from datasets.pipeline import EvaluationBatches, TrainingBatches
from datasets.tiny import scan_start
from datasets.transforms import RandomResizedCrop
from files import BadInput, load_checkpoint

N = TINY_TRAIN * len(TINY_WNIDS)


@pytest.fixture
def folder(tmp_path: Path, tiny: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / tiny.name))


@pytest.fixture(scope="module")
def data(tiny: Path) -> DataSet:
    return open_dataset("tiny", tiny)


def test_recipe_is_the_papers() -> None:
    recipe = SOURCES["tiny"].recipe
    rates = [recipe.learning_rate(0.1, epoch, 90) for epoch in range(90)]
    assert rates == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30)
    assert recipe.weight_decay == 1e-4 and recipe.clip_norm == 1
    assert SOURCES["CIFAR100"].recipe.clip_norm is None


def test_ids_follow_class_folder_then_file_name_and_labels_the_wnids(data: DataSet, tiny: Path) -> None:
    expected = [(path, label) for label, wnid in enumerate(sorted(TINY_WNIDS))
                for path in sorted(map(str, (tiny / "train" / wnid / "images").iterdir()))]
    assert list(zip(data.train.names, data.train.labels.tolist())) == expected
    names = [Path(name).name for name in data.train.names[:4]]
    assert names == [f"n00000009_{i}.JPEG" for i in (0, 1, 10, 11)]
    assert data.train.labels.dtype == data.test.labels.dtype == np.int32
    assert data.classes == ["goldfish", "n00000012", "n00000101"] and not data.small_images
    reference = [np.asarray(Image.open(path).convert("RGB"), int) for path, _ in expected]
    pixels = data.train.pixels(np.arange(N))
    assert pixels.dtype == np.uint8 and np.abs(pixels - reference).max() <= 2
    assert any(Image.open(path).mode == "L" for path, _ in expected)


def regroup(folder: Path) -> None:
    assert subprocess.run(["bash", ROOT / "convert-tiny.sh", folder], capture_output=True).returncode == 0


def regroup_within_images_folders(folder: Path) -> None:
    regroup(folder)
    for wnid in TINY_WNIDS:
        (folder / "val" / wnid).rename(folder / "val/images")
        (folder / "val" / wnid).mkdir()
        (folder / "val/images").rename(folder / "val" / wnid / "images")


def regroup_in_part(folder: Path) -> None:
    (folder / "val/n00000012").mkdir()
    (folder / "val/images/val_1.JPEG").rename(folder / "val/n00000012/val_1.JPEG")


@pytest.mark.parametrize("change", [regroup, regroup_within_images_folders, regroup_in_part])
def test_every_layout_reads_the_same(folder: Path, data: DataSet, change: Callable[[Path], None]) -> None:
    change(folder)
    other = open_dataset("tiny", folder)
    assert other.train.sha256() == data.train.sha256() and other.test.sha256() == data.test.sha256()
    assert other.test.labels.tolist() == [label for label in range(3) for _ in range(TINY_VAL)]


def test_fewer_classes_than_wnids_txt_names(folder: Path, capsys: pytest.CaptureFixture) -> None:
    regroup(folder)
    for part in ("train", "val"):
        shutil.rmtree(folder / part / "n00000009")
    data = open_dataset("tiny", folder)
    assert data.classes == ["n00000012", "n00000101"] and set(data.train.labels) == {0, 1}
    assert "wnids.txt names 3 classes, train has 2" in capsys.readouterr().out


def append(path: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / path).open("a") as file:
            file.write(text)
    return change


def rewrite(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def link_out(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        outside = shutil.move(folder / path, folder.parent / "outside")
        (folder / path).symlink_to(outside)
    return change


def save_image(path: str, *image: object) -> Callable[[Path], None]:
    return lambda folder: Image.new(*image).save(folder / path, format="JPEG")


def empty(path: str) -> Callable[[Path], None]:
    return lambda folder: [image.unlink() for image in (folder / path).iterdir()]


FIRST = "train/n00000009/images/n00000009_0.JPEG"
BAD = [
    (lambda folder: shutil.rmtree(folder / "train"),
     "train: missing; download http://cs231n.stanford.edu/tiny"),
    (lambda folder: shutil.rmtree(folder / "val"), "val: missing; download http://cs231n.stanford.edu/tiny"),
    (lambda folder: shutil.rmtree(folder / "val/images"), "val_0.JPEG: missing"),
    (lambda folder: [shutil.rmtree(folder / "train" / wnid) for wnid in TINY_WNIDS],
     "train: holds no class folder"),
    (empty("train/n00000012/images"), "train/n00000012: holds no .JPEG image"),
    (lambda folder: shutil.rmtree(folder / "train/n00000012"),
     "val_1.JPEG: its class n00000012 has no folder in"),
    (lambda folder: (folder / "val/val_annotations.txt").unlink(), "val_annotations.txt: missing"),
    (append("val/val_annotations.txt", "../../train/x.JPEG\tn00000009\n"), "val_annotations.txt: line 13"),
    (append("val/val_annotations.txt", "/etc/x.JPEG\tn00000009\n"), "val_annotations.txt: line 13"),
    (append("val/val_annotations.txt", "val_0.JPEG\t../train\n"), "val_annotations.txt: line 13"),
    (append("val/val_annotations.txt", "val_0.JPEG\tn00000012\n"), "val_annotations.txt: line 13"),
    (append("val/val_annotations.txt", "val_99.JPEG\tn00000012\n"), "val_99.JPEG: missing"),
    (lambda folder: [subprocess.run(["bash", ROOT / "convert-tiny.sh", folder], check=True),
                     (folder / "val/n00000009/val_0.JPEG").unlink()], "val_0.JPEG: missing"),
    (rewrite("val/val_annotations.txt", lambda content: content[content.index(b"\n") + 1:]),
     "val_0.JPEG: not in"),
    (lambda folder: [(folder / "val/n00000009").mkdir(),
                     shutil.copy(folder / "val/images/val_0.JPEG", folder / "val/n00000009")],
                     "val_0.JPEG: also in"),
    (link_out(FIRST), "n00000009_0.JPEG: a link that leads out"),
    (link_out("train/n00000009"), "train/n00000009: a link that leads out"),
    (link_out("train/n00000009/images"), "train/n00000009/images: a link that leads out"),
    (link_out("val/images"), "val/images: a link that leads out"),
    (link_out("train"), "train: a link that leads out"),
    (link_out("words.txt"), "words.txt: a link that leads out"),
    (lambda folder: [(folder / FIRST).unlink(), os.mkfifo(folder / FIRST)], "n00000009_0.JPEG: not a file"),
    (lambda folder: (folder / "train/backup").mkdir(), "train/backup: not a class"),
    (rewrite(FIRST, lambda _: b"text"), "n00000009_0.JPEG: not a JPEG"),
    (rewrite(FIRST, lambda _: b"\xff\xd8" + bytes(2 ** 21)), "n00000009_0.JPEG: not a JPEG"),
    (rewrite(FIRST, lambda content: content[:-100]), "n00000009_0.JPEG: truncated"),
    # these four crash MindSpore's decoder
    (rewrite(FIRST, lambda content: content[:500] + b"\xff\xd9"), "n00000009_0.JPEG: a damaged JPEG"),
    (rewrite(FIRST, lambda content: content[:content.index(b"\xff\xda") + 2] + b"\xff\xd9"),
     "_0.JPEG: a damaged JPEG"),
    (rewrite(FIRST, lambda content: content.replace(b"\xff\xdb", b"\xff\xfe")), "_0.JPEG: a damaged JPEG"),
    (rewrite(FIRST,
             lambda content: content[:scan_start(content) - 9] + b"\x33" + content[scan_start(content) - 8:]),
     "_0.JPEG: a damaged JPEG"),
    (save_image(FIRST, "RGB", (64, 63)), "n00000009_0.JPEG: not an image of 64x64"),
    (save_image(FIRST, "CMYK", (64, 64)), "n00000009_0.JPEG: not an image of 64x64 pixels, grey or coloured"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_bad_input_is_named_in_one_line(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(BadInput) as error:
        open_dataset("tiny", folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_damaged_data_of_a_whole_header_is_decoded(folder: Path) -> None:
    content = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(content[:scan_start(content) + 20] + b"\xff\xd9")
    assert open_dataset("tiny", folder).train.pixels([0]).shape == (1, 64, 64, 3)


def test_features_see_the_images_as_they_are(data: DataSet) -> None:
    index, images, labels = zip(*EvaluationBatches(data, data.train, 32))
    assert np.concatenate(index).tolist() == [*range(N), *[-1] * 16]
    assert labels[0].tolist() == [0] * 16 + [1] * 16
    expected = (data.train.pixels([33]).transpose(0, 3, 1, 2) / 255 - np.array(data.mean)[:, None, None]) / (
        np.array(data.std)[:, None, None])
    assert np.abs(images[1][1] - expected).max() < 1e-5


def test_evaluation_resizes_to_73_and_crops_the_centre(data: DataSet) -> None:
    (_, images, _), = EvaluationBatches(data, data.test, N, data.test_transform)
    assert images.shape == (12, 3, 64, 64) and images.dtype == np.float32 and images.flags.c_contiguous
    for image, pixels in zip(images, data.test.pixels(np.arange(12))):
        resized = np.asarray(Image.fromarray(pixels).resize((73, 73), Image.Resampling.BILINEAR))[4:68, 4:68]
        found = (image.transpose(1, 2, 0) * np.array(data.std) + np.array(data.mean)) * 255
        assert np.abs(found - resized).max() < 1.01  # Pillow's filter rounds twice, MindSpore's once


def torchvision_box(generator: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """One box as torchvision's RandomResizedCrop.get_params describes it, drawn one number at a time."""
    for _ in range(10):
        area = height * width * generator.uniform(0.08, 1)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return generator.integers(height - h + 1), generator.integers(width - w + 1), h, w
    low, high = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - low) // 2, (width - high) // 2, low, high


@pytest.mark.parametrize("height, width", [(64, 64), (20, 64)])
def test_boxes_are_drawn_as_torchvision_draws_them(height: int, width: int) -> None:
    n = 5000
    top, left, h, w = RandomResizedCrop(55, 64).draw(np.random.default_rng(0), n, height, width)
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    generator = np.random.default_rng(1)
    expected = np.array([torchvision_box(generator, height, width) for _ in range(n)]).T
    for found, other in zip((top, left, h, w, h * w, w / h), (*expected, expected[2] * expected[3],
                                                             expected[3] / expected[2])):
        values = np.unique(np.concatenate([found, other]))
        steps = [np.searchsorted(np.sort(part), values, side="right") / n for part in (found, other)]
        # Kolmogorov-Smirnov, one in a thousand.
        assert np.abs(steps[0] - steps[1]).max() < 1.95 * math.sqrt(2 / n)


def test_a_crop_that_never_fits_is_the_central_one() -> None:
    crop = RandomResizedCrop(55, 64, scale=(3.0, 3.0))
    assert crop.draw(np.random.default_rng(0), 2, 64, 64).T.tolist() == [[0, 0, 64, 64]] * 2
    assert crop.draw(np.random.default_rng(0), 1, 30, 64).T.tolist() == [[0, 12, 30, 40]]


def test_training_batches_cut_resize_flip_in_order(data: DataSet) -> None:
    keep = np.arange(1, N, 2)
    batches = TrainingBatches(data, keep, 10, seed=3)
    epoch = list(batches.epoch(5))
    assert [len(labels) for _, _, labels in epoch] == [10, 10, 4] and len(batches) == 3
    index = np.concatenate([batch[0] for batch in epoch])
    assert sorted(index) == keep.tolist() and index.tolist() != keep.tolist()
    assert (np.concatenate([batch[2] for batch in epoch]) == data.train.labels[index]).all()
    generator = np.random.default_rng([3, 5])
    assert (generator.permutation(keep) == index).all()
    flips = set()
    for ids, images, _ in epoch:
        assert images.shape[1:] == (3, 64, 64) and images.dtype == np.float32 and images.flags.c_contiguous
        boxes = data.train_transform.draw(generator, len(ids), 64, 64).T
        flip = generator.random(len(ids)) < 0.5
        flips |= set(flip)
        for image, i, (top, left, height, width), flipped in zip(images, ids, boxes, flip):
            part = data.train.pixels([i])[0, top:top + height, left:left + width]
            small = Image.fromarray(part).resize((55, 55), Image.Resampling.BILINEAR)
            expected = np.asarray(small.resize((64, 64), Image.Resampling.BILINEAR), float)
            expected = expected[:, ::-1] if flipped else expected
            found = (image.transpose(1, 2, 0) * np.array(data.std) + np.array(data.mean)) * 255
            assert np.abs(found - expected).mean() < 1  # Pillow also smooths what it shrinks
    assert flips == {True, False}


def test_epochs_depend_on_seed_and_number_alone(data: DataSet) -> None:
    def pixels(seed: int, *numbers: int) -> bytes:
        batches = TrainingBatches(data, np.arange(N), 16, seed)
        return [b"".join(image.tobytes() for _, image, _ in batches.epoch(number)) for number in numbers][-1]

    assert pixels(1, 3) == pixels(1, 0, 1, 3)
    assert pixels(1, 3) != pixels(1, 4) and pixels(1, 3) != pixels(2, 3)


def test_arrays_and_files_of_the_same_images_give_the_same_batches(data: DataSet) -> None:
    from dataclasses import replace
    array = replace(data, train=replace(data.train, images=data.train.pixels(np.arange(N))))
    for one, other in zip(TrainingBatches(data, np.arange(N), 32, 0).epoch(0),
                          TrainingBatches(array, np.arange(N), 32, 0).epoch(0)):
        assert all((a == b).all() for a, b in zip(one, other))


@pytest.mark.parametrize("size", [3.0, 1.0, 0.01])
def test_gradients_are_clipped_by_their_common_norm(size: float) -> None:
    parts = [np.full((4, 5), size, np.float32), np.full(5, -2 * size, np.float32)]
    norm = size * math.sqrt(40)
    found = train.clip_gradients(tuple(map(ms.Tensor, parts)), 1.0)
    for part, clipped in zip(parts, found):
        assert clipped.asnumpy() == pytest.approx(part * min(1, 1 / (norm + 1e-6)), rel=1e-6)


def test_the_compiled_step_clips() -> None:
    start = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    images, labels = ms.Tensor([[30.0, -20.0]]), ms.Tensor([1], ms.int32)
    moves = []
    for clip_norm in (None, 1.0, 1000.0):
        network = ms.nn.Dense(2, 2, weight_init=ms.Tensor(start), has_bias=False)
        optimizer = train.make_optimizer(network, 0.0, 0.5)
        train.make_train_step(network, optimizer, clip_norm)(images, labels)
        moves.append((start - network.weight.asnumpy()) / 0.5)
    norm = np.linalg.norm(moves[0])
    assert norm > 1 and moves[1] == pytest.approx(moves[0] / norm, rel=1e-4) and (moves[2] == moves[0]).all()


def test_the_documented_commands(tmp_path: Path, script) -> None:
    folder = write_tiny(tmp_path / "data")
    regroup(folder)
    base = ("--dataset", "tiny", "--data", "data/tiny-imagenet-200", "--arch", "resnet18")
    training = (*base, "--epoch", 1, "--batch_size", 16)
    outputs = []
    for name, *options in (("train.py", *training),
                           ("selection.py", *base, "--ckpt", "ckpt/tiny/resnet18/best.pth", "--rate", 2 / 3),
                           ("train.py", *training, "--prune", "index/tiny.bin")):
        result = script(name, tmp_path, *options)
        assert result.returncode == 0 and not result.stderr, result.stderr
        outputs.append(result.stdout)
    assert f"tiny: {N} of {N} training images, 12 test images, 3 classes" in outputs[0]
    assert f"tiny: 32 of {N} training images" in outputs[2]
    assert load_checkpoint(tmp_path / "ckpt/tiny/resnet18/best.pth")["classifier.bias"].shape == (3,)
    drop = pickle.loads((tmp_path / "index/tiny.bin").read_bytes())
    manifest = json.loads((tmp_path / "index/tiny.json").read_text())
    assert len(drop) == 16 and manifest["images"] == N and manifest["dataset"] == "tiny"
    assert len(Image.open(tmp_path / "index/tiny.png").getcolors(10 ** 6)) > 100
    with open(next((tmp_path / "ckpt/tiny/resnet18").glob("coreset-*/log.csv"))) as file:
        assert [row["lr"] for row in csv.DictReader(file)] == ["0.1"]


def test_bad_input_leaves_nothing_behind(folder: Path, tmp_path: Path, script) -> None:
    (folder / FIRST).write_bytes(b"no image")
    for data, culprit in ((folder, FIRST), (tmp_path / "nowhere", "nowhere/train: missing")):
        result = script("train.py", tmp_path, "--dataset", "tiny", "--data", data)
        assert result.returncode == 2 and culprit in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "ckpt").exists()
