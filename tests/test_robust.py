"""Corruptions, label noise and attacks as functions; blur against OpenCV, gradients against PyTorch."""
import argparse
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import train
from datasets import SOURCES, DataSet, open_dataset
from datasets.images import Split
from files import BadInput
from models import create_model
from models.layers import fold_batchnorm
from robust import attacks, options
from robust.attacks import ATTACKS, Budget
from robust.corruptions import CLEAN, CORRUPTIONS, choose_kinds, corrupt
from robust.labels import flip_labels
from selection import ids_to_drop, random_order
from test_models import golden, seeded
from weights import make_pixels

SIDES = (32, 64)


def apply(name: str, images: np.ndarray, seed: int = 0) -> np.ndarray:
    return CORRUPTIONS[name](images, np.random.default_rng(seed))


@pytest.mark.parametrize("side", SIDES)
def test_motion_blur_agrees_with_opencv(side: int) -> None:
    expected = golden("scenes")
    images = make_pixels(len(expected[f"blurred_{side}"]), side)
    difference = apply("motion blur", images).astype(int) - expected[f"blurred_{side}"]
    assert np.abs(difference).max() <= 1 and np.abs(difference).mean() < 0.01


def test_motion_blurs_kernel_is_opencvs_and_keeps_brightness() -> None:
    kernel = golden("scenes")["kernel"]
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    spread = apply("motion blur", point)[8:23, 8:23, 0]
    # Correlation mirrors a point's image.
    assert np.abs(spread[::-1, ::-1] / 255 - kernel).max() < 0.5 / 255 + 1e-6
    assert (apply("motion blur", np.full((2, 32, 32, 3), 77, np.uint8)) == 77).all()


@pytest.mark.parametrize("side", SIDES)
def test_fog(side: int) -> None:
    images = make_pixels(2, side)
    fogged = apply("fog", images)
    for i, y, x, c in ((0, 0, 0, 0), (1, side // 2, side // 2, 1), (1, side - 1, 3, 2)):
        d = -0.04 * np.hypot(y - side // 2, x - side // 2) + np.sqrt(side)
        t = np.exp(-0.4 * d)
        assert fogged[i, y, x, c] == round(255 * (images[i, y, x, c] / 255 * t + 0.5 * (1 - t)))
    assert fogged.mean() > 100  # and not black


@pytest.mark.parametrize("side", SIDES)
def test_resolution(side: int) -> None:
    images = make_pixels(2, side)
    coarse = apply("resolution", images)
    for i, y, x, c in ((0, 0, 0, 0), (1, 7, 9, 1), (1, side - 1, side - 1, 2)):
        block = images[i, y // 4 * 4:y // 4 * 4 + 4, x // 4 * 4:x // 4 * 4 + 4, c]
        assert abs(coarse[i, y, x, c] - block.mean()) <= 0.5
    assert (coarse[:, ::4, ::4] == coarse[:, 3::4, 3::4]).all()


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
    noise = np.random.default_rng(0).standard_normal(images.shape, np.float32)
    assert noisy[3, 2, 1, 0] == round(255 * min(max(0.4 + 0.2 + float(noise[3, 2, 1, 0]), 0), 1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_take_one_image_or_a_stack(name: str) -> None:
    images = make_pixels(2, 32)
    before = images.copy()
    stack, one = apply(name, images), apply(name, images[0])
    assert stack.dtype == one.dtype == np.uint8 and stack.shape == images.shape
    assert (one == stack[0]).all() and (images == before).all() and (stack != images).any()


def test_rates_are_exact_shares_without_overlap() -> None:
    kinds = choose_kinds(50_000, 0.06, seed=1)
    assert {str(name): count for name, count in zip(*np.unique(kinds, return_counts=True))} == {
        CLEAN: 35_000, **dict.fromkeys(CORRUPTIONS, 3_000)}
    assert (kinds == choose_kinds(50_000, 0.06, seed=1)).all()
    assert (kinds != choose_kinds(50_000, 0.06, seed=2)).any()
    assert (choose_kinds(100_000, 0.2, seed=1) != CLEAN).all()
    assert (choose_kinds(99, 0, seed=1) == CLEAN).all()


    assert (choose_kinds(8, 0.2, seed=1) != CLEAN).sum() == 5


@pytest.mark.parametrize("seed", [0, 42])
def test_a_random_selection_by_the_same_seed_is_independent(seed: int) -> None:
    perturbed = {"corrupted": choose_kinds(50_000, 0.04, seed) != CLEAN,
                 "mislabelled": flip_labels(np.zeros(50_000, int), 100, 0.2, seed)[1]}
    drop = ids_to_drop(random_order(50_000, seed), 0.2)
    for kind, marks in perturbed.items():  # of 10,000 kept ones 20 % with a deviation of 0.4 % or less
        assert np.delete(marks, drop).mean() == pytest.approx(0.2, abs=0.02), kind


@pytest.mark.parametrize("rate", ["0.21", "-0.1", "nan", "much"])
def test_shares_that_do_not_fit_are_refused(rate: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to"):
        options.share_of_each(rate)


def test_corrupt_changes_the_chosen_images_alone_and_by_seed() -> None:
    images = make_pixels(40, 32)
    kinds = choose_kinds(40, 0.1, seed=3)
    first, again, other = (corrupt(images, kinds, seed) for seed in (3, 3, 4))
    changed = (first != images).any((1, 2, 3))
    assert (changed == (kinds != CLEAN)).all() and (first == again).all()
    assert ((first != other).any((1, 2, 3)) == (kinds == "gaussian")).all()
    fogged = np.flatnonzero(kinds == "fog")
    assert (first[fogged] == apply("fog", images[fogged])).all()


def test_label_noise() -> None:
    labels = np.arange(50_000) % 100
    noisy, changed = flip_labels(labels, 100, 0.2, seed=5)
    assert ((noisy != labels) == changed).all() and noisy.dtype == np.int64
    assert abs(changed.sum() - 10_000) < 4 * np.sqrt(50_000 * 0.2 * 0.8)
    shifts = np.bincount((noisy - labels)[changed] % 100, minlength=100)
    assert shifts[0] == 0 and np.abs(shifts[1:] - changed.sum() / 99).max() < 5 * np.sqrt(changed.sum() / 99)
    assert 0 <= noisy.min() and noisy.max() < 100
    assert (noisy == flip_labels(labels, 100, 0.2, seed=5)[0]).all()
    assert (noisy != flip_labels(labels, 100, 0.2, seed=6)[0]).any()
    assert flip_labels(labels, 100, 1, seed=5)[1].all() and not flip_labels(labels, 100, 0, seed=5)[1].any()
    with pytest.raises(BadInput, match="no other label"):
        flip_labels(np.zeros(3, int), 1, 0.2, seed=5)


@pytest.mark.parametrize("text, value", [("8/255", 8 / 255), ("0.25", 0.25), ("1", 1)])
def test_shares_as_options(text: str, value: float) -> None:
    assert options.share(text) == value


@pytest.mark.parametrize("text", ["", "2", "-1/255", "nan", "1/0", "1/2/3", "a"])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(options.argparse.ArgumentTypeError):
        options.share(text)


def cifar_data(images: np.ndarray, labels: np.ndarray, classes: int) -> DataSet:
    source, split = SOURCES["CIFAR100"], Split(images, labels)
    return DataSet("CIFAR100", split, split, [str(i) for i in range(classes)], source.mean, source.std, True,
                   source.recipe, source.train_transform)


@pytest.fixture(scope="module")
def signs() -> attacks.GradientSign:
    """Of the golden network, folded."""
    network = seeded("resnet20")
    network.set_train(True)
    fold_batchnorm(network)
    return attacks.make_gradient_sign(network, cifar_data(make_pixels(4, 32), np.zeros(4, np.int32), 100))


@pytest.mark.parametrize("name, labels", [("predicted", np.full(4, -1)), ("labels", np.arange(4) * 7)])
def test_gradients_signs_are_pytorchs(signs: attacks.GradientSign, name: str, labels: np.ndarray) -> None:
    gradient = golden("scenes")[f"gradient_{name}"]
    ours = signs(attacks.to_levels(make_pixels(4, 32)), labels.astype(np.int32)).transpose(0, 2, 3, 1)
    clear = np.abs(gradient) > 1e-3
    assert clear.mean() > 0.9 and (ours[clear] == np.sign(gradient)[clear]).all()


def test_gsa_is_one_step_along_pytorchs_gradient(signs: attacks.GradientSign) -> None:
    images, gradient = make_pixels(4, 32), golden("scenes")["gradient_predicted"]
    attacked = attacks.gsa(signs, images, np.zeros(4, np.int32), Budget(), np.random.default_rng(0))
    expected = np.clip(images + 8 * np.sign(gradient), 0, 255)
    clear = np.abs(gradient) > 1e-3
    assert (attacked[clear] == expected[clear]).all()


def upwards(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A gradient's signs that push values away from the middle grey."""
    return np.where(images >= 128, 1, -1).astype(np.float32)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("eps", [8 / 255, 1 / 255, 2.7 / 255, 0.03])
def test_attacks_stay_within_eps_and_range(attack: str, eps: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    images[0], images[1] = 0, 255
    attacked = ATTACKS[attack](upwards, images, np.zeros(20, np.int32), Budget(eps=eps),
                               np.random.default_rng(1))
    changes = np.abs(attacked.astype(int) - images)
    assert attacked.dtype == np.uint8 and changes.max() <= eps * 255 + 1e-9
    assert changes.max() == int(eps * 255 + 1e-9)


def test_pgd_starts_at_random_by_seed() -> None:
    images = np.full((2, 32, 32, 3), 100, np.uint8)
    first, again, other = (attacks.pgd(lambda x, _: np.zeros_like(x), images, np.zeros(2), Budget(),
                                       np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert np.bincount(first.reshape(-1), minlength=109)[92:109].min() > 0  # all of the ball


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Cell, DataSet]:
    """A small network trained on part of the toy set."""
    data = open_dataset("toy", Path())
    ms.set_seed(0)
    network = create_model("resnet20", len(data.classes), True)
    train.train(network, data, np.arange(1200), tmp_path_factory.mktemp("trained"), epochs=8, batch_size=60,
                lr=0.05, seed=0, eval_freq=8, save=False)
    fold_batchnorm(network)
    return network.set_train(False), data


def test_pgd_beats_gsa_beats_noise(trained: tuple[nn.Cell, DataSet]) -> None:
    network, data = trained
    split = Split(data.test.images[:200], data.test.labels[:200])
    right = {}
    for attack in ATTACKS:
        parts = list(attacks.attacked_batches(network, data, split, attack, Budget(), seed=0, batch_size=100))
        right["clean"], right[attack] = np.concatenate([rights for _, rights in parts]).mean(axis=0)
    noise = np.random.default_rng(0).choice([-8, 8], split.images.shape)
    noisy = np.clip(split.images + noise, 0, 255).astype(np.uint8)
    predict = attacks.make_predict(network, data)
    right["noise"] = np.mean(np.concatenate([predict(noisy[:100]), predict(noisy[100:])]) == split.labels)
    assert right["PGD"] < right["GSA"] < right["noise"], right
    assert right["clean"] > 0.3, right


def test_an_attacks_last_batch_is_as_the_others(trained: tuple[nn.Cell, DataSet]) -> None:
    network, data = trained
    split = Split(data.test.images[:10], data.test.labels[:10])
    batches = [list(attacks.attacked_batches(network, data, split, "GSA", Budget(), 0, size))
               for size in (5, 8)]
    assert [len(pixels) for pixels, _ in batches[1]] == [8, 2]
    five, eight = (np.concatenate([pixels for pixels, _ in parts]) for parts in batches)
    assert (five == eight).mean() > 0.99  # but for gradients near zero
