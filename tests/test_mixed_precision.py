"""Mixed precision: it agrees with float32, skips a step that overflows, and is resumed to the same bytes."""
import json
import signal
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import amp

import train
from conftest import SMALL, contents, log
from forks import Forks
from golden_networks import in_child
from models import create_model
from models.checkpoint import load_state
from two_layers import WITH_DROPOUT
from weights import make_batch

RUN = Path("CIFAR100", WITH_DROPOUT)


def run_steps(level: str, scale: float = 1024) -> tuple[list[float], list[float], list[int]]:
    """Six steps of a resnet6 on one batch: each one's loss, scale after it and steps skipped until then.

    The last two are made sure of: a step that is skipped changes no weight, any other does.
    """
    ms.set_seed(0)
    network = create_model("resnet6", 100, True).set_train(True)
    loss_scale = None if level == "O0" else train.LossScale(scale)
    step = train.make_train_step(amp.auto_mixed_precision(network, level),
                                 train.make_optimizer(network, 5e-4, 0.01), loss_scale=loss_scale)
    losses, scales, skipped, images = [], [], [0], make_batch(16)
    for _ in range(6):
        before = network.classifier.weight.asnumpy().copy()
        losses.append(float(step(*map(ms.Tensor, images))[0]))
        assert network.classifier.weight.dtype == ms.float32
        if loss_scale:
            scales.append(float(loss_scale.scale_value))
            skipped.append(int(loss_scale.skipped))
        changed = (network.classifier.weight.asnumpy() != before).any()
        assert changed == (len(skipped) == 1 or skipped[-1] == skipped[-2])
    return losses, scales, skipped[1:]


def test_losses_are_those_of_float32_to_a_thousandth() -> None:
    expected, _, _ = in_child(run_steps, "O0")
    for level in ("O2", "O3"):
        found, scales, skipped = in_child(run_steps, level)
        assert found == pytest.approx(expected, rel=1e-3) and found != expected, level
        assert scales == [1024] * 6 and skipped == [0] * 6, level


def test_a_step_that_overflows_is_skipped_and_halves_the_scale() -> None:
    losses, scales, skipped = in_child(run_steps, "O2", 2.0 ** 20)
    count = skipped[-1]
    assert 0 < count < 6 and skipped == [min(i, count) for i in range(1, 7)]
    assert scales == [2.0 ** (20 - number) for number in skipped]
    assert len(set(losses[:count + 1])) == 1 and losses[-1] < losses[0]


def test_it_is_resumed_to_the_same_bytes(cifar: Path, forks: Forks, tmp_path: Path) -> None:
    """The loss scale's count of steps among them. What a run leaves is float32 and says the level."""
    command = ("train.py", "--data", cifar, *SMALL, "--arch", WITH_DROPOUT, "--epoch", 3, "--amp_level", "O2",
               "--model_dir")
    whole = forks.start(tmp_path, *command, "whole").finish()
    assert whole.returncode == 0 and "loss scale 1024, 0 steps skipped so far" in whole.out, whole.err
    stop = {"change": "os.rename .last.pth.tmp", "number": 1}
    killed = forks.start(tmp_path, *command, "killed", stop=stop).finish()
    assert killed.returncode == -signal.SIGKILL
    refused = forks.start(tmp_path, *command, "killed", "--resume", "--amp_level", "O0").finish()
    assert refused.returncode == 2 and "--resume: amp_level is O0, but O2 in" in refused.err
    assert forks.start(tmp_path, *command, "killed", "--resume").finish().returncode == 0
    run, expected = tmp_path / "killed" / RUN, tmp_path / "whole" / RUN
    for name in ("best.pth", "last.pth", "dynamics.npy"):
        assert contents(run)[name] == contents(expected)[name], name
    assert log(run, times=False) == log(expected, times=False)
    weights, state = load_state(run / "last.pth")
    assert {value.dtype for name, value in weights.items() if "state" not in name} == {np.dtype(np.float32)}
    assert state["optimizer.counter"] == 6 and state["optimizer.scale_value"] == 1024
    assert json.loads((run / "args.json").read_text())["amp_level"] == "O2"
