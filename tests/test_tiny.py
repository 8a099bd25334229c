"""Tiny ImageNet: the reader, the transforms, the recipe, and the documented commands through a shell."""
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
from conftest import ROOT, TINY_TRAIN, TINY_WNIDS, write_tiny
from datasets import SOURCES, DataSet, open_dataset
from datasets.pipeline import EvaluationBatches, TrainingBatches
from datasets.transforms import RandomResizedCrop
from models.checkpoint import load_checkpoint
from test_models import golden
from utils.files import BadInput
from weights import make_pixels

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
    assert (recipe.weight_decay, recipe.clip_norm) == (1e-4, 1)


def test_ids_follow_class_folder_then_file_name(data: DataSet, tiny: Path) -> None:
    names = [f"{wnid}_{i}.JPEG" for wnid in ("n00000009", "n00000012", "n00000101")
             for i in (0, 1, 10, 11, 12, 13, 14, 15, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert [Path(name).name for name in data.train.names] == names
    assert Path(data.train.names[16]) == tiny / "train/n00000012/images/n00000012_0.JPEG"


def test_labels_follow_the_sorted_wnids(data: DataSet) -> None:
    assert data.train.labels.tolist() == [0] * 16 + [1] * 16 + [2] * 16
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.train.labels.dtype == data.test.labels.dtype == np.int32


def test_classes_have_their_first_word(data: DataSet) -> None:
    assert data.classes == ["goldfish", "n00000012", "n00000101"]


def test_images_are_pillows_pixels_also_of_grayscale_files(data: DataSet) -> None:
    images = [Image.open(name) for name in data.train.names]
    assert {image.mode for image in images} == {"L", "RGB"}
    pixels = data.train.pixels(np.arange(N))
    assert pixels.dtype == np.uint8
    assert all((found == np.asarray(image.convert("RGB"))).all() for found, image in zip(pixels, images))


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
    assert (other.train.sha256(), other.test.sha256()) == (data.train.sha256(), data.test.sha256())


FIRST = "train/n00000009/images/n00000009_0.JPEG"


@pytest.mark.parametrize("part", ["train", "val", "val/images", "train/n00000009", "train/n00000009/images",
                                  FIRST, "val/val_annotations.txt", "words.txt"])
def test_links_are_followed(folder: Path, tmp_path: Path, data: DataSet, part: str) -> None:
    outside = tmp_path / "scratch" / Path(part).name
    outside.parent.mkdir()
    shutil.move(folder / part, outside)
    (folder / part).symlink_to(outside)
    other = open_dataset("tiny", folder)
    assert (other.train.sha256(), other.test.sha256()) == (data.train.sha256(), data.test.sha256())
    assert other.classes == data.classes


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


def save_image(path: str, *image: object) -> Callable[[Path], None]:
    return lambda folder: Image.new(*image).save(folder / path, format="JPEG")


def empty(path: str) -> Callable[[Path], None]:
    return lambda folder: [image.unlink() for image in (folder / path).iterdir()]


def replace_file(path: str, by: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).unlink()
        by(folder / path)
    return change


def scan_start(content: bytes) -> int:
    """Where the image data of a JPEG file begin."""
    marker = content.index(b"\xff\xda")
    return marker + 2 + int.from_bytes(content[marker + 2:marker + 4], "big")


DAMAGED = "n00000009_0.JPEG: damaged, or not a JPEG image; put a whole file in its place"
BAD = [
    (lambda folder: shutil.rmtree(folder / "train"),
     "train: missing; download http://cs231n.stanford.edu/tiny"),
    (lambda folder: shutil.rmtree(folder / "val"), "val: missing; download http://cs231n.stanford.edu/tiny"),
    (lambda folder: shutil.rmtree(folder / "val/images"), "val_0.JPEG: missing; put it there"),
    (lambda folder: [shutil.rmtree(folder / "train" / wnid) for wnid in TINY_WNIDS],
     "train: holds no class folder"),
    (empty("train/n00000012/images"), "train/n00000012: holds no .JPEG image; put"),
    (lambda folder: shutil.rmtree(folder / "train/n00000012"),
     "val_1.JPEG: its class n00000012 has no folder in"),
    (lambda folder: (folder / "val/val_annotations.txt").unlink(), "val_annotations.txt: missing, and it"),
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
    (replace_file(FIRST, os.mkfifo), "n00000009_0.JPEG: not a file"),
    (replace_file(FIRST, lambda path: path.symlink_to("nowhere")), "n00000009_0.JPEG: not a file"),
    (lambda folder: (folder / "train/backup").mkdir(), "train/backup: not a class"),
    (rewrite(FIRST, lambda _: b"text"), DAMAGED),
    (rewrite(FIRST, lambda _: b""), DAMAGED),
    (rewrite(FIRST, lambda _: b"\xff\xd8" + bytes(2 ** 19)), DAMAGED),
    (rewrite(FIRST, lambda _: b"\xff\xd8" + bytes(2 ** 20)), "n00000009_0.JPEG: larger than 1 MB"),
    (rewrite(FIRST, lambda content: content[:-100]), DAMAGED),
    (rewrite(FIRST, lambda content: content[:500] + b"\xff\xd9"), DAMAGED),  # in a table
    (rewrite(FIRST, lambda content: content[:content.index(b"\xff\xda") + 2] + b"\xff\xd9"), DAMAGED),
    (rewrite(FIRST, lambda content: content.replace(b"\xff\xdb", b"\xff\xfe")), DAMAGED),  # no table
    (rewrite(FIRST,
             lambda content: content[:scan_start(content) - 9] + b"\x33" + content[scan_start(content) - 8:]),
     DAMAGED),
    (save_image(FIRST, "RGB", (64, 63)), "n00000009_0.JPEG: 64x63 pixels, not 64x64; resize it"),
    (save_image(FIRST, "CMYK", (64, 64)), "n00000009_0.JPEG: an image of mode CMYK, neither gray"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_bad_input_is_named_in_one_line(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(BadInput) as error:
        open_dataset("tiny", folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_image_data_that_end_early_but_by_their_marker_are_decoded(folder: Path) -> None:
    """Filled up, as by the Pillow of a PyTorch loader."""
    content = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(content[:scan_start(content) + 20] + b"\xff\xd9")
    assert open_dataset("tiny", folder).train.pixels([0]).shape == (1, 64, 64, 3)


def unnormalized(images: np.ndarray, data: DataSet) -> np.ndarray:
    """Normalized images (n, 3, h, w) as gray levels, float (n, h, w, 3)."""
    return 255 * (images.transpose(0, 2, 3, 1) * np.array(data.source.std) + np.array(data.source.mean))


def test_features_see_the_images_as_they_are(data: DataSet) -> None:
    index, images, labels = zip(*EvaluationBatches(data, data.train, 32))
    assert np.concatenate(index).tolist() == [*range(N), *[-1] * 16]
    assert np.concatenate(labels).tolist() == [*data.train.labels, *[-1] * 16]
    assert np.abs(unnormalized(images[1], data)[:16] - data.train.pixels(range(32, N))).max() < 1e-3


def test_a_transform_for_evaluation_comes_before_normalization(data: DataSet) -> None:
    (_, images, _), = EvaluationBatches(data, data.test, N, lambda images: images[:, ::-1])
    assert images.dtype == np.float32 and images.flags.c_contiguous
    assert np.abs(unnormalized(images, data)[:, ::-1] - data.test.pixels(range(12))).max() < 1e-3


def test_training_crops_are_torchvisions() -> None:
    expected = golden("transforms")
    transform = SOURCES["tiny"].train_transform
    crops = np.stack([transform.resized(Image.fromarray(image), *box)
                      for image, box in zip(make_pixels(8, 64), expected["boxes"].tolist())])
    assert crops.dtype == np.uint8 and (crops == expected["crops"]).all()


def test_the_transform_for_evaluation_is_torchvisions() -> None:
    found = SOURCES["tiny"].test_transform(make_pixels(8, 64))
    assert found.dtype == np.uint8 and (found == golden("transforms")["evaluation"]).all()


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


def boxes(crop: RandomResizedCrop, n: int, height: int, width: int) -> np.ndarray:
    """Those that it draws for n images, int (n, 4)."""
    drawn = crop.draw(np.random.default_rng(0), n)
    return np.array([crop.box(numbers, height, width) for numbers in drawn.T.tolist()])


@pytest.mark.parametrize("height, width", [(64, 64), (20, 64)])
def test_boxes_are_drawn_as_torchvision_draws_them(height: int, width: int) -> None:
    n = 5000
    top, left, h, w = boxes(RandomResizedCrop(55, 64), n, height, width).T
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
    assert boxes(crop, 2, 64, 64).tolist() == [[0, 0, 64, 64]] * 2
    assert boxes(crop, 1, 30, 64).tolist() == [[0, 12, 30, 40]]


class Noting(RandomResizedCrop):
    """Keeps what it draws."""
    drawn = []

    def draw(self, *arguments: object) -> np.ndarray:
        self.drawn.append(super().draw(*arguments))
        return self.drawn[-1]


def test_an_epoch_has_each_image_once_with_its_own_crop_mirrored_or_not(data: DataSet) -> None:
    noting = Noting(55, 64)
    batches = TrainingBatches(replace(data, source=replace(data.source, train_transform=noting)),
                              np.arange(1, N, 2), 10, seed=3)
    epoch = list(batches.epoch(5))
    index, images, labels = map(np.concatenate, zip(*epoch))
    assert [len(part) for _, _, part in epoch] == [10, 10, 4] and len(batches) == 3
    assert sorted(index) == list(range(1, N, 2)) and index.tolist() != sorted(index)
    assert (labels == data.train.labels[index]).all()
    expected = noting(data.train.pixels(index), np.concatenate(noting.drawn, axis=1))
    straight, mirrored = (np.abs(unnormalized(images, data) - other).max((1, 2, 3)) < 1e-3
                          for other in (expected, expected[:, :, ::-1]))
    assert (straight ^ mirrored).all() and 4 <= straight.sum() <= 20


def test_epochs_depend_on_seed_and_number_alone(data: DataSet) -> None:
    def pixels(seed: int, *numbers: int) -> bytes:
        batches = TrainingBatches(data, np.arange(N), 16, seed)
        return [b"".join(image.tobytes() for _, image, _ in batches.epoch(number)) for number in numbers][-1]

    assert pixels(1, 3) == pixels(1, 0, 1, 3)
    assert pixels(1, 3) != pixels(1, 4) and pixels(1, 3) != pixels(2, 3)


def test_arrays_and_files_of_the_same_images_give_the_same_batches(data: DataSet) -> None:
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


def test_the_documented_commands(tmp_path: Path, script: Callable) -> None:
    """The coreset is trained with a network that compiles faster."""
    regroup(write_tiny(tmp_path / "data"))
    base = ("--dataset", "tiny", "--data", "data/tiny-imagenet-200")
    training = ("train.py", *base, "--epoch", 1, "--batch_size", 16)
    outputs = []
    for command in ((*training, "--arch", "resnet18"),
                    ("selection.py", *base, "--ckpt", "ckpt/tiny/resnet18/best.pth", "--rate", 2 / 3),
                    (*training, "--arch", "two-layers", "--prune", "index/tiny.bin")):
        result = script(command[0], tmp_path, *command[1:])
        assert result.returncode == 0 and not result.stderr, result.stderr
        outputs.append(result.stdout)
    assert f"tiny: {N} of {N} training images, 12 test images, 3 classes" in outputs[0]
    assert load_checkpoint(tmp_path / "ckpt/tiny/resnet18/best.pth")["classifier.bias"].shape == (3,)
    assert len(pickle.loads((tmp_path / "index/tiny.bin").read_bytes())) == 16
    assert json.loads((tmp_path / "index/tiny.json").read_text())["dataset"] == "tiny"
    assert len(Image.open(tmp_path / "index/tiny.png").getcolors(10 ** 6)) > 100  # there are images on it
    assert f"tiny: 32 of {N} training images" in outputs[2]
    assert len(list((tmp_path / "ckpt/tiny/two-layers").glob("coreset-moderate-*/log.csv"))) == 1


def test_bad_input_leaves_nothing_behind(folder: Path, tmp_path: Path, script: Callable) -> None:
    (folder / FIRST).write_bytes(b"no image")
    result = script("train.py", tmp_path, "--dataset", "tiny", "--data", folder)
    assert result.returncode == 2 and FIRST in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [folder]
