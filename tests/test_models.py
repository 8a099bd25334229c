"""Networks against PyTorch's results on the same weights and images (tests/make_golden.py)."""
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import golden_networks
import train
from conftest import log
from datasets import SOURCES, DataSet, Recipe, Split
from golden_networks import FORMS, LARGE, SMALL, forward, golden, in_child, relative
from models import NETWORKS, SMALLEST, check_image_size, create_model
from models.checkpoint import load_checkpoint, load_weights
from models.layers import ConvBN, Dropout, fold_batchnorm, shift_dropout
from two_layers import TwoLayers
from utils.errors import BadInput
from utils.metrics import class_accuracies, confusion_matrix, mean_of_worst_tenth
from weights import make_batch

# The network of base runs in results/ and the default one. Together the steps of the others take minutes.
EACH_TIME = "resnet20", "resnet50"


@pytest.mark.parametrize("arch, side", FORMS)
def test_forward_agrees_with_pytorch(arch: str, side: int) -> None:
    assert golden_networks.forward_error(arch, side) < 1e-4


@pytest.mark.parametrize("arch", LARGE)
def test_parameters_are_as_many_as_in_pytorch(arch: str) -> None:
    unused = 32 * 32 + 2 * 32 if arch == "efficientnet" else 0  # of the first block, in the release
    assert forward(arch, 64, "CPU")["parameters"] == golden(f"{arch}-64")["parameters"] - unused


@pytest.mark.parametrize("side", (32, 64))
@pytest.mark.parametrize("arch", NETWORKS)
def test_a_network_is_its_classifier_on_its_features_folded_or_not(arch: str, side: int) -> None:
    found = forward(arch, side, "CPU")
    assert found["logits"].shape == (4, 100) and found["features"].ndim == 2
    assert relative(found["classified"], found["logits"]) < 1e-5
    assert relative(found["folded"], found["features"]) < 1e-4


@pytest.mark.parametrize("arch", [pytest.param(arch, marks=() if arch in EACH_TIME else pytest.mark.steps)
                                  for arch in SMALL])
def test_one_step_agrees_with_pytorch(arch: str) -> None:
    errors = golden_networks.step_errors(arch)
    worst = max(errors, key=errors.get)
    assert errors[worst] < golden_networks.STEP_LIMITS.get(arch, 1e-4), worst
    assert np.median(list(errors.values())) < 1e-6


def run_step_on_larger_images(arch: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, and the classifier's weight before and after."""
    network = create_model(arch, 100, small_images=False).set_train(True)
    before = network.classifier.weight.asnumpy().copy()
    images, labels = map(ms.Tensor, make_batch(2, 64))
    loss, _ = train.make_train_step(network, train.make_optimizer(network, 1e-4, 0.01))(images, labels)
    return float(loss.asnumpy()), before, network.classifier.weight.asnumpy()


def test_a_training_step_on_larger_images() -> None:
    """Of vgg16, compiled fast; test_tiny.py trains a resnet18."""
    loss, before, after = in_child(run_step_on_larger_images, "vgg16")
    assert np.isfinite(loss) and np.isfinite(after).all() and (after != before).any()


@pytest.mark.parametrize("arch", NETWORKS)
def test_the_smallest_images_that_a_network_takes(arch: str) -> None:
    check_image_size(arch, SMALLEST.get(arch, 8))
    assert forward(arch, 32, "CPU")["smallest"] == (2, 100)


def test_momentum_weight_decay_and_a_changed_learning_rate() -> None:
    layer = ms.nn.Dense(2, 1, has_bias=False)
    weight, gradient = np.array([[1.0, -2.0]], np.float32), np.array([[0.5, 0.25]], np.float32)
    layer.weight.set_data(ms.Tensor(weight))
    optimizer = train.make_optimizer(layer, weight_decay=0.1, lr=0.1)
    velocity = np.zeros_like(weight)
    for rate in (0.1, 0.02, 0.0):
        ms.ops.assign(optimizer.learning_rate, ms.Tensor(rate, ms.float32))
        optimizer((ms.Tensor(gradient),))
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight = weight - rate * velocity
        assert np.allclose(layer.weight.asnumpy(), weight, rtol=1e-6)


def test_train_lowers_the_learning_rate_that_its_steps_use(tmp_path: Path) -> None:
    """With a gamma of 0 from the second epoch on, only the first epoch may change the weights."""
    images, labels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8), np.arange(16) % 4
    split = Split(images, labels.astype(np.int32))
    recipe = Recipe(epochs=3, milestones=(1,), gamma=0.0, weight_decay=5e-4)
    data = DataSet("x", split, split, list("abcd"), replace(SOURCES["CIFAR100"], recipe=recipe), "")
    network = TwoLayers(4, True)
    start = network.hidden[0].weight.asnumpy().copy()
    args = train.parse_options("--epoch 3 --batch_size 8 --lr 0.1 --seed 0".split())
    train.train(network, data, np.arange(16), tmp_path, args)
    assert len({row["test_acc"] for row in log(tmp_path)}) == 1  # so best.pth is that of the first epoch
    first, last = (load_checkpoint(tmp_path / name)["hidden.0.weight"] for name in ("best.pth", "last.pth"))
    assert (first == last).all() and (first != start).any()


def test_accuracies_are_of_classes_that_have_images() -> None:
    labels = np.array([0, 0, 0, 1, 3])  # classes 2 and 4 have no images
    batches = [(np.array([0, 1, 3]), ms.Tensor([0, 0, 1])), (np.array([2, 4, -1]), ms.Tensor([2, 3, 0]))]
    confusion = confusion_matrix(batches, labels, 5)
    assert confusion.sum() == 5 and confusion[0].tolist() == [2, 0, 1, 0, 0]  # the -1 is not counted
    assert class_accuracies(confusion) == pytest.approx([200 / 3, 100, 100])


@pytest.mark.parametrize("classes, expected", [(3, 10), (10, 10), (11, 15), (20, 15), (21, 20)])
def test_the_worst_tenth_is_rounded_up(classes: int, expected: float) -> None:
    accuracies = 10.0 * np.arange(classes, 0, -1)
    assert mean_of_worst_tenth(accuracies) == expected


class WithDropout(ms.nn.Cell):
    """A linear layer whose every output is its input, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = ms.nn.Dense(1, 1000, weight_init="ones", has_bias=False)
        self.dropout = Dropout(0.2)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.dropout(self.dense(x))


ONES = np.ones((100, 1), np.float32)


@pytest.fixture(scope="module")
def dropout() -> tuple[WithDropout, Callable]:
    """A network in training, and its step: outputs (100, 1000) and gradients of their sum (1000, 1)."""
    network = WithDropout().set_train(True)

    def loss(x: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        y = network(x)
        return y.sum(), y

    gradient = ms.value_and_grad(loss, None, network.trainable_params(), has_aux=True)

    @ms.jit
    def step(x: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        (_, y), gradients = gradient(x)
        return y, gradients[0]

    return network, lambda: [value.asnumpy() for value in step(ms.Tensor(ONES))]


def test_dropout_drops_its_rate_everywhere_and_scales_the_rest(dropout: tuple[WithDropout, Callable]) -> None:
    """In the gradient too; and each step draws another mask, independent of the one before."""
    output, gradient = dropout[1]()
    kept = output > 0
    assert np.allclose(np.unique(output), [0, 1.25]) and abs(kept.mean() - 0.8) < 0.005
    assert np.abs(kept.mean(0) - 0.8).max() < 0.2 and np.abs(kept.mean(1) - 0.8).max() < 0.07
    assert np.allclose(gradient[:, 0], output.sum(0))
    assert abs((kept & (dropout[1]()[0] > 0)).mean() - 0.64) < 0.01


def test_dropout_is_a_function_of_the_saved_state(dropout: tuple[WithDropout, Callable]) -> None:
    network, step = dropout
    state = network.dropout.state.asnumpy().copy()
    first, second = step()[0], step()[0]
    ms.ops.assign(network.dropout.state, ms.Tensor(state))
    assert (step()[0] == first).all() and (step()[0] == second).all()


def test_each_rank_drops_other_values(dropout: tuple[WithDropout, Callable]) -> None:
    network, step = dropout
    state = network.dropout.state.asnumpy().copy()
    kept = []
    for rank in range(4):
        ms.ops.assign(network.dropout.state, ms.Tensor(state))
        shift_dropout(network, rank)
        assert (network.dropout.state.asnumpy() == state).all() == (rank == 0)
        kept.append(step()[0] > 0)
    assert all(abs((one & other).mean() - 0.64) < 0.01 for one, other in itertools.combinations(kept, 2))


def test_dropout_leaves_evaluation_alone() -> None:
    assert (WithDropout().set_train(False)(ms.Tensor(ONES)).asnumpy() == 1).all()


def test_every_batch_normalization_after_a_convolution_is_folded() -> None:
    network = create_model("efficientnet", 10, True)
    assert sum(isinstance(cell, ConvBN) for _, cell in network.cells_and_names()) == 48
    fold_batchnorm(network)
    assert not any(isinstance(cell, ms.nn.BatchNorm2d) for _, cell in network.cells_and_names())


def test_convolutions_begin_as_kaiming_normal_over_fan_out() -> None:
    ms.set_seed(0)
    weights = [parameter for name, parameter in create_model("resnet18", 100, True).parameters_and_names()
               if name.endswith("conv.weight")]
    assert len(weights) == 20
    for weight in weights:
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        assert weight.asnumpy().std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


@pytest.mark.parametrize("small_images, deviation", [(True, (1 / 512 / 3) ** 0.5), (False, (2 / 512) ** 0.5)])
def test_classifiers_begin_as_in_the_release(small_images: bool, deviation: float) -> None:
    ms.set_seed(0)
    weight = create_model("resnet18", 100, small_images).classifier.weight.asnumpy()
    assert weight.std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("arch, classes, more, message", [
    ("resnet20", 10, {}, "x.pth: trained for 7 classes, but the data set has 10"),
    ("resnet18", 7, {}, "not a checkpoint of resnet18 .*is missing or has another shape"),
    ("resnet20", 7, {"more": ONES}, "not a checkpoint of resnet20 .more is not a part of it")])
def test_weights_that_do_not_fit_are_refused(arch: str, classes: int, more: dict, message: str) -> None:
    weights = {name: p.asnumpy() for name, p in create_model("resnet20", 7, True).parameters_and_names()}
    with pytest.raises(BadInput, match=message):
        load_weights(create_model(arch, classes, True), {**weights, **more}, "x.pth", arch)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="--arch resnet19: unknown; known are efficientnet, "):
        create_model("resnet19", 10, True)
