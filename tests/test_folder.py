"""Your own images on disk: listing, transforms, the commands, damaged files."""
import hashlib
import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

import train
from conftest import check_one_line, names
from datasets import SOURCES, DataSet, open_dataset
from datasets.folder import read_image, suffixes
from datasets.pipeline import damaged_images, evaluation_batches, training_batches
from datasets.transforms import RandomResizedCrop, ResizeAndCenterCrop
from forks import Forks
from models.layers import pool
from two_layers import NAME
from utils.errors import BadInput

BILINEAR = Image.Resampling.BILINEAR
CLASSES, TRAIN, VAL = ("ant", "bee", "n01440764"), 12, 4  # images of a class
SMALL = ("--dataset", "folder", "--data", "images", "--image_size", 16)
TRAINING = (*SMALL, "--arch", NAME, "--epoch", 2, "--batch_size", 6)


def noise(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write_folder(folder: Path) -> Path:
    """Small images of many sizes; return their folder."""
    for part, images in (("train", TRAIN), ("val", VAL)):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for i in range(images):
                image = noise(100 * label + i, 20 + i, 40 - 2 * i).resize((48 - i, 25 + label), BILINEAR)
                image.save(folder / part / name / f"{name}_{i}.JPEG", quality=95)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "images")


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(images, tmp_path / "images"))


def paths(data: DataSet) -> list[str]:
    return [path.decode().removeprefix("train/") for path in data.train.file_names]


# The listing

def test_ids_follow_sorted_class_then_sorted_path(images: Path) -> None:
    data = open_dataset("folder", images)
    assert data.classes == list(CLASSES) and data.name == "folder" and data.image_size == 224
    assert paths(data) == [f"{name}/{file}" for name in CLASSES
                           for file in sorted(f"{name}_{i}.JPEG" for i in range(TRAIN))]
    assert data.train.labels.dtype == np.int32
    assert data.train.labels.tolist() == [0] * TRAIN + [1] * TRAIN + [2] * TRAIN
    assert data.test.labels.tolist() == [0] * VAL + [1] * VAL + [2] * VAL
    assert data.train.ids.tolist() == list(range(3 * TRAIN))


def test_nested_folders_links_hidden_and_other_files(folder: Path, capsys: pytest.CaptureFixture) -> None:
    bee = folder / "train/bee"
    shutil.rmtree(bee)
    (bee / "b/deep/deeper").mkdir(parents=True)
    (bee / "a-").mkdir()
    (folder / "train/.hidden/x").mkdir(parents=True)
    (bee / ".thumbs").mkdir()
    image = folder / "train/ant/ant_0.JPEG"
    for name in ("b/deep/deeper/1.jpg", "b/2.Jpeg", "a-/3.JPG", "c.jpeg", ".thumbs/4.jpg", "._5.jpg",
                 "6.txt", "noname"):
        shutil.copy(image, bee / name)
    (bee / "d.jpg").symlink_to(image)
    (bee / "linked").symlink_to(folder / "val/bee")
    (folder / "train/zoo").symlink_to(folder / "val/ant")
    (folder / "train/readme.jpg").write_text("not a class")
    shutil.copy(image, os.fsdecode(os.fsencode(bee) + b"/\xff.jpg"))  # not UTF-8
    data = open_dataset("folder", folder)
    assert data.classes == ["ant", "bee", "n01440764", "zoo"]
    assert [path for path in data.train.file_names if path.startswith(b"train/bee")] == [
        b"train/bee/c.jpeg", b"train/bee/d.jpg", b"train/bee/\xff.jpg", b"train/bee/a-/3.JPG",
        b"train/bee/b/2.Jpeg", b"train/bee/b/deep/deeper/1.jpg",
        *(f"train/bee/linked/bee_{i}.JPEG".encode() for i in range(VAL))]
    assert next(data.train.pixels([TRAIN + 2])).size == (48, 25)
    assert data.train.file_names[-1] == f"train/zoo/ant_{VAL - 1}.JPEG".encode()
    said = capsys.readouterr()
    assert "train: skipped 2 files without an image extension\n" in said.out
    assert "images/train: images outside of class folders are skipped: 1; put images into train" in said.err


def image_folder(folder: Path) -> list[tuple[str, int]]:
    """Path and label of each image, as torchvision documents ImageFolder and its make_dataset."""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return [(os.path.join(where, name), label) for label, wnid in enumerate(classes)
            for where, _, files in sorted(os.walk(folder / wnid, followlinks=True))
            for name in sorted(files) if name.lower().endswith((".jpg", ".jpeg", ".png"))]


def test_nested_images_have_the_order_of_torchvisions_image_folder(folder: Path) -> None:
    """In "bee" a plain sort of the paths gives another one: there a/z.jpg comes after a/sub."""
    image = folder / "train/ant/ant_0.JPEG"
    for name in ("a/z.jpg", "a/sub/b.jpg", "a-b/c.jpg", "a.jpg", "B/ü.png", "10.jpg", "9.jpg"):
        (folder / "train/bee" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / "train/bee" / name)
    (folder / "train/n01440764/0").symlink_to(folder / "val/bee")
    data = open_dataset("folder", folder)
    found = [os.path.join(folder, os.fsdecode(name)) for name in data.train.file_names]
    assert list(zip(found, data.train.labels.tolist(), strict=True)) == image_folder(folder / "train")
    assert paths(data)[TRAIN:] != sorted(paths(data)[TRAIN:])


@pytest.mark.parametrize("place, target, message", [
    *(("train/bee/loop", target, "bee/loop: a link to a folder above it") for target in (".", "..", "../..")),
    ("val/bee/more", "gone", "val/bee/more: .*a link to nothing"),
    ("train/cat", "gone", "train/cat: not a folder, or a link to nothing; put the images")])
def test_links_to_a_folder_above_and_to_nothing_are_refused(folder: Path, place: str, target: str,
                                                            message: str) -> None:
    (folder / place).symlink_to(target)
    with pytest.raises((BadInput, FileNotFoundError), match=message):
        open_dataset("folder", folder)


def test_a_thin_image_is_resized_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 x 20,000 pixels the whole would have 256 x 2,560,000."""
    transform = ResizeAndCenterCrop(256, 224)
    assert transform([noise(0, 2, 20_000)]).shape == (1, 224, 224, 3)
    image = noise(0, 50, 420)
    whole = transform([image]).astype(int)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 256 * 2000)
    assert np.abs(whole - transform([image])).max() <= 1


def test_the_first_classes(folder: Path, images: Path) -> None:
    every, some = open_dataset("folder", images), open_dataset("folder", images, classes=2)
    assert some.classes == ["ant", "bee"] and some.images_sha256 == every.images_sha256
    assert paths(some) == paths(every)[:2 * TRAIN] and some.train.ids.tolist() == list(range(2 * TRAIN))
    assert len(some.test.labels) == 2 * VAL
    for name in ("ant", "bee"):
        shutil.rmtree(folder / "val" / name)
    assert len(open_dataset("folder", folder).test.labels) == VAL
    with pytest.raises(BadInput, match="--classes 2: folder has no test image of these"):
        open_dataset("folder", folder, classes=2)


def test_the_identity_is_of_paths_and_sizes(folder: Path, images: Path) -> None:
    def identity() -> str:
        return open_dataset("folder", folder).images_sha256

    path = folder / "train/bee/bee_3.JPEG"
    content = path.read_bytes()
    own = open_dataset("folder", images).images_sha256
    lines = sorted(f"{path.relative_to(images / 'train')}\0{path.stat().st_size}\n"
                   for path in images.glob("train/*/*"))
    assert own == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert identity() == own  # in another folder
    path.write_bytes(content[::-1])
    (folder / "val/bee/bee_0.JPEG").unlink()
    assert identity() == own
    path.write_bytes(content + b"\0")
    longer = identity()
    path.write_bytes(content)
    path.rename(path.with_name("bee_x.JPEG"))
    assert len({own, longer, identity()}) == 3


# Images and transforms

def long_text() -> PngImagePlugin.PngInfo:
    """Of 3 MB, compressed, as programs that make images write their settings."""
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "a bee, " * 450_000, zip=True)
    return info


def test_formats_and_modes_become_rgb(tmp_path: Path) -> None:
    image = noise(0, 12, 17)
    pixels = np.asarray(image)

    def found(name: str, image: Image.Image, **settings: object) -> np.ndarray:
        image.save(tmp_path / name, **settings)
        read = read_image(str(tmp_path / name))
        assert read.mode == "RGB" and read.size == (17, 12)
        return np.asarray(read)

    for name in ("x.png", "x.bmp", "x.tiff", "x.ppm", "no-suffix.JPEG.png"):
        assert (found(name, image) == pixels).all(), name
    image.save(tmp_path / "png.JPEG", format="PNG")  # ImageNet has one
    assert (np.asarray(read_image(str(tmp_path / "png.JPEG"))) == pixels).all()
    assert (found("text.png", image, pnginfo=long_text()) == pixels).all()
    flat_image = Image.new("RGB", (17, 12), (9, 99, 199))
    assert np.abs(found("x.mpo", flat_image, save_all=True, append_images=[image]) - (9., 99, 199)).max() < 4
    assert {b".mpo", b".png", b".jpg"} < suffixes() and not {b".eps", b".pdf"} & suffixes()
    if features.check("webp"):
        assert (found("x.webp", image, lossless=True) == pixels).all()
    palette = image.quantize(8)
    assert (found("p.png", palette) == np.asarray(palette.convert("RGB"))).all()
    assert (found("p.gif", palette, save_all=True, append_images=[noise(1, 12, 17).quantize(8)])
            == np.asarray(palette.convert("RGB"))).all()
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(np.arange(12 * 17, dtype=np.uint8).reshape(12, 17)))
    assert (found("rgba.png", alpha) == pixels).all()
    gray = image.convert("L")
    assert (found("l.png", gray) == np.asarray(gray)[..., None]).all()
    assert (found("1.png", image.convert("1")) == np.asarray(image.convert("1"))[..., None] * 255).all()
    flat = Image.new("RGB", (17, 12), (200, 100, 50)).convert("CMYK")
    assert np.abs(found("cmyk.jpg", flat, quality=100).astype(int) - (200, 100, 50)).max() < 4
    deep = np.random.default_rng(0).integers(0, 2 ** 16, (12, 17), np.uint16)
    assert (found("16.png", Image.fromarray(deep)) == (deep >> 8)[..., None]).all()
    (tmp_path / "16.pgm").write_bytes(b"P5 17 12 65535\n" + deep.astype(">u2").tobytes())
    assert (np.asarray(read_image(str(tmp_path / "16.pgm"))) == (deep >> 8)[..., None]).all()
    with pytest.raises(BadInput, match="f.tiff: pixels of 32 bits"):  # of unknown range
        found("f.tiff", Image.fromarray(np.ones((3, 3), np.float32)))


@pytest.mark.parametrize("width, height, resized, corner", [
    (500, 375, (341, 256), (58, 16)),  # torchvision: int(256 * 500 / 375), round((341 - 224) / 2)
    (375, 500, (256, 341), (16, 58)), (256, 257, (256, 257), (16, 16)), (100, 90, (284, 256), (30, 16))])
def test_the_transform_for_evaluation_is_torchvisions(width: int, height: int, resized: tuple[int, int],
                                                      corner: tuple[int, int]) -> None:
    image = noise(0, height, width)
    left, top = corner
    expected = image.resize(resized, BILINEAR).crop((left, top, left + 224, top + 224))
    source = SOURCES["folder"]
    assert source.test_transform == source.feature_transform == ResizeAndCenterCrop(256, 224)
    assert (source.mean, source.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (source.test_transform([image])[0] == np.asarray(expected)).all()


@pytest.mark.parametrize("side, resize", [(8, 9), (64, 73), (100, 114), (224, 256), (384, 439)])
def test_other_sides(side: int, resize: int, images: Path) -> None:
    data = open_dataset("folder", images, side)
    assert data.image_size == side and data.source.small_images == (side < 64)
    assert data.source.train_transform == RandomResizedCrop(side, side)
    assert data.source.test_transform == ResizeAndCenterCrop(resize, side)


def test_each_image_draws_a_box_of_its_own_size() -> None:
    """By hand: area 0.54 of the image, ratio 1; the second draws ratio 4/3 of all, which does not fit."""
    crop = RandomResizedCrop(16, 16)
    images = [noise(0, 60, 80), noise(1, 100, 30)]
    drawn = np.zeros((22, 2))
    drawn[0], drawn[1] = 0.5, 0.5
    drawn[0, 1], drawn[1, 1], drawn[2, 1], drawn[3, 1] = 1, 1, 0.25, 0.5
    drawn[-2], drawn[-1] = 0.999, 0.5
    side = round((60 * 80 * 0.54) ** 0.5)
    assert crop.box(drawn[:, 0].tolist(), 60, 80) == (60 - side, (80 - side + 1) // 2, side, side)
    other = round((100 * 30 * (0.08 + 0.92 * 0.25)) ** 0.5)
    assert crop.box(drawn[:, 1].tolist(), 100, 30) == (100 - other, int(0.5 * (31 - other)), other, other)
    found = crop(iter(images), drawn)
    for image, pixels, numbers in zip(images, found, drawn.T.tolist(), strict=True):
        top, left, height, width = crop.box(numbers, image.height, image.width)
        part = image.crop((left, top, left + width, top + height)).resize((16, 16), BILINEAR)
        assert (pixels == np.asarray(part)).all()


def test_pooling_of_sides_that_are_no_multiple_overlaps_as_pytorchs() -> None:
    x = np.random.default_rng(0).random((2, 3, 7, 4), np.float32)
    expected = [x[:, :, i:i + 4, j:j + 2].mean((2, 3)) for i in (0, 3) for j in (0, 2)]
    assert np.abs(pool(ms.Tensor(x), 2).asnumpy() - np.stack(expected, 2).reshape(2, -1)).max() < 1e-6


# Batches

def all_bytes(batches: object) -> bytes:
    return b"".join(part.tobytes() for batch in batches for part in batch)


def test_batches_are_the_same_whatever_the_workers(images: Path) -> None:
    data = open_dataset("folder", images, 24)
    keep = np.arange(1, 3 * TRAIN)
    epochs = [all_bytes(training_batches(data, keep, 17, seed=3, workers=workers, epoch=2))
              for workers in (1, 2, 5)]
    tests = [all_bytes(evaluation_batches(data, data.test, 9, data.source.test_transform, workers))
             for workers in (1, 2, 5)]
    assert len(set(epochs)) == len(set(tests)) == 1


@pytest.mark.parametrize("options, rate", [
    ("--dataset folder --batch_size 256", 0.1), ("--dataset folder --batch_size 64", 0.025),
    ("--dataset folder --batch_size 64 --lr 0.3", 0.3), ("--dataset tiny --batch_size 256", 0.1), ("", 0.1)])
def test_the_learning_rate_follows_the_batch(options: str, rate: float) -> None:
    assert train.parse_options(options.split()).lr == pytest.approx(rate)


# The commands

def run(script: Callable, work: Path, *command: object) -> str:
    result = script(command[0], work, *command[1:])
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def work(images: Path, tmp_path_factory: pytest.TempPathFactory, script: Callable) -> Path:
    """A folder in which the three commands have run, with a name."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "images").symlink_to(images)
    output = [run(script, folder, "train.py", *TRAINING, "--name", "pets"),
              run(script, folder, "selection.py", *SMALL, "--name", "pets", "--rate", 0.5, "--ckpt",
                  f"ckpt/pets/{NAME}/best.pth"),
              run(script, folder, "train.py", *TRAINING, "--name", "pets", "--prune", "index/pets.bin",
                  "--check", "--workers", 1)]
    (folder / "output.txt").write_text("".join(output))
    return folder


def test_the_three_commands(work: Path) -> None:
    output = (work / "output.txt").read_text()
    assert f"pets: {3 * TRAIN} of {3 * TRAIN} training images, {3 * VAL} test images, 3 classes" in output
    assert f"kept {3 * TRAIN // 2} of {3 * TRAIN} images" in output
    assert f"pets: {3 * TRAIN // 2} of {3 * TRAIN} training images" in output
    run = work / "ckpt/pets" / NAME
    assert names(run) == {
        "args.json", "best.pth", "last.pth", "log.csv", "dynamics.npy", "best.features.npy",
        "best.features.json", "best.logits.npy", "coreset-moderate-0.5"}
    args = json.loads((run / "args.json").read_text())
    assert args["lr"] == 0.1 * 6 / 256 and args["name"] == "pets" and args["image_size"] == 16
    assert names(work / "index") == {
        f"pets.{suffix}" for suffix in ("bin", "json", "kept.npy", "scores.npy", "png", "txt")}
    assert json.loads((work / "index/pets.json").read_text())["image_size"] == 16
    assert len(Image.open(work / "index/pets.png").getcolors(10 ** 6)) > 100
    every = paths(open_dataset("folder", work / "images"))
    kept = np.delete(every, pickle.loads((work / "index/pets.bin").read_bytes()))
    assert (work / "index/pets.txt").read_text() == "".join(f"train/{path}\n" for path in kept)
    assert all((work / "images/train" / path).is_file() for path in kept)


@pytest.mark.parametrize("name", ["pets.kept.npy", "pets.txt"])
def test_the_images_kept_are_trained_on_as_by_their_index(work: Path, script: Callable, name: str) -> None:
    """So the run of the index is found finished; by themselves they keep the same images, with a warning."""
    options = "--data", "images", "--epoch", 2, "--batch_size", 6  # the others are those of the selection
    assert "resuming after epoch 2" in run(script, work, "train.py", *options, "--kept", f"index/{name}",
                                           "--resume")
    args = json.loads((work / f"ckpt/pets/{NAME}/coreset-moderate-0.5/args.json").read_text())
    shutil.copy(work / f"index/{name}", work / "mine").rename(work / f"mine.{name.rpartition('.')[2]}")
    result = script("train.py", work, *TRAINING, "--kept", f"mine.{name.rpartition('.')[2]}")
    check_one_line(result, "leaves out 18, trains on 18; if these are", status=0)
    alone = json.loads((work / f"ckpt/folder/{NAME}/coreset-mine-18/args.json").read_text())
    assert alone["kept_sha256"] == args["kept_sha256"] and alone["index"] == {} and alone["prune"]


def test_an_index_serves_other_places_and_sizes_but_no_other_images(work: Path, folder: Path, tmp_path: Path,
                                                                    script: Callable) -> None:
    training = ("train.py", *TRAINING, "--name", "pets", "--prune", work / "index/pets.bin")
    assert "18 of 36" in run(script, tmp_path, *training, "--image_size", 8, "--resume")
    (folder / "train/bee/bee_3.JPEG").rename(folder / "train/bee/bee_03.JPEG")
    result = script("train.py", tmp_path, *training[1:])
    assert result.returncode == 2 and "made for other images or labels of pets" in result.stderr


def test_classes(work: Path, tmp_path: Path, script: Callable) -> None:
    (tmp_path / "images").symlink_to(work / "images")
    assert f"folder: {2 * TRAIN} of {2 * TRAIN} training images, {2 * VAL} test images, 2 classes" in run(
        script, tmp_path, "train.py", *TRAINING, "--classes", 2)
    run(script, tmp_path, "selection.py", *SMALL, "--rate", 0.5, "--method", "el2n", "--per_class", "--ckpt",
        f"ckpt/folder/{NAME}/best.pth")
    lines = (tmp_path / "index/folder-el2n-per_class.txt").read_text().splitlines()
    assert len(lines) == TRAIN and all(line.startswith(("train/ant/", "train/bee/")) for line in lines)


def test_a_name_with_a_line_break_is_refused_when_names_are_to_be_listed(work: Path, tmp_path: Path,
                                                                         script: Callable) -> None:
    """The list has one name per line; other separators of text are no line breaks."""
    images = shutil.copytree(work / "images", tmp_path / "images")
    (images / "train/bee/bee_3.JPEG").rename(images / "train/bee/b\u2028\udcff.JPEG")
    command = ("selection.py", tmp_path, "--dataset", "folder", "--data", "images", "--method", "random",
               "--rate", 1)
    assert script(*command).returncode == 0
    listed = (tmp_path / "index/folder-random.txt").read_bytes().split(b"\n")
    assert os.fsencode("train/bee/b\u2028\udcff.JPEG") in listed
    (images / "train/bee/bee_4.JPEG").rename(images / "train/bee/b\n.JPEG")
    check_one_line(script(*command), "--data: a file of folder has a line break in its name")


# Damaged files and other bad input

@pytest.mark.parametrize("damage", [lambda content: content[:-200], lambda _: b"no image", None])
def test_a_damaged_or_missing_file_stops_the_run_with_its_name(folder: Path, damage: Callable | None) -> None:
    path, data = folder / "train/bee/bee_3.JPEG", open_dataset("folder", folder, 16)
    message = "train/bee/bee_3.JPEG: damaged, or not an image" if damage else "No such file.*bee_3.JPEG"
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises((BadInput, FileNotFoundError), match=message):
        list(training_batches(data, data.train.ids, 10, 0, epoch=0))
    (what,) = damaged_images(data.train, 2).values()
    assert re.search(message, what) and damaged_images(data.test, 2) == {}


DAMAGED = "train/ant/ant_1.JPEG", "train/bee/bee_3.JPEG", "val/bee/bee_3.JPEG"


@pytest.fixture
def damaged(folder: Path) -> Path:
    for name in DAMAGED:
        (folder / name).write_bytes((folder / name).read_bytes()[:-200])
    return folder


def test_a_damaged_image_is_drawn_gray(damaged: Path, tmp_path: Path, script: Callable) -> None:
    """A selection that needs no images is made all the same."""
    result = script("selection.py", tmp_path, *SMALL, "--method", "random", "--rate", 0.9)
    assert result.returncode == 0 and (tmp_path / "index/folder-random.bin").exists(), result.stderr
    pictures = open_dataset("folder", damaged, 16).pictures(np.arange(3))
    assert (pictures[1] == 128).all() and (pictures[0] != 128).any()


def test_readmes_lines_give_pytorch_the_coreset(images: Path, work: Path) -> None:
    """ImageFolder with the files that index/<name>.txt lists, whose positions .kept.npy has."""
    torchvision = pytest.importorskip("torchvision")
    names = set((work / "index/pets.txt").read_text().splitlines())
    root = f"{images}/"
    every = torchvision.datasets.ImageFolder(f"{images}/train")
    kept = torchvision.datasets.ImageFolder(f"{images}/train",
                                            is_valid_file=lambda path: path[len(root):] in names)
    positions = np.load(work / "index/pets.kept.npy")
    assert kept.samples == [every.samples[i] for i in positions] and len(kept) == len(names)


def test_check_names_every_damaged_image(damaged: Path, tmp_path: Path, script: Callable) -> None:
    result = script("train.py", tmp_path, *TRAINING, "--check")
    *lines, last = result.stderr.splitlines()
    assert result.returncode == 2 and not (tmp_path / "ckpt").exists()
    assert [line.split(": ")[2] for line in lines] == [f"images/{name}" for name in DAMAGED]
    assert last.startswith("train.py: error: 3 images are damaged; replace them with intact copies, or")


def test_damaged_images_are_skipped_and_ids_stay(damaged: Path, tmp_path: Path, script: Callable,
                                                 forks: Forks) -> None:
    """Those of the whole listing, in which the two training images are the second and the 18th.

    A later run without damage moves damaged.txt with the run before.
    """
    training = (*TRAINING, "--batch_size", 17)
    result = script("train.py", tmp_path, *training, "--skip_damaged", True)
    assert result.returncode == 0 and "folder: 34 of 34 training images" in result.stdout, result.stderr
    run = tmp_path / "ckpt/folder" / NAME
    assert [line.split(":")[0] for line in (run / "damaged.txt").read_text().splitlines()] == [
        f"images/{name}" for name in DAMAGED]
    data = ("--dataset", "folder", "--data", "images")
    result = script("selection.py", tmp_path, *data, "--ckpt", run / "best.pth", "--rate", 0.5)
    assert result.returncode == 0, result.stderr
    listed = set(np.load(tmp_path / "index/folder.kept.npy")) | set(pickle.loads(
        (tmp_path / "index/folder.bin").read_bytes()))
    assert listed == set(range(36)) - {1, 17}
    result = script("train.py", tmp_path, *training[2:4], *training[8:], "--prune", "index/folder.bin")
    assert result.returncode == 0 and "folder: 18 of 34 training images" in result.stdout, result.stderr
    # Of the classes left by --classes there would be fewer images than the run's positions of damaged ones.
    result = script("selection.py", tmp_path, *data, "--ckpt", run / "best.pth", "--classes", 2)
    check_one_line(result, "--classes 2: ", "has all")
    repaired, broken = damaged / "train/ant/ant_1.JPEG", damaged / "train/ant/ant_2.JPEG"  # sizes stay
    whole = io.BytesIO()
    Image.new("RGB", (32, 32)).save(whole, "JPEG")
    repaired.write_bytes(whole.getvalue().ljust(repaired.stat().st_size, b"\0"))
    broken.write_bytes(bytes(broken.stat().st_size))
    result = script("train.py", tmp_path, *training, "--skip_damaged", True, "--resume")
    assert result.returncode == 2 and "--resume: damaged is " in result.stderr
    for path in (*(damaged / name for name in DAMAGED), broken):
        path.unlink()
    forks.kill(tmp_path, "open dynamics.npy", 0, "train.py", *training)
    (earlier,) = run.glob("earlier-*")
    assert (earlier / "damaged.txt").exists() and not (run / "damaged.txt").exists()


def test_nothing_but_damage_is_refused(folder: Path, tmp_path: Path, script: Callable) -> None:
    for path in (folder / "val").glob("*/*"):
        path.write_bytes(b"")
    result = script("train.py", tmp_path, *TRAINING, "--skip_damaged", True)
    assert result.returncode == 2 and "test images are damaged; replace them" in result.stderr
    assert not (tmp_path / "ckpt").exists()


def test_an_image_larger_than_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_image(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", open_image)
    with pytest.raises(BadInput, match="x.png: needs more memory than there is"):
        read_image(str(tmp_path / "x.png"))


BAD = [
    (lambda folder: shutil.rmtree(folder), (), "images/train: cannot be read (No"),
    (lambda folder: shutil.rmtree(folder / "val"), (), "images/val: cannot be read"),
    (lambda folder: [shutil.rmtree(path) for path in (folder / "train").iterdir()], (),
     "images/train: holds no class folder"),
    (lambda folder: [shutil.rmtree(path) for path in folder.glob("*/*") if path.name != "ant"], (),
     "images/train: holds one class folder"),
    (lambda folder: (folder / "train/cat").mkdir(), (), "images/train/cat: holds no file with"),
    (lambda folder: (folder / "val/cat").mkdir(), (), "images/val/cat: a class that images/train lacks"),
    (lambda folder: (folder / "train/ant/x.png").symlink_to("nowhere"), (), "ant/x.png: not a file"),
    (lambda _: None, ("--image_size", 7), "--image_size 7: too small"),
    (lambda _: None, ("--name", "../x"), "--name: '../x' is not a plain file name"),
    (lambda _: None, ("--name", "tiny"), "--name tiny: the name of another data set"),
    (lambda _: None, ("--dataset", "toy", "--name", "pets"), "--name pets: only for --dataset folder"),
    (lambda _: None, ("--workers", 0), "--workers"),
]


@pytest.mark.parametrize("change, options, message", BAD)
def test_bad_input_is_one_line(folder: Path, tmp_path: Path, script: Callable, change: Callable,
                               options: tuple, message: str) -> None:
    change(folder)
    result = script("train.py", tmp_path, "--dataset", "folder", "--data", "images", *options)
    check_one_line(result, "train.py: error: ", message)
    assert not (tmp_path / "ckpt").exists()
