"""CIFAR-100's reader, the batches, smaller images, the recipe, index files, pickles."""
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import TRAIN, Payload, names, npy, write_cifar, write_cifar10
from datasets import SOURCES, open_dataset
from datasets.images import BLOCK, Split
from datasets.pipeline import evaluation_batches, training_batches
from datasets.transforms import PadAndCrop
from utils.errors import BadInput
from utils.index import coreset_name, read_index, write_index
from utils.pickles import unpickle


@pytest.mark.parametrize("name, rates, weight_decay, clip_norm", [
    ("CIFAR100", [0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40, 5e-4, None),
    ("CIFAR100", [0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2, 5e-4, None),
    ("tiny", [0.1] * 30 + [0.01] * 30 + [0.001] * 30, 1e-4, 1),
    ("folder", [0.1] * 3 + [0.01] * 3 + [0.001] * 3, 1e-4, None)])
def test_recipes_are_the_papers_and_milestones_keep_their_fraction_of_a_shorter_run(
        name: str, rates: list[float], weight_decay: float, clip_norm: float | None) -> None:
    recipe = SOURCES[name].recipe
    found = [recipe.learning_rate(0.1, epoch, len(rates)) for epoch in range(len(rates))]
    assert found == pytest.approx(rates)
    assert (recipe.weight_decay, recipe.clip_norm) == (weight_decay, clip_norm)


def test_cifar_layout(cifar: Path, capsys: pytest.CaptureFixture) -> None:
    data = open_dataset("CIFAR100", cifar)
    assert "not the official release" in capsys.readouterr().out
    assert data.train.images.shape == (TRAIN, 32, 32, 3) and data.train.images.dtype == np.uint8
    raw = pickle.loads((cifar / "cifar-100-python" / "train").read_bytes())
    assert data.train.images[3, 2, 1, 0] == raw["data"][3, 2 * 32 + 1]
    assert data.train.labels.tolist() == raw["fine_labels"]
    assert data.classes[2] == "class 2"


def test_cifar10_is_read_in_its_official_layout(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Five files of training images, one after the other."""
    write_cifar10(tmp_path)
    data, same = open_dataset("CIFAR10", tmp_path), open_dataset("CIFAR100", tmp_path)
    assert "cifar-10-batches-py: not the official release of CIFAR10 (MD5" in capsys.readouterr().out
    assert data.images_sha256 == same.images_sha256 and data.test.sha256() == same.test.sha256()
    assert data.classes == same.classes and data.source.recipe == same.source.recipe
    assert (data.source.mean, data.source.std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert len(open_dataset("CIFAR10", tmp_path / "cifar-10-batches-py", 16, 2).classes) == 2
    path = tmp_path / "cifar-10-batches-py/data_batch_3"
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}))
    with pytest.raises(BadInput, match="data_batch_3: 'labels' is not a list of 2 labels from 0 to 4"):
        open_dataset("CIFAR10", tmp_path)
    path.unlink()
    with pytest.raises(BadInput, match=f"3: missing; python -m datasets.download CIFAR10 --data {tmp_path} "):
        open_dataset("CIFAR10", tmp_path)


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


def test_what_others_have_written_as_cifar_is_read(cifar: Path, tmp_path: Path) -> None:
    """Keys in bytes, labels in an array, the three files in --data itself."""
    shutil.copytree(cifar / "cifar-100-python", tmp_path, dirs_exist_ok=True)
    table = pickle.loads((tmp_path / "train").read_bytes())
    table["fine_labels"] = np.array(table["fine_labels"])
    (tmp_path / "train").write_bytes(pickle.dumps({key.encode(): value for key, value in table.items()}))
    assert open_dataset("CIFAR100", tmp_path).images_sha256 == open_dataset("CIFAR100", cifar).images_sha256


def test_toy_is_the_same_every_time_with_as_many_test_images_for_each_class() -> None:
    first, second = open_dataset("toy", Path()), open_dataset("toy", Path())
    assert (first.train.sha256(), first.test.sha256()) == (second.train.sha256(), second.test.sha256())
    assert np.bincount(first.test.labels).tolist() == [100] * 10


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
def test_smaller_images_are_cropped_after_as_much_less_padding_and_an_index_serves_all_sizes(
        cifar: Path, side: int, padding: int) -> None:
    own, data = open_dataset("CIFAR100", cifar), open_dataset("CIFAR100", cifar, side)
    assert data.train.image_shape == data.test.image_shape == (side, side, 3)
    assert data.source.train_transform == PadAndCrop(padding)
    assert data.images_sha256 == own.images_sha256 == own.train.sha256()
    assert (data.train.sha256() == own.train.sha256()) == (side == 32)


@pytest.mark.parametrize("name, options, message", [
    ("CIFAR100", {"image_size": 20}, "--image_size 20: images of CIFAR100 can have 32 or 16 or 8 pixels"),
    ("tiny", {"image_size": 20}, "--image_size 20: images of tiny can have 64 or 32 or 16 pixels"),
    ("CIFAR100", {"classes": 1}, "--classes 1: CIFAR100 has 5"),
    ("CIFAR100", {"classes": 6}, "--classes 6:")])
def test_other_sizes_and_classes_are_refused(cifar: Path, name: str, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_dataset(name, cifar, **options)


def test_the_first_classes_keep_labels_and_ids(cifar: Path) -> None:
    every, some = open_dataset("CIFAR100", cifar), open_dataset("CIFAR100", cifar, classes=3)
    assert some.classes == every.classes[:3] and some.images_sha256 == every.images_sha256
    ids = np.flatnonzero(every.train.labels < 3)
    assert (some.train.ids == ids).all() and (every.train.ids == np.arange(len(every.train.labels))).all()
    assert (some.train.labels == every.train.labels[ids]).all()
    assert (some.train.pixels([0, -1]) == every.train.pixels(ids[[0, -1]])).all()
    assert (some.test.labels == every.test.labels[every.test.labels < 3]).all()
    assert open_dataset("CIFAR100", cifar, classes=5).train.subset is None  # all of them


def test_evaluation_batches_normalize_in_order_and_fill_up(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)
    batches = list(evaluation_batches(data, data.test, 32))
    assert [len(labels) for _, _, labels in batches] == [32, 32]
    index = np.concatenate([batch[0] for batch in batches])
    assert index.tolist() == list(range(50)) + [-1] * 14
    image = batches[1][1][3]
    pixels = image.transpose(1, 2, 0) * np.array(data.source.std) + np.array(data.source.mean)
    assert np.abs(pixels * 255 - data.test.images[35]).max() < 1e-3
    assert batches[1][2].tolist() == data.test.labels[32:].tolist() + [-1] * 14


def test_training_images_are_cropped_and_flipped(cifar: Path) -> None:
    """Each is a crop of the padded image at one of 9 x 9 places, mirrored or not."""
    data = open_dataset("CIFAR100", cifar)
    batch = next(training_batches(data, np.arange(TRAIN), 64, seed=1, epoch=0))
    padded = np.pad(data.train.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mean, std = np.array(data.source.mean), np.array(data.source.std)
    found = set()
    for i, image, label in zip(*batch, strict=True):
        pixels = np.rint((image.transpose(1, 2, 0) * std + mean) * 255).astype(int)
        crops = [(top, left, flip) for top in range(9) for left in range(9) for flip in (1, -1)
                 if (padded[i, top:top + 32, left:left + 32][:, ::flip] == pixels).all()]
        assert len(crops) == 1 and label == data.train.labels[i]
        found.add(crops[0])
    assert len(found) > 20 and {flip for _, _, flip in found} == {1, -1}


def test_epochs_depend_on_seed_and_number_alone(cifar: Path) -> None:
    data = open_dataset("CIFAR100", cifar)

    def order(seed: int, epoch: int) -> list[int]:
        return next(training_batches(data, np.arange(50), 50, seed, epoch))[0].tolist()

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)


SHA = 64 * "0"
MANIFEST = {"dataset": "toy", "images": 100, "dropped": 3, "method": "moderate", "rate": 0.97,
            "images_sha256": SHA}


def test_index_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "toy.bin"
    write_index(path, np.array([5, 1, 99]), MANIFEST)
    drop, manifest = read_index(path, "toy", np.arange(100), SHA)
    assert drop.tolist() == [1, 5, 99] and manifest.items() > MANIFEST.items()
    np.save(tmp_path / "toy.kept.npy", np.delete(np.arange(100, dtype=np.uint8), drop))
    dropped, same = read_index(tmp_path / "toy.kept.npy", "toy", np.arange(100), SHA, kept=True)
    assert dropped.tolist() == drop.tolist() and same == manifest
    plain = pickle.loads(path.read_bytes())
    assert plain.dtype == np.int64 and plain.tolist() == [5, 1, 99]


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_index_of_the_pytorch_release_is_accepted(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "toy.bin"
    path.write_bytes(pickle.dumps(np.array([3, 2]), protocol=protocol))
    assert read_index(path, "toy", np.arange(100), SHA)[0].tolist() == [2, 3]


@pytest.mark.parametrize("ids", [[np.int64(3), np.int32(2)], [3.0, 2.0], np.array([3.0, 2.0], "f4"), [],
                                 *(np.array([3, 2], dtype) for dtype in ("i4", "u1", ">i8", "u8"))])
@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_what_others_write_as_an_index_is_read(tmp_path: Path, ids: list | np.ndarray, suffix: str) -> None:
    path = tmp_path / f"toy{suffix}"
    path.write_bytes(pickle.dumps(ids) if suffix == ".bin" else npy(np.array(ids)))
    drop = read_index(path, "toy", np.arange(100), SHA)[0]
    assert drop.dtype == np.int64 and drop.tolist() == ([2, 3] if len(ids) else [])
    if len(ids):  # the same numbers, of whatever type, as ids to keep
        assert read_index(path, "toy", np.arange(5), SHA, kept=True)[0].tolist() == [0, 1, 4]


@pytest.mark.parametrize("name, kept, message", [
    ("toy.json", False, "toy.json: not a list of images; specify the .bin or"),
    ("toy.scores.npy", True, "toy.scores.npy: not a list of images; specify the .bin or"),
    ("toy.kept.npy", False, "--prune .*/toy.kept.npy: holds the images to keep; use --kept"),
    ("toy.txt", False, "--prune .*/toy.txt: holds the images to keep; use --kept"),
    ("toy.bin", True, "--kept .*/toy.bin: holds the images to drop; use --prune"),
    ("toy.kept.npy", True, "toy.kept.npy: its manifest toy.json belongs to another index"),
    ("toy.txt", True, "toy.txt: its manifest toy.json belongs to another index")])
def test_a_file_beside_an_index_never_means_the_opposite(tmp_path: Path, name: str, kept: bool,
                                                         message: str) -> None:
    """Those that may be used here hold other images than the index keeps."""
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    np.save(tmp_path / "toy.kept.npy", np.arange(97))
    (tmp_path / "toy.txt").write_bytes(b"".join(b"%d\n" % i for i in range(97)))
    with pytest.raises(BadInput, match=message):
        read_index(tmp_path / name, "toy", np.arange(100), SHA, kept, [b"%d" % i for i in range(100)])


@pytest.mark.parametrize("drop, message", [
    (np.array([1, 100]), "0 to 99"), (np.array([-1]), "from -1"), (np.array([4, 4]), "repeated"),
    (np.array([0.5]), "not an array of image ids"), (np.arange(100), "drops all"), ({"a": 1}, "not an array"),
    ([1, 2 ** 70], "not an array"), ([[1], [1, 2]], "list, not an array"), ([3, 200], "0 to 99"),
])
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, drop, message: str) -> None:
    path = tmp_path / "toy.bin"
    path.write_bytes(pickle.dumps(drop))
    with pytest.raises(BadInput, match=message):
        read_index(path, "toy", np.arange(100), SHA)


@pytest.mark.parametrize("dataset, images, sha256, drop, message", [
    ("CIFAR100", 100, SHA, 99, "made for toy"), ("toy", 101, SHA, 99, "made for 100 images of t"),
    ("toy", 100, 64 * "1", 99, "made for other images or labels of toy"),
    ("toy", 100, SHA, 98, "toy.json belongs to another index")])
def test_an_index_of_another_data_set_and_a_manifest_of_another_index_are_refused(
        tmp_path: Path, dataset: str, images: int, sha256: str, drop: int, message: str) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    (tmp_path / "toy.bin").write_bytes(pickle.dumps(np.array([5, 1, drop])))
    with pytest.raises(BadInput, match=message):
        read_index(tmp_path / "toy.bin", dataset, np.arange(images), sha256)


def test_an_index_with_ids_of_other_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(pickle.dumps(np.array([4, 5])))
    assert read_index(tmp_path / "toy.bin", "toy", np.array([0, 4, 5]), SHA)[0].tolist() == [4, 5]
    with pytest.raises(BadInput, match="from 4 to 5, toy has 3 from 0 to 6"):
        read_index(tmp_path / "toy.bin", "toy", np.array([0, 4, 6]), SHA)


@pytest.mark.parametrize("content", [
    "no JSON", "[]", "{}", '{"method": "../..", "rate": 1}', "[" * 100_000,
    '{"method": "moderate", "rate": 1, "not_default": 3}',
    '{"method": "moderate", "rate": 1, "not_default": ["/.."]}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    write_index(tmp_path / "toy.bin", np.array([5, 1, 99]), MANIFEST)
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(BadInput, match="toy.json: not"):
        read_index(tmp_path / "toy.bin", "toy", np.arange(100), SHA)


def test_a_coreset_runs_folder_is_named_after_an_index_without_manifest() -> None:
    assert coreset_name(Path("index/toy.bin"), {}, 40) == "coreset-toy-40"


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="mkdir.*not allowed"):
        unpickle(pickle.dumps({"data": Payload()}), Path("train"))
    assert not names(tmp_path)


def test_a_few_bytes_cannot_ask_for_much_memory() -> None:
    for content in (b"\x80\x05\x96" + (2 ** 40).to_bytes(8, "little") + b".", b"\x80\x02]r\xff\xff\xff\xff."):
        with pytest.raises(BadInput, match="x: not a pickle of plain arrays"):
            unpickle(content, Path("x"))


def test_python_2_pickles_of_arrays_are_read() -> None:
    content = (b"\x80\x02}q\x00U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
               b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
               b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
               b"K\x00tb\x89U\x02\x07\xfftbs.")
    assert unpickle(content, Path("x"))["data"].tolist() == [7, 255]
