"""Networks on the weights and images of the golden files, without pytest: for tests and device_check.py."""
import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import utils  # noqa: F401  before MindSpore

# isort: split

import mindspore as ms
import numpy as np

import train
from models import SMALLEST, create_model
from models.checkpoint import optimizer_state
from models.convert_torch import RULES, renamed, rules_of
from models.layers import Dropout, fold_batchnorm
from utils.device import set_up
from weights import make_batch, make_weight, sample

GOLDEN = Path(__file__).resolve().parent / "golden"
SMALL = [arch for arch in RULES if (GOLDEN / f"{arch}.npz").exists()]
LARGE = [arch for arch in RULES if (GOLDEN / f"{arch}-64.npz").exists()]
FORMS = [(arch, 32) for arch in SMALL] + [(arch, 64) for arch in LARGE]
# Largest error after a step, over the parameter's largest value, where it is not 1e-4. Of the networks these
# two alone max-pool after ReLUs; where the two largest inputs are within rounding of one another, the
# gradient goes another way.
STEP_LIMITS = {"googlenet": 3e-3, "vgg16": 3e-3}


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def in_child(function: Callable, *arguments: Any, device: str = "CPU") -> Any:
    """A function's result, from a process of its own: MindSpore keeps the memory of all that it compiles."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mindspore"])
    with ProcessPoolExecutor(1, context, set_up, (device, 0)) as pool:
        return pool.submit(function, *arguments).result()


def seeded(arch: str, small_images: bool = True) -> ms.nn.Cell:
    network = create_model(arch, 100, small_images)
    set_weights(network, arch, small_images)
    return network


def set_weights(network: ms.nn.Cell, arch: str, small_images: bool) -> None:
    """The golden files' weights, or for a network that PyTorch's release does not have, others."""
    for name, parameter in network.parameters_and_names():
        if parameter.dtype == ms.float32:  # dropout's state is int32
            theirs = renamed(name, rules_of(arch, small_images)) if arch in RULES else name
            ms.ops.assign(parameter, ms.Tensor(make_weight(theirs, parameter.shape)))


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def run_forward(arch: str, side: int) -> dict[str, Any]:
    network = seeded(arch, side == 32).set_train(False)
    images = ms.Tensor(make_batch(16 if side == 32 else 4, side)[0][:4])
    features = network.features(images)
    found = {"parameters": sum(parameter.size for parameter in network.trainable_params()),
             "features": features.asnumpy(), "logits": network(images).asnumpy(),
             "classified": network.classifier(features).asnumpy()}
    if side == 32 and ms.get_context("device_target") == "CPU":  # for tests; device_check.py needs none
        smallest = SMALLEST.get(arch, 8)
        found["smallest"] = network(ms.Tensor(np.zeros((2, 3, smallest, smallest), np.float32))).shape
    fold_batchnorm(network)
    return {**found, "folded": network.features(images).asnumpy()}


@functools.cache
def forward(arch: str, side: int, device: str) -> dict[str, Any]:
    """What a seeded network makes of the golden files' images."""
    return in_child(run_forward, arch, side, device=device)


def forward_error(arch: str, side: int, device: str = "CPU") -> float:
    """The largest error of a network's features and logits, over their largest value."""
    expected = golden(arch if side == 32 else f"{arch}-64")
    found = forward(arch, side, device)
    return max(relative(found[name], expected[name]) for name in ("features", "logits"))


def run_step(arch: str) -> tuple[float, dict[str, np.ndarray]]:
    """The loss of a batch of 16, and after a step a sample of each parameter."""
    network = seeded(arch).set_train(True)
    for _, cell in network.cells_and_names():
        if isinstance(cell, Dropout):
            cell.rate = 0.0  # the random masks differ
    optimizer = train.make_optimizer(network, weight_decay=5e-4, lr=0.5)
    ms.ops.assign(optimizer.learning_rate, ms.Tensor(0.1, ms.float32))  # as train() sets each epoch's
    images, labels = map(ms.Tensor, make_batch(16))
    step = train.make_train_step(network, optimizer)
    # Each parameter of the state begins with one value everywhere.
    start = [(parameter, parameter.asnumpy().flat[0]) for parameter in optimizer_state(optimizer)]
    # The second time from the same start: with ops.pad only a graph's first gradient is right.
    step(images, labels)
    set_weights(network, arch, small_images=True)
    for parameter, value in start:
        ms.ops.assign(parameter, ms.Tensor(np.full(parameter.shape, value)))
    loss, _ = step(images, labels)
    return float(loss.asnumpy()), {renamed(name, rules_of(arch, True)): sample(parameter.asnumpy())
                                   for name, parameter in network.parameters_and_names()
                                   if parameter.dtype == ms.float32}


def step_errors(arch: str, device: str = "CPU") -> dict[str, float]:
    """The error of a step's loss, and of each parameter after it, over its value or largest value."""
    loss, samples = in_child(run_step, arch, device=device)
    expected = golden(arch)
    row = {name: i for i, name in enumerate(expected["names"])}
    errors = {name: np.abs(values - expected["step"][row[name]]).max() / expected["size"][row[name]]
              for name, values in samples.items()}
    return {"loss": abs(loss / float(expected["loss"]) - 1), **errors}
