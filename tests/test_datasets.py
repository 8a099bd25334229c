"""CIFAR-100's reader, the batches, smaller images, the recipe, index files, pickles."""
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from conftest import TRAIN, write_cifar
from datasets import SOURCES, open_dataset
from datasets.images import BLOCK, Split
from datasets.index import coreset_name, read_index, write_index
from datasets.pipeline import EvaluationBatches, TrainingBatches
from datasets.transforms import PadAndCrop
from utils.files import BadInput
from utils.pickles import unpickle


def test_cifar100_recipe_is_the_papers() -> None:
    recipe = SOURCES["CIFAR100"].recipe
    rates = [recipe.learning_rate(0.1, epoch, 200) for epoch in range(200)]
    assert rates == pytest.approx([0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40)
    assert (recipe.weight_decay, recipe.clip_norm) == (5e-4, None)


def test_milestones_keep_their_fraction_of_a_shorter_run() -> None:
    rates = [SOURCES["CIFAR100"].recipe.learning_rate(0.1, epoch, 10) for epoch in range(10)]
    assert rates == pytest.approx([0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2)


def test_a_set_that_is_not_the_official_one_is_used_with_a_line(cifar: Path,
                                                               capsys: pytest.CaptureFixture) -> None:
    open_dataset("CIFAR100", cifar)
    assert "not the official release" in capsys.readouterr().out


def test_cifar_layout(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    assert data.train.images.shape == (TRAIN, 32, 32, 3) and data.train.images.dtype == np.uint8
    raw = pickle.loads((cifar / "cifar-100-python" / "train").read_bytes())
    assert data.train.images[3, 2, 1, 0] == raw["data"][3, 2 * 32 + 1]
    assert data.train.labels.tolist() == raw["fine_labels"]
    assert data.classes[2] == "class 2"


@pytest.mark.parametrize("name, change, message", [
    ("train", lambda content: content[:-2000], "train: not a pickle"),
    ("test", lambda _: pickle.dumps({"data": np.zeros((3, 10), np.uint8), "fine_labels": [0] * 3}),
     "3072 columns"),
    ("test", lambda _: pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0]}), "2 labels"),
    ("test", lambda _: pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [9]}), "0 to 4"),
    ("meta", lambda _: pickle.dumps([1]), "no list of class names"),
    ("meta", lambda _: b"", "meta: not a pickle"),
])
def test_bad_cifar_files_are_named(tmp_path: Path, name: str, change, message: str) -> None:
    path = write_cifar(tmp_path) / "cifar-100-python" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadInput, match=message):
        open_dataset("CIFAR100", tmp_path)


def test_missing_folder_names_the_download(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing; download https://.*unpack it in"):
        open_dataset("CIFAR100", tmp_path)


def test_links_are_followed(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").symlink_to(cifar / "cifar-100-python")
    assert open_dataset("CIFAR100", tmp_path).images_sha256 == open_dataset("CIFAR100", cifar).images_sha256


def test_toy_is_the_same_every_time() -> None:
    first, second = open_dataset("toy", Path()), open_dataset("toy", Path())
    assert (first.train.sha256(), first.test.sha256()) == (second.train.sha256(), second.test.sha256())


def test_toys_test_images_are_as_many_of_each_class() -> None:
    assert np.bincount(open_dataset("toy", Path()).test.labels).tolist() == [100] * 10


def test_a_smaller_image_is_the_rounded_average_of_boxes() -> None:
    red = [[0, 1, 10, 20], [1, 1, 30, 41], [255, 255, 0, 0], [255, 254, 0, 1]]
    green = [[4, 4, 0, 0], [4, 4, 0, 0], [0, 0, 8, 8], [0, 0, 8, 8]]
    image = np.stack([red, green, np.zeros((4, 4))], axis=-1).astype(np.uint8)
    small = Split(image[None], np.array([3], np.int32)).shrunk(2)
    assert small.images[0, ..., 0].tolist() == [[1, 25], [255, 0]]
    assert small.images[0, ..., 1].tolist() == [[4, 0], [0, 8]]
    assert not small.images[..., 2].any() and small.images.dtype == np.uint8 and small.labels.tolist() == [3]


def test_many_images_are_made_smaller() -> None:
    n = 2 * BLOCK + 1
    levels = np.arange(n) % 251
    images = np.broadcast_to(levels[:, None, None, None], (n, 2, 2, 3)).astype(np.uint8)
    assert (Split(images, levels).shrunk(2).images[:, 0, 0, 0] == levels).all()


@pytest.mark.parametrize("side, padding", [(32, 4), (16, 2), (8, 1)])
def test_smaller_images_are_cropped_after_as_much_less_padding(cifar: Path, side: int, padding: int) -> None:
    data = open_dataset("CIFAR100", cifar, side)
    assert data.train.image_shape == data.test.image_shape == (side, side, 3)
    assert data.source.train_transform == PadAndCrop(padding)


@pytest.mark.parametrize("side", [16, 8])
def test_an_index_serves_all_sizes(cifar: Path, side: int) -> None:
    own, small = open_dataset("CIFAR100", cifar), open_dataset("CIFAR100", cifar, side)
    assert small.images_sha256 == own.images_sha256 == own.train.sha256() != small.train.sha256()


@pytest.mark.parametrize("name, side, sizes", [("CIFAR100", 20, "32 or 16 or 8"), ("tiny", 32, "64"),
                                               ("toy", 8, "16")])
def test_other_sizes_are_refused(name: str, side: int, sizes: str) -> None:
    with pytest.raises(BadInput, match=f"--image_size {side}: images of {name} can have {sizes} pixels"):
        open_dataset(name, Path("nowhere"), side)


def test_the_first_classes_keep_labels_and_ids(cifar: Path) -> None:
    every, some = open_dataset("CIFAR100", cifar), open_dataset("CIFAR100", cifar, classes=3)
    assert some.classes == every.classes[:3] and some.images_sha256 == every.images_sha256
    ids = np.flatnonzero(every.train.labels < 3)
    assert (some.train.ids == ids).all() and (every.train.ids == np.arange(len(every.train.labels))).all()
    assert (some.train.labels == every.train.labels[ids]).all()
    assert (some.train.pixels([0, -1]) == every.train.pixels(ids[[0, -1]])).all()
    assert (some.test.labels == every.test.labels[every.test.labels < 3]).all()


@pytest.mark.parametrize("classes", [1, 6])
def test_other_numbers_of_classes_are_refused(cifar: Path, classes: int) -> None:
    with pytest.raises(BadInput, match=f"--classes {classes}: CIFAR100 has 5"):
        open_dataset("CIFAR100", cifar, classes=classes)


def test_evaluation_batches_normalize_in_order_and_fill_up(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    batches = list(EvaluationBatches(data, data.test, 32))
    assert [len(labels) for _, _, labels in batches] == [32, 32]
    index = np.concatenate([batch[0] for batch in batches])
    assert index.tolist() == list(range(50)) + [-1] * 14
    image = batches[1][1][3]
    pixels = image.transpose(1, 2, 0) * np.array(data.source.std) + np.array(data.source.mean)
    assert np.abs(pixels * 255 - data.test.images[35]).max() < 1e-3
    assert batches[1][2].tolist() == data.test.labels[32:].tolist() + [-1] * 14


def test_an_epoch_has_each_image_once(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    keep = np.arange(10, 110)
    batches = TrainingBatches(data, keep, 32, seed=1)
    epoch = list(batches.epoch(0))
    assert [len(labels) for _, _, labels in epoch] == [32, 32, 32, 4] and len(batches) == 4
    index = np.concatenate([batch[0] for batch in epoch])
    assert sorted(index) == keep.tolist() and index.tolist() != keep.tolist()


def test_training_images_are_cropped_and_flipped(cifar: Path) -> None:
    """Each is a crop of the padded image at one of 9 x 9 places, mirrored or not."""
    data = open_dataset("CIFAR100", cifar)
    batch = next(TrainingBatches(data, np.arange(TRAIN), 64, seed=1).epoch(0))
    padded = np.pad(data.train.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mean, std = np.array(data.source.mean), np.array(data.source.std)
    found = set()
    for i, image, label in zip(*batch):
        pixels = np.rint((image.transpose(1, 2, 0) * std + mean) * 255).astype(int)
        crops = [(top, left, flip) for top in range(9) for left in range(9) for flip in (1, -1)
                 if (padded[i, top:top + 32, left:left + 32][:, ::flip] == pixels).all()]
        assert len(crops) == 1 and label == data.train.labels[i]
        found.add(crops[0])
    assert len(found) > 20 and {flip for _, _, flip in found} == {1, -1}


def test_epochs_depend_on_seed_and_number_alone(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)

    def order(seed: int, *numbers: int) -> list[int]:
        batches = TrainingBatches(data, np.arange(50), 50, seed)
        return [next(batches.epoch(number))[0].tolist() for number in numbers][-1]

    assert order(1, 3) == order(1, 0, 3)
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)


def test_an_unknown_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="--dataset MNIST: unknown; known are CIFAR100, tiny, toy, folder, "):
        open_dataset("MNIST", Path())


SHA = 64 * "0"
MANIFEST = {"dataset": "toy", "images": 100, "dropped": 3, "method": "moderate", "rate": 0.97,
            "images_sha256": SHA}


def test_index_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "toy.bin"
    write_index(path, np.array([5, 1, 99]), MANIFEST)
    drop, manifest = read_index(path, "toy", np.arange(100), SHA)
    assert drop.tolist() == [1, 5, 99] and manifest.items() > MANIFEST.items()
    plain = pickle.loads(path.read_bytes())
    assert plain.dtype == np.int64 and plain.tolist() == [5, 1, 99]


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_index_of_the_pytorch_release_is_accepted(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "toy.bin"
    path.write_bytes(pickle.dumps(np.array([3, 2]), protocol=protocol))
    assert read_index(path, "toy", np.arange(100), SHA)[0].tolist() == [2, 3]


@pytest.mark.parametrize("drop, message", [
    (np.array([1, 100]), "0 to 99"), (np.array([-1]), "from -1"), (np.array([4, 4]), "repeated"),
    (np.array([0.5]), "not an array of image ids"), (np.arange(100), "drops all"), ({"a": 1}, "not an array"),
    ([1, 2 ** 70], "not an array"), ([[1], [1, 2]], "not an array"), ([3, 200], "0 to 99"),
])
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, drop, message: str) -> None:
    path = tmp_path / "toy.bin"
    path.write_bytes(pickle.dumps(drop))
    with pytest.raises(BadInput, match=message):
        read_index(path, "toy", np.arange(100), SHA)


@pytest.mark.parametrize("dataset, images, message",
                         [("CIFAR100", 100, "made for toy"), ("toy", 101, "made for toy")])
def test_an_index_of_another_data_set_is_refused(tmp_path: Path, dataset: str, images: int,
                                                 message: str) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    with pytest.raises(BadInput, match=message):
        read_index(tmp_path / "toy.bin", dataset, np.arange(images), SHA)


def test_an_index_with_ids_of_other_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(pickle.dumps(np.array([4, 5])))
    assert read_index(tmp_path / "toy.bin", "toy", np.array([0, 4, 5]), SHA)[0].tolist() == [4, 5]
    with pytest.raises(BadInput, match="from 4 to 5, toy has 3 from 0 to 6"):
        read_index(tmp_path / "toy.bin", "toy", np.array([0, 4, 6]), SHA)


def test_an_index_of_other_images_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    with pytest.raises(BadInput, match="made for other images or labels of toy"):
        read_index(tmp_path / "toy.bin", "toy", np.arange(100), 64 * "1")


def test_a_manifest_of_another_index_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    (tmp_path / "toy.bin").write_bytes(pickle.dumps(np.array([5, 1, 98])))
    with pytest.raises(BadInput, match="toy.json belongs to another index"):
        read_index(tmp_path / "toy.bin", "toy", np.arange(100), SHA)


@pytest.mark.parametrize("content", [
    "no JSON", "[]", "{}", '{"method": "../..", "rate": 1}', "[" * 100_000,
    '{"method": "moderate", "rate": 1, "not_default": 3}',
    '{"method": "moderate", "rate": 1, "not_default": ["/.."]}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(BadInput, match="toy.json: not"):
        read_index(tmp_path / "toy.bin", "toy", np.arange(100), SHA)


@pytest.mark.parametrize("manifest, name", [
    ({}, "coreset-toy-40"),
    (MANIFEST, "coreset-moderate-0.97"),
    ({**MANIFEST, "not_default": ["center-mean"]}, "coreset-moderate-0.97-center-mean"),
    ({**MANIFEST, "not_default": ["seed-1"]}, "coreset-moderate-0.97-seed-1"),
])
def test_a_coreset_runs_folder_names_what_is_not_default(manifest: dict, name: str) -> None:
    assert coreset_name(Path("index/toy.bin"), manifest, 40) == name


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(BadInput, match="mkdir.*not allowed"):
        unpickle(pickle.dumps({"data": Payload(trap)}), Path("train"))
    assert not trap.exists()


def test_a_few_bytes_cannot_ask_for_much_memory() -> None:
    with pytest.raises(BadInput, match="within a byte array"):
        unpickle(b"\x80\x05\x96" + (2 ** 40).to_bytes(8, "little") + b".", Path("x"))


def test_python_2_pickles_of_arrays_are_read() -> None:
    content = (b"\x80\x02}q\x00U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
               b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
               b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
               b"K\x00tb\x89U\x02\x07\xfftbs.")
    assert unpickle(content, Path("x"))["data"].tolist() == [7, 255]
