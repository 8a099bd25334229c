"""The loader, the transforms, the recipe, the index files."""
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from conftest import TRAIN, write_cifar
from datasets import SOURCES, open_dataset
from datasets.index import read_index, write_index
from datasets.pipeline import EvaluationBatches, TrainingBatches
from files import BadInput, unpickle


def test_cifar100_recipe_is_the_papers() -> None:
    recipe = SOURCES["CIFAR100"].recipe
    rates = [recipe.learning_rate(0.1, epoch, 200) for epoch in range(200)]
    expected = [0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40
    assert rates == pytest.approx(expected)
    assert recipe.weight_decay == 5e-4


def test_milestones_keep_their_share_of_a_shorter_run() -> None:
    rates = [SOURCES["CIFAR100"].recipe.learning_rate(0.1, epoch, 10) for epoch in range(10)]
    assert rates == pytest.approx([0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2)


def test_cifar_layout(cifar: Path, capsys: pytest.CaptureFixture) -> None:
    data = open_dataset("CIFAR100", cifar)
    assert "not the official release" in capsys.readouterr().out
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


def test_toy_is_the_same_every_time() -> None:
    first, second = open_dataset("toy", Path()), open_dataset("toy", Path())
    assert first.train.sha256() == second.train.sha256()
    assert len(set(np.bincount(first.test.labels))) == 1


def test_evaluation_batches_normalise_in_order_and_fill_up(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    batches = list(EvaluationBatches(data, data.test, 32))
    assert [len(labels) for _, _, labels in batches] == [32, 32]
    index = np.concatenate([batch[0] for batch in batches])
    assert index.tolist() == list(range(50)) + [-1] * 14
    image = batches[1][1][3]
    expected = (data.test.images[35] / 255 - np.array(data.mean)) / np.array(data.std)
    assert np.abs(image.transpose(1, 2, 0) - expected).max() < 1e-5
    assert batches[1][2].tolist() == data.test.labels[32:].tolist() + [-1] * 14


def test_training_batches_crop_flip_and_cover_each_image_once(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    keep = np.arange(10, 110)
    batches = TrainingBatches(data, keep, 32, seed=1)
    epoch = list(batches.epoch(0))
    assert [len(labels) for _, _, labels in epoch] == [32, 32, 32, 4] and len(batches) == 4
    index = np.concatenate([batch[0] for batch in epoch])
    assert sorted(index) == keep.tolist() and index.tolist() != keep.tolist()
    padded = np.pad(data.train.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mean, std = np.array(data.mean), np.array(data.std)
    found = set()
    for i, image, label in zip(epoch[0][0], epoch[0][1], epoch[0][2]):
        pixels = np.rint((image.transpose(1, 2, 0) * std + mean) * 255).astype(int)
        crops = [(top, left, flip) for top in range(9) for left in range(9) for flip in (1, -1)
                 if (padded[i, top:top + 32, left:left + 32][:, ::flip] == pixels).all()]
        assert len(crops) == 1 and label == data.train.labels[i]
        found.add(crops[0])
    assert len(found) > 20 and {flip for _, _, flip in found} == {1, -1}


def test_epochs_depend_on_seed_and_number_alone(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    first, again, other = (next(TrainingBatches(data, np.arange(50), 50, seed).epoch(3))
                           for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again))
    assert (first[0] != other[0]).any()
    assert (next(TrainingBatches(data, np.arange(50), 50, 1).epoch(4))[0] != first[0]).any()


SHA = 64 * "0"
MANIFEST = {"dataset": "toy", "images": 100, "dropped": 3, "method": "moderate", "rate": 0.97,
            "images_sha256": SHA}


def test_index_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "toy.bin"
    write_index(path, np.array([5, 1, 99]), MANIFEST)
    drop, manifest = read_index(path, "toy", 100, SHA)
    assert drop.tolist() == [1, 5, 99] and manifest.items() > MANIFEST.items()
    plain = pickle.loads(path.read_bytes())
    assert plain.dtype == np.int64 and plain.tolist() == [5, 1, 99]


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_index_of_the_pytorch_release_is_accepted(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "toy.bin"
    path.write_bytes(pickle.dumps(np.array([3, 2]), protocol=protocol))
    assert read_index(path, "toy", 100, SHA)[0].tolist() == [2, 3]


@pytest.mark.parametrize("drop, message", [
    (np.array([1, 100]), "0 to 99"), (np.array([-1]), "from -1"), (np.array([4, 4]), "repeated"),
    (np.array([0.5]), "not an array of image ids"), (np.arange(100), "drops all"), ({"a": 1}, "not an array"),
    ([1, 2 ** 70], "not an array"), ([[1], [1, 2]], "not an array"), ([3, 200], "0 to 99"),
])
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, drop, message: str) -> None:
    path = tmp_path / "toy.bin"
    path.write_bytes(pickle.dumps(drop))
    with pytest.raises(BadInput, match=message):
        read_index(path, "toy", 100, SHA)


@pytest.mark.parametrize("dataset, images, message",
                         [("CIFAR100", 100, "made for toy"), ("toy", 101, "made for toy")])
def test_an_index_of_another_data_set_is_refused(tmp_path: Path, dataset: str, images: int,
                                                 message: str) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    with pytest.raises(BadInput, match=message):
        read_index(tmp_path / "toy.bin", dataset, images, SHA)


def test_an_index_of_other_images_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    with pytest.raises(BadInput, match="made for other images or labels of toy"):
        read_index(tmp_path / "toy.bin", "toy", 100, 64 * "1")


def test_a_manifest_of_another_index_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    (tmp_path / "toy.bin").write_bytes(pickle.dumps(np.array([5, 1, 98])))
    with pytest.raises(BadInput, match="toy.json belongs to another index"):
        read_index(tmp_path / "toy.bin", "toy", 100, SHA)


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"method": "../..", "rate": 1}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(BadInput, match="toy.json: not"):
        read_index(tmp_path / "toy.bin", "toy", 100, SHA)


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
