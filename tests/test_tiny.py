"""Tiny ImageNet: the reader, the transforms, the recipe, and the documented commands through a shell."""
import hashlib
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
from conftest import TINY_TRAIN, TINY_WNIDS, write_tiny
from datasets import SOURCES, DataSet, open_dataset
from datasets.pipeline import training_batches
from datasets.transforms import RandomResizedCrop
from forks import ROOT
from golden_networks import golden
from models.checkpoint import load_checkpoint
from utils.errors import BadInput
from weights import make_pixels

N = TINY_TRAIN * len(TINY_WNIDS)


@pytest.fixture
def folder(tmp_path: Path, tiny: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / tiny.name))


@pytest.fixture(scope="module")
def data(tiny: Path) -> DataSet:
    return open_dataset("tiny", tiny)


def test_ids_follow_class_folder_then_file_name(data: DataSet, tiny: Path) -> None:
    names = [f"{wnid}_{i}.JPEG" for wnid in ("n00000009", "n00000012", "n00000101")
             for i in (0, 1, 10, 11, 12, 13, 14, 15, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert [Path(name).name for name in data.train.names] == names
    assert Path(data.train.names[16]) == tiny / "train/n00000012/images/n00000012_0.JPEG"
    assert data.train.file_names[16] == b"train/n00000012/images/n00000012_0.JPEG"
    assert data.train.labels.tolist() == [0] * 16 + [1] * 16 + [2] * 16
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.train.labels.dtype == data.test.labels.dtype == np.int32
    assert data.classes == ["goldfish", "n00000012", "n00000101"]
    contents = [Path(name).read_bytes() for name in data.train.names]
    expected = hashlib.sha256(b"".join(contents) + data.train.labels.tobytes()).hexdigest()
    assert data.images_sha256 == expected  # as in earlier versions' manifests


def test_smaller_images_are_box_averages_and_transforms_scale_with_them(tiny: Path) -> None:
    full, half = (open_dataset("tiny", tiny, side) for side in (64, 32))
    assert half.image_size == 32 and half.source.small_images and not full.source.small_images
    expected = full.train.pixels([5]).reshape(32, 2, 32, 2, 3).mean((1, 3), np.float32)
    assert (half.train.pixels([5])[0] == np.rint(expected)).all()
    assert half.train.file_names == full.train.file_names
    assert (half.source.train_transform.crop, half.source.test_transform.resize) == (28, 36)
    assert half.images_sha256 == full.images_sha256  # so an index made at one size serves the other


def test_images_are_pillows_pixels_also_of_grayscale_files(data: DataSet) -> None:
    images = [Image.open(name) for name in data.train.names]
    assert {image.mode for image in images} == {"L", "RGB"}
    pixels = data.train.pixels(np.arange(N))
    assert pixels.dtype == np.uint8
    assert (pixels == np.stack([image.convert("RGB") for image in images])).all()


def regroup(folder: Path) -> None:
    assert subprocess.run(["bash", ROOT / "convert-tiny.sh", folder], capture_output=True).returncode == 0


def regroup_within_images_folders(folder: Path) -> None:
    regroup(folder)
    for wnid in TINY_WNIDS:
        (folder / "val" / wnid).rename(folder / "images")
        shutil.move(folder / "images", folder / "val" / wnid / "images")


def regroup_in_part(folder: Path) -> None:
    (folder / "val/n00000012").mkdir()
    (folder / "val/images/val_1.JPEG").rename(folder / "val/n00000012/val_1.JPEG")


def regroup_within_val_images(folder: Path) -> None:
    """And end the annotations with a blank line."""
    regroup(folder)
    (folder / "val/images").mkdir()
    for wnid in TINY_WNIDS:
        (folder / "val" / wnid).rename(folder / "val/images" / wnid)
    append("\n")(folder)


@pytest.mark.parametrize("change", [regroup, regroup_within_images_folders, regroup_in_part,
                                    regroup_within_val_images])
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
    assert "wnids.txt lists 3 classes, train has 2" in capsys.readouterr().out


Change = Callable[[Path], object]


def append(text: str) -> Change:
    table = "val/val_annotations.txt"
    return lambda folder: (folder / table).write_text((folder / table).read_text() + text)


def rewrite(change: Callable[[bytes], bytes], path: str = FIRST) -> Change:
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def replace_first(by: Change) -> Change:
    return lambda folder: ((folder / FIRST).unlink(), by(folder / FIRST))


DAMAGED = "n00000009_0.JPEG: damaged, or not a JPEG image; replace it with an intact copy"
BAD = [
    (lambda folder: shutil.rmtree(folder / "train"),
     "train: missing; python -m datasets.download tiny --data data creates"),
    (lambda folder: shutil.rmtree(folder / "val/images"), "val: holds no class folder"),
    (lambda folder: [shutil.rmtree(folder / "train" / wnid) for wnid in TINY_WNIDS],
     "train: holds no class folder"),
    (lambda folder: shutil.rmtree(folder / "train/n00000012/images"), "train/n00000012: holds no"),
    (lambda folder: (folder / "train/backup").mkdir(), "train/backup: holds no .JPEG image; put"),
    (lambda folder: shutil.copytree(folder / "train/n00000012", folder / "train/backup"),
     "val/backup: holds no .JPEG image"),
    (lambda folder: shutil.rmtree(folder / "train/n00000012"), "val_1.JPEG: its class (n00000012) has no"),
    (lambda folder: (folder / "val/val_annotations.txt").unlink(), "JPEG: its class (not in"),
    (append("../../x.JPEG\tn00000009\n"), "val_annotations.txt: '../../x.JPEG' of class n00000009"),
    (append("val_0.JPEG\tn00000012\n"), "val_annotations.txt: line 13 is not"),
    (append("nonsense\n"), "val_annotations.txt: line 13 is not"),
    (lambda folder: [regroup(folder), (folder / "val/n00000009/val_0.JPEG").unlink()],
     "val_annotations.txt: 'val_0.JPEG' of class n00000009 is missing"),
    (rewrite(lambda content: content[content.index(b"\n") + 1:], "val/val_annotations.txt"),
     "val_0.JPEG: its class (not in"),
    (lambda folder: [(folder / "val/n00000009").mkdir(),
                     shutil.copy(folder / "val/images/val_0.JPEG", folder / "val/n00000009")],
     "val_0.JPEG: also in"),
    (replace_first(os.mkfifo), "n00000009_0.JPEG: not a file"),
    (replace_first(lambda path: path.symlink_to("nowhere")), "n00000009_0.JPEG: not a file"),
    (rewrite(lambda _: b""), DAMAGED),
    (rewrite(lambda content: content[:-100]), DAMAGED),
    (replace_first(lambda path: Image.new("RGB", (64, 63)).save(path)),
     "n00000009_0.JPEG: 64x63 pixels, not 64x64; resize it"),
    (replace_first(lambda path: Image.new("CMYK", (64, 64)).save(path)),
     "n00000009_0.JPEG: an image of mode CMYK, neither gray"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_bad_input_is_named_in_one_line(folder: Path, change: Change, message: str) -> None:
    change(folder)
    with pytest.raises(BadInput) as error:
        open_dataset("tiny", folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def unnormalized(images: np.ndarray, data: DataSet) -> np.ndarray:
    """Normalized images (n, 3, h, w) as gray levels, float (n, h, w, 3)."""
    return 255 * (images.transpose(0, 2, 3, 1) * np.array(data.source.std) + np.array(data.source.mean))


def test_training_crops_are_torchvisions() -> None:
    expected = golden("transforms")
    transform = SOURCES["tiny"].train_transform
    crops = np.stack([transform.resized(Image.fromarray(image), *box)
                      for image, box in zip(make_pixels(8, 64), expected["boxes"].tolist(), strict=True)])
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
                                                             expected[3] / expected[2]), strict=True):
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
    epoch = list(training_batches(replace(data, source=replace(data.source, train_transform=noting)),
                                  np.arange(1, N, 2), 10, seed=3, epoch=5))
    index, images, labels = map(np.concatenate, zip(*epoch, strict=True))
    assert [len(part) for _, _, part in epoch] == [10, 10, 4]
    assert sorted(index) == list(range(1, N, 2)) and index.tolist() != sorted(index)
    assert (labels == data.train.labels[index]).all()
    expected = noting(data.train.pixels(index), np.concatenate(noting.drawn, axis=1))
    straight, mirrored = (np.abs(unnormalized(images, data) - other).max((1, 2, 3)) < 1e-3
                          for other in (expected, expected[:, :, ::-1]))
    assert (straight ^ mirrored).all() and 4 <= straight.sum() <= 20


def test_arrays_and_files_of_the_same_images_give_the_same_batches(data: DataSet) -> None:
    array = replace(data, train=replace(data.train, images=data.train.pixels(np.arange(N))))
    for one, other in zip(training_batches(data, np.arange(N), 32, 0, epoch=0),
                          training_batches(array, np.arange(N), 32, 0, epoch=0), strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("size", [3.0, 1.0, 0.01])
def test_gradients_are_clipped_by_their_common_norm(size: float) -> None:
    parts = [np.full((4, 5), size, np.float32), np.full(5, -2 * size, np.float32)]
    norm = size * math.sqrt(40)
    found = train.clip_gradients(tuple(map(ms.Tensor, parts)), 1.0)
    for part, clipped in zip(parts, found, strict=True):
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
    (tmp_path / "mine.txt").write_text("".join(f"train/{wnid}/images/{wnid}_{i}.JPEG\n"
                                               for wnid in TINY_WNIDS for i in range(6)))
    result = script(training[0], tmp_path, *training[1:], "--arch", "two-layers", "--kept", "mine.txt")
    assert result.returncode == 0 and f"tiny: 18 of {N} training images" in result.stdout, result.stderr
    kept, listed = (tmp_path / f"index/tiny.{suffix}" for suffix in ("kept.npy", "txt"))
    files = open_dataset("tiny", tmp_path / "data/tiny-imagenet-200").train.file_names
    assert listed.read_bytes().splitlines() == [files[i] for i in np.load(kept)]
