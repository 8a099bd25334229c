"""Networks against PyTorch's results on the same weights and images (tests/make_golden.py)."""
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import train
from conftest import ROOT
from datasets import DataSet, Recipe, Split
from datasets.transforms import PadAndCrop
from files import BadInput
from models import NETWORKS, create_model, load_weights
from models.layers import fold_batchnorm
from weights import make_batch, make_weight, sample, torch_name

ARCHS = ("resnet20", "resnet18", "resnet50")
PARAMETERS = {"resnet18": 11_220_132, "resnet20": 275_572, "resnet34": 21_328_292, "resnet50": 23_705_252}


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz") as file:
        return dict(file)


def seeded(arch: str) -> ms.nn.Cell:
    network = create_model(arch, 100, small_images=True)
    for name, parameter in network.parameters_and_names():
        parameter.set_data(ms.Tensor(make_weight(torch_name(name), parameter.shape)))
    return network


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("arch", ARCHS)
def test_forward_agrees_with_pytorch_folded_or_not(arch: str) -> None:
    expected = golden(arch)
    network = seeded(arch).set_train(False)
    images = ms.Tensor(make_batch(16)[0])
    assert relative(network(images).asnumpy(), expected["logits"]) < 1e-4
    assert relative(network.features(images).asnumpy(), expected["features"]) < 1e-4
    fold_batchnorm(network)
    assert relative(network(images).asnumpy(), expected["logits"]) < 1e-4


@pytest.mark.parametrize("arch", ARCHS)
def test_one_step_agrees_with_pytorch(arch: str) -> None:
    expected = golden(arch)
    network = seeded(arch).set_train(True)
    optimizer = train.make_optimizer(network, weight_decay=5e-4, lr=0.5)
    ms.ops.assign(optimizer.learning_rate, ms.Tensor(0.1, ms.float32))  # as train() sets each epoch's
    images, labels = make_batch(16)
    loss, _ = train.make_train_step(network, optimizer)(ms.Tensor(images), ms.Tensor(labels))
    assert float(loss.asnumpy()) == pytest.approx(float(expected["loss"]), rel=1e-4)
    for name, parameter in network.parameters_and_names():
        name = torch_name(name)
        values = parameter.asnumpy()
        error = np.abs(sample(values) - expected["step:" + name]).max()
        assert error < 1e-4 * expected["size:" + name], name


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
    """With a factor of 0 from the second epoch on, only the first epoch may change the weights."""
    images, labels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8), np.arange(16) % 4
    split = Split(images, labels.astype(np.int32))
    weights = []
    for epochs in (1, 3):
        recipe = Recipe(epochs, milestones=(1,), factor=0.0, weight_decay=5e-4)
        data = DataSet("x", split, split, list("abcd"), (0.5,) * 3, (0.25,) * 3, True, recipe, PadAndCrop(4))
        ms.set_seed(0)
        network = create_model("resnet20", 4, True)
        train.train(network, data, np.arange(16), tmp_path, epochs, 8, lr=0.1, seed=0)
        weights.append(network.classifier.weight.asnumpy())
    assert (weights[0] == weights[1]).all()


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("small_images, side", [(True, 32), (False, 64)])
def test_shapes_and_sizes(arch: str, small_images: bool, side: int) -> None:
    network = create_model(arch, 100, small_images).set_train(False)
    images = ms.Tensor(np.zeros((2, 3, side, side), np.float32))
    features = network.features(images)
    assert network(images).shape == (2, 100)
    assert features.shape[0] == 2 and len(features.shape) == 2
    if small_images:
        assert sum(parameter.size for parameter in network.trainable_params()) == PARAMETERS[arch]


def test_start_of_the_weights() -> None:
    ms.set_seed(0)
    network = create_model("resnet18", 100, small_images=True)
    for name, parameter in network.parameters_and_names():
        if name.endswith("conv.weight"):
            fan_out = parameter.shape[0] * parameter.shape[2] * parameter.shape[3]
            assert parameter.asnumpy().std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_weights_of_another_network_are_refused() -> None:
    weights = {name: p.asnumpy() for name, p in create_model("resnet20", 7, True).parameters_and_names()}
    with pytest.raises(BadInput, match="7 classes"):
        load_weights(create_model("resnet20", 10, True), weights, "x.pth", "resnet20")
    with pytest.raises(BadInput, match="not a checkpoint of resnet18"):
        load_weights(create_model("resnet18", 7, True), weights, "x.pth", "resnet18")
    weights = {name: p.asnumpy() for name, p in create_model("resnet34", 7, True).parameters_and_names()}
    with pytest.raises(BadInput, match="not a checkpoint of resnet18"):
        load_weights(create_model("resnet18", 7, True), weights, "x.pth", "resnet18")
    with pytest.raises(BadInput, match="unknown; known are resnet18"):
        create_model("resnet19", 10, True)
