"""Corruptions, label noise and attacks as functions, against OpenCV, Pillow and PyTorch."""
import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import train
from datasets import SOURCES, DataSet, open_dataset
from datasets.images import Split
from datasets.scenes import CLEAN
from golden_networks import golden, seeded
from methods import select
from models.layers import classifier, fold_batchnorm, pool
from robust import attacks, options
from robust.attacks import ATTACKS, Attack
from robust.corruptions import BLUR_TAPS, CORRUPTIONS, choose_kinds, corrupt
from robust.labels import flip_labels
from utils.errors import BadInput
from utils.options import Number, fraction
from weights import make_pixels

SIDES = (32, 64)
LABELS = np.arange(50_000) % 100
ATTACK = Attack("GSA", "small", Path("x.pth"))


def apply(name: str, images: np.ndarray, seed: int = 0) -> np.ndarray:
    return CORRUPTIONS[name](images, np.random.default_rng(seed))


@pytest.mark.parametrize("side", SIDES)
def test_motion_blur_and_its_kernel_agree_with_opencv(side: int) -> None:
    expected = golden("scenes")[f"blurred_{side}"]
    difference = np.abs(apply("motion blur", make_pixels(len(expected), side)).astype(int) - expected)
    assert difference.max() <= 3 and difference.mean() < 0.01
    kernel = np.zeros((15, 15))
    kernel[7:9] = np.array(BLUR_TAPS) / 1024 / 15
    assert golden("scenes")["kernel"] == pytest.approx(kernel, abs=1e-12)


def test_motion_blur_stretches_each_image_to_the_whole_range_and_makes_one_of_one_value_black() -> None:
    images = 100 + make_pixels(4, 32) // 10
    blurred = apply("motion blur", images)
    assert blurred.min((1, 2, 3)).tolist() == [0] * 4 and blurred.max((1, 2, 3)).tolist() == [255] * 4
    assert not apply("motion blur", np.full((2, 32, 32, 3), 77, np.uint8)).any()


@pytest.mark.parametrize("side, y, x, of_black, of_white", [
    (32, 16, 16, 114, 141), (32, 0, 0, 108, 147), (64, 32, 32, 122, 133), (64, 0, 0, 117, 138)])
def test_fog_is_thickest_in_the_middle(side: int, y: int, x: int, of_black: int, of_white: int) -> None:
    """By hand: t = exp(-0.4 (sqrt(side) - 0.04 r)), black becomes 127.5 (1 - t), white that + 255 t."""
    images = np.stack([np.zeros((side, side, 3), np.uint8), np.full((side, side, 3), 255, np.uint8)])
    fogged = apply("fog", images)
    assert fogged[0, y, x].tolist() == [of_black] * 3 and fogged[1, y, x].tolist() == [of_white] * 3


@pytest.mark.parametrize("side", SIDES)
def test_resolution_is_pillows(side: int) -> None:
    expected = golden("scenes")[f"resolution_{side}"]
    assert (apply("resolution", make_pixels(len(expected), side)) == expected).all()


@pytest.mark.parametrize("side, end", [(32, 20), (64, 45)])
def test_rectangle(side: int, end: int) -> None:
    images = np.full((2, side, side, 3), 9, np.uint8)
    covered = apply("rectangle", images)
    inside = np.zeros((side, side), bool)
    inside[5:end + 1, 5:end + 1] = True
    assert (covered[:, inside] == 0).all() and (covered[:, ~inside] == 9).all()


def test_gaussian_noise_is_clipped_and_does_not_wrap() -> None:
    # 0.4: below 0 with P(z < -0.6), above 1 with P(z > 0.4).
    images = np.full((100, 32, 32, 3), 102, np.uint8)
    noisy = apply("gaussian", images)
    assert (noisy == 0).mean() == pytest.approx(0.2743, abs=0.005)
    assert (noisy == 255).mean() == pytest.approx(0.3446, abs=0.005)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_take_one_image_or_a_stack_and_leave_it(name: str) -> None:
    images = make_pixels(2, 32)
    stack, one = apply(name, images), apply(name, images[0])
    assert stack.dtype == one.dtype == np.uint8 and stack.shape == images.shape
    assert (one == stack[0]).all() and (stack != images).any((1, 2, 3)).all()
    assert (images == make_pixels(2, 32)).all()


@pytest.mark.parametrize("images, rate, each", [(50_000, 0.06, 3_000), (100_000, 0.2, 20_000), (99, 0, 0),
                                                (8, 0.2, 1), (13, 0.2, 2)])
def test_each_corruption_gets_its_fraction_of_the_images(images: int, rate: float, each: int) -> None:
    names, counts = np.unique(choose_kinds(images, rate, seed=1), return_counts=True)
    clean = {CLEAN: images - 5 * each} if images > 5 * each else {}
    corrupted = dict.fromkeys(CORRUPTIONS, each) if each else {}
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == clean | corrupted


def test_which_images_are_corrupted_and_mislabelled_follows_from_the_seed() -> None:
    for draw in (lambda seed: choose_kinds(1000, 0.06, seed),
                 lambda seed: flip_labels(LABELS, 100, 0.2, seed)[0]):
        first, again, other = map(draw, (1, 1, 2))
        assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("seed", [0, 42])
def test_a_random_selection_by_the_same_seed_is_independent(seed: int) -> None:
    perturbed = {"corrupted": choose_kinds(50_000, 0.04, seed) != CLEAN,
                 "mislabelled": flip_labels(np.zeros(50_000, int), 100, 0.2, seed)[1]}
    kept = select(np.zeros(50_000, int), 0.2, method="random", seed=seed)
    for kind, marks in perturbed.items():  # of 10,000 kept ones 20 % with a deviation of 0.4 % or less
        assert marks[kept].mean() == pytest.approx(0.2, abs=0.02), kind


def test_an_image_becomes_what_its_kind_says_and_noise_follows_from_the_seed() -> None:
    images, kinds = make_pixels(40, 32), choose_kinds(40, 0.1, seed=3)
    corrupted, again, other = (corrupt(images, kinds, seed) for seed in (3, 3, 4))
    assert ((corrupted != images).any((1, 2, 3)) == (kinds != CLEAN)).all()
    for name in CORRUPTIONS.keys() - {"gaussian"}:
        assert (corrupted[kinds == name] == apply(name, images[kinds == name])).all(), name
    assert (corrupted == again).all()
    assert ((corrupted != other).any((1, 2, 3)) == (kinds == "gaussian")).all()


def test_label_noise_changes_its_rate_of_the_labels_to_uniform_other_ones() -> None:
    noisy, changed = flip_labels(LABELS, 100, 0.2, seed=5)
    assert ((noisy != LABELS) == changed).all() and noisy.dtype == np.int64 and changed.dtype == bool
    assert abs(changed.sum() - 10_000) < 4 * np.sqrt(50_000 * 0.2 * 0.8)
    shifts = np.bincount((noisy - LABELS)[changed] % 100, minlength=100)
    assert shifts[0] == 0 and np.abs(shifts[1:] - changed.sum() / 99).max() < 5 * np.sqrt(changed.sum() / 99)
    assert 0 <= noisy.min() and noisy.max() < 100
    assert not flip_labels(LABELS, 100, 0, seed=5)[1].any() and flip_labels(LABELS, 100, 1, seed=5)[1].all()


def test_label_noise_of_the_first_classes_stays_among_them() -> None:
    noisy, changed = flip_labels(LABELS, 20, 0.2, seed=5)
    assert not changed[LABELS >= 20].any() and (noisy[LABELS < 20] < 20).all()
    assert changed[LABELS < 20].mean() == pytest.approx(0.2, abs=0.02)
    with pytest.raises(BadInput, match="no other label"):
        flip_labels(np.zeros(3, int), 1, 0.2, seed=5)


@pytest.mark.parametrize("text, value", [("8/255", 8 / 255), ("0.25", 0.25), ("1", 1)])
def test_fractions(text: str, value: float) -> None:
    assert fraction(text) == value


@pytest.mark.parametrize("parse, text", [
    *((fraction, text) for text in ("", "2", "-1/255", "nan", "1/0", "1/2/3", "a")),
    *((options.rate_of_each, text) for text in ("0.21", "-0.1", "nan", "much"))])
def test_fractions_that_are_none_and_those_that_five_corruptions_cannot_have_are_refused(
        parse: Number, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"from 0 on up to {parse.high:g}"):
        parse(text)


@pytest.fixture(scope="module")
def signs() -> attacks.GradientSign:
    """Of the golden network, folded."""
    network = seeded("resnet20")
    network.set_train(True)
    fold_batchnorm(network)
    split = Split(make_pixels(4, 32), np.zeros(4, np.int32))
    return attacks.make_gradient_sign(network, DataSet("", split, split, [], SOURCES["CIFAR100"], ""))


@pytest.mark.parametrize("name, labels", [("predicted", np.full(4, -1)), ("labels", np.arange(4) * 7)])
def test_gradients_signs_are_pytorchs(signs: attacks.GradientSign, name: str, labels: np.ndarray) -> None:
    gradient = golden("scenes")[f"gradient_{name}"]
    ours = signs(attacks.to_levels(make_pixels(4, 32)), labels.astype(np.int32)).transpose(0, 2, 3, 1)
    clear = np.abs(gradient) > 1e-3
    assert clear.mean() > 0.9 and (ours[clear] == np.sign(gradient)[clear]).all()


def test_gsa_is_one_step_along_pytorchs_gradient(signs: attacks.GradientSign) -> None:
    images, gradient = make_pixels(4, 32), golden("scenes")["gradient_predicted"]
    attacked = attacks.gsa(signs, images, np.zeros(4, np.int32), ATTACK, np.random.default_rng(0))
    expected = np.clip(images + 8 * np.sign(gradient), 0, 255)
    clear = np.abs(gradient) > 1e-3
    assert (attacked[clear] == expected[clear]).all()


def outwards(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A gradient's signs that push values away from the middle gray."""
    return np.where(images >= 128, 1, -1).astype(np.float32)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("eps, levels", [(8 / 255, 8), (1 / 255, 1), (2.7 / 255, 2), (0.03, 7)])
def test_attacks_use_eps_and_stay_within_it(attack: str, eps: float, levels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    images[0], images[1] = 0, 255
    attacked = ATTACKS[attack](outwards, images, np.zeros(20, np.int32), replace(ATTACK, eps=eps),
                               np.random.default_rng(1))
    assert attacked.dtype == np.uint8 and np.abs(attacked.astype(int) - images).max() == levels


@pytest.mark.parametrize("value, clean, eps, pixel", [
    (100.9, 100, 8, 100), (101.1, 100, 8, 101), (99.2, 100, 8, 99), (-3, 2, 8, 0), (262, 254, 8, 255),
    (97.3, 100, 2.7, 98), (102.7, 100, 2.7, 102)])  # 97 would be three levels away
def test_attacks_truncate_and_stay_within_eps(value: float, clean: int, eps: float, pixel: int) -> None:
    images = np.full((1, 2, 2, 3), clean, np.uint8)
    found = attacks.to_pixels(np.full((1, 3, 2, 2), value, np.float32), images, eps / 255)
    assert found.dtype == np.uint8 and (found == pixel).all()


def test_pgd_starts_anywhere_within_eps_by_seed() -> None:
    images = np.full((2, 32, 32, 3), 100, np.uint8)
    first, again, other = (attacks.pgd(lambda x, _: np.zeros_like(x), images, np.zeros(2), ATTACK,
                                       np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert np.unique(first).tolist() == list(range(92, 108))


def test_pgd_is_against_the_images_labels_and_gsa_is_not() -> None:
    labels, seen = np.arange(4, dtype=np.int32), []

    def sign(images: np.ndarray, used: np.ndarray) -> np.ndarray:
        seen.append(used.tolist())
        return np.zeros_like(images)

    for name in ("PGD", "GSA"):
        ATTACKS[name](sign, make_pixels(4, 32), labels, replace(ATTACK, steps=3),
                      np.random.default_rng(0))
    assert seen == [[0, 1, 2, 3]] * 3 + [[attacks.PREDICTED] * 4]


class Small(nn.Cell):
    """Two convolutions."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convolutions = nn.SequentialCell(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2),
                                              nn.ReLU())
        self.classifier = classifier(128, num_classes)

    def features(self, x: ms.Tensor) -> ms.Tensor:
        return pool(self.convolutions(x), 2)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.classifier(self.features(x))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Cell, DataSet]:
    """A small network trained on part of the toy set."""
    data = open_dataset("toy", Path())
    ms.set_seed(0)
    network = Small(len(data.classes))
    args = train.parse_options("--epoch 8 --batch_size 30 --lr 0.1 --seed 0 --eval_freq 8 --save False "
                               "--dynamics False".split())
    train.train(network, data, np.arange(3000), tmp_path_factory.mktemp("trained"), args)
    return network.set_train(False), data


def batches(trained: tuple[nn.Cell, DataSet], images: int, name: str, batch_size: int,
            first: int = 0) -> Iterator[dict[str, np.ndarray]]:
    network, data = trained
    split = Split(data.test.images[:images], data.test.labels[:images])
    attack = replace(ATTACK, name=name, batch_size=batch_size, seed=0)
    return attacks.attacked_batches(network, data, split, attack, first)


@pytest.fixture(scope="module")
def accuracies(trained: tuple[nn.Cell, DataSet]) -> dict[str, float]:
    """Of 200 images, as they are, under both attacks, and under noise of the same size."""
    network, data = trained
    right = {}
    for attack in ATTACKS:
        correct = np.concatenate([batch["correct"] for batch in batches(trained, 200, attack, 100)])
        right["clean"], right[attack] = correct.mean(axis=0)
    images, labels = data.test.images[:200], data.test.labels[:200]
    noise = np.random.default_rng(0).choice([-8, 8], images.shape)
    predict = attacks.make_predict(network, data)
    right["noise"] = np.mean(predict(np.clip(images + noise, 0, 255).astype(np.uint8)) == labels)
    return right


def test_pgd_beats_gsa_beats_noise(accuracies: dict[str, float]) -> None:
    assert accuracies["PGD"] < accuracies["GSA"] < accuracies["noise"], accuracies
    assert accuracies["clean"] > 0.3, accuracies  # the network has learnt


def test_an_attacks_last_batch_is_as_the_others(trained: tuple[nn.Cell, DataSet]) -> None:
    five, eight = ([batch["images"] for batch in batches(trained, 10, "GSA", size)] for size in (5, 8))
    assert [len(pixels) for pixels in eight] == [8, 2]
    assert (np.concatenate(five) == np.concatenate(eight)).mean() > 0.99  # but for gradients near zero


def test_a_resumed_attack_gives_the_same_images(trained: tuple[nn.Cell, DataSet]) -> None:
    whole = [batch["images"] for batch in batches(trained, 10, "PGD", 4)]
    rest = [batch["images"] for batch in batches(trained, 10, "PGD", 4, first=1)]
    assert len(rest) == 2 and all((one == other).all() for one, other in zip(whole[1:], rest, strict=True))
