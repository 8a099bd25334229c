"""methods.Recorder: the numbers of train.py from any training loop, and what a loader leaves out."""
import os
from math import nan
from pathlib import Path
from unittest.mock import Mock

import mindspore as ms
import numpy as np
import pytest

import train
from forks import ROOT
from methods import Recorder, select


def record(**batch: object) -> np.ndarray:
    """The dynamics (3, n) of an epoch that shows all images at once."""
    recorder = Recorder(len(batch["labels"]))
    recorder.update(**batch, ids=range(recorder.n))
    recorder.end_epoch()
    return recorder.dynamics[0]


def test_the_numbers_are_right_by_hand() -> None:
    p = [[.5, .25, .25], [.5, .25, .25], [.25, .375, .375], [1, 0, 0], [1, 0, 0]]
    labels = [0, 1, 2, 0, 1]
    expected = [[.5, .25, .375, 1, 0], [.25, -.25, 0, 1, -1],
                np.sqrt([6 / 16, 14 / 16, 38 / 64, 0, 2])]  # such as 1/4 + 1/16 + 1/16
    logits = np.log(np.maximum(p, 1e-30)) + 5  # softmax takes no notice of the 5
    for batch in ({"probabilities": p}, {"probabilities": np.float16(p)}, {"logits": logits}):
        assert np.allclose(record(labels=labels, **batch), expected, rtol=0, atol=4e-4)


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_the_numbers_are_those_of_train_py(classes: int) -> None:
    """To one unit in the last place of float16 or 2e-7, from nearly equal logits to the largest there are.

    The network is right, from hardly to very sure, about every second image.
    """
    generator, step, n = np.random.default_rng(classes), ms.jit(train.image_dynamics), 2000
    for scale in (1e-3, 1, 3, 10, 30, 1e4, 2e38):
        logits = (np.clip(generator.normal(size=(n, classes)), -1.7, 1.7) * scale).astype(np.float32)
        logits[::5, 0] = logits[::5, 1]  # a tie
        labels = generator.integers(0, classes, n, np.int32)
        logits[np.arange(0, n, 2), labels[::2]] += generator.uniform(0, 15, n // 2).astype(np.float32)
        theirs = step(ms.Tensor(logits), ms.Tensor(labels)).asnumpy().astype(np.float16)
        ours = record(logits=logits, labels=labels)
        unit = np.spacing(np.maximum(abs(ours), abs(theirs))).astype(float)
        assert (abs(ours.astype(float) - theirs) <= np.maximum(unit, 2e-7)).all(), scale


def show(recorder: Recorder, p_of: dict[int, float]) -> None:
    """An epoch of one batch, with these probabilities of the label, of two classes."""
    p = np.array(list(p_of.values()))
    recorder.update(probabilities=np.stack([1 - p, p], 1), labels=np.ones(len(p), int), ids=list(p_of))
    recorder.end_epoch()


def test_an_image_that_was_not_shown_has_the_numbers_of_another_epoch(tmp_path: Path) -> None:
    """Of the epoch before or, in the first ones, of the first that showed it; image 3 is never shown."""
    path, copy = tmp_path / "new/dynamics.npy", tmp_path / "copy.npy"
    recorder = Recorder(4, path)
    show(recorder, {1: .25})
    earlier = np.load(path, mmap_mode="r")
    show(recorder, {0: .5})
    show(recorder, {2: .75, 1: 1})
    assert np.array_equal(earlier[:, 0], [[nan, .25, nan, nan]], equal_nan=True)  # replaced, not changed
    expected = np.array([[.5, .25, .75, nan], [.5, .25, .75, nan], [.5, 1, .75, nan]])
    dynamics = np.load(path)
    assert dynamics.dtype == np.float16
    assert np.array_equal(dynamics[:, 0], expected, equal_nan=True)
    assert np.array_equal(dynamics[:, 1], 2 * expected - 1, equal_nan=True)
    with pytest.raises(ValueError, match="^save: 1 of 4 examples were never shown; .*copy.npy was written"):
        recorder.save(copy)
    assert copy.read_bytes() == path.read_bytes()
    show(recorder, {3: 0})
    recorder.save(copy)
    assert (np.load(copy)[:, 0, 3] == 0).all()


def test_of_an_image_that_is_shown_twice_the_last_time_counts() -> None:
    """In a batch, here of a thousand images, and in an epoch."""
    recorder, p = Recorder(5), np.arange(1024) / 1024
    recorder.update(probabilities=np.stack([1 - p, p], 1), labels=np.ones(1024, int), ids=np.arange(1024) % 4)
    recorder.update(probabilities=[[0, 1], [.5, .5]], labels=[1, 1], ids=[4, 0])
    recorder.end_epoch()
    assert recorder.dynamics[0, 0].tolist() == [.5, *np.float16(p[-3:]), 1]
    with pytest.raises(ValueError, match="^end_epoch: no update since the last epoch"):
        recorder.end_epoch()


def test_a_write_that_fails_leaves_the_file_of_the_epoch_before(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dynamics.npy"
    recorder = Recorder(1, str(path))
    show(recorder, {0: .5})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(os, "fsync", Mock(side_effect=OSError("no space left")))
        show(recorder, {0: 1})
    assert list(tmp_path.iterdir()) == [path] and np.load(path).shape == (1, 3, 1)
    show(recorder, {0: .25})
    assert np.load(path)[:, 0, 0].tolist() == [.5, 1, .25]


@pytest.mark.parametrize("change, message", [
    ({"logits": None}, "update: pass either logits or probabilities"),
    ({"logits": [[0], [1]]}, "logits: shape (2, 1), not (examples, classes) with two classes or more"),
    ({"logits": [[0, 1], [2]]}, "logits: NumPy cannot read this list (setting an array element"),
    ({"logits": [[0, nan], [1e39, 1]]}, "logits: not finite for 2 of 2 examples; has training diverged?"),
    ({"logits": None, "probabilities": [[1, 0], [2, -1]]}, "probabilities: some are negative or do not"),
    ({"labels": [0., 1.]}, "labels: float64 (2,), not whole numbers (2,)"),
    ({"labels": [0, 2]}, "labels: 2 is not in 0..1"),
    ({"ids": [True, False]}, "ids: bool (2,), not whole numbers (2,)"),
    ({"ids": [0, 1, 2]}, "ids: int64 (3,), not whole numbers (2,)"),
    ({"ids": [0, -1]}, "ids: -1 is not in 0..2")])
def test_what_is_wrong_is_one_line_and_nothing_is_recorded(change: dict, message: str) -> None:
    recorder = Recorder(3)
    with pytest.raises(ValueError) as error:
        recorder.update(**{"logits": [[0, 1], [2, 3]], "labels": [0, 1], "ids": [2, 0]} | change)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="^end_epoch: no update"):
        recorder.end_epoch()
    with pytest.raises(ValueError, match="^save: no epoch is finished"):
        recorder.save("never.npy")
    with pytest.raises(ValueError, match="^n: 0 is not a whole number from 1"):
        Recorder(0)


def test_a_softmax_regression_on_texts_with_wrong_labels() -> None:
    """Texts are 30 of 500 words, six of them from the 20 of their class."""
    generator, n, classes, words = np.random.default_rng(1), 3000, 10, 500
    truth = generator.integers(0, classes, n)
    wrong = generator.random(n) < 0.2
    labels = np.where(wrong, (truth + generator.integers(1, classes, n)) % classes, truth)
    texts = generator.integers(0, words, (n, 30))
    texts[:, ::5] = 20 * truth[:, None] + generator.integers(0, 20, (n, 6))
    x = np.stack([np.bincount(text, minlength=words) for text in texts]).astype(np.float32)
    weights, recorder = np.zeros((words, classes), np.float32), Recorder(n)
    for _ in range(20):
        for ids in np.array_split(generator.permutation(n), 30)[:-1]:  # as with drop_last
            logits = x[ids] @ weights
            recorder.update(logits, labels[ids], ids)
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            weights -= 0.1 * x[ids].T @ (p - np.eye(classes)[labels[ids]]) / len(ids)
        recorder.end_epoch()
    kept = select(labels, 0.2, method="aum", dynamics=recorder.dynamics)
    assert len(kept) == n // 5 and wrong[kept].mean() < 0.03
    assert 0.16 < wrong[generator.choice(n, n // 5, replace=False)].mean() < 0.24


def test_the_loop_of_the_readme_in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are unit vectors, so that the network's hook learns their positions."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    network, labels, shown = torch.nn.Linear(300, 3), torch.arange(300) % 3, []
    network.register_forward_hook(lambda _, images, logits: shown.append((images[0], logits.detach())))
    variables = {"network": network, "dataset": torch.utils.data.TensorDataset(torch.eye(300), labels),
                 "optimizer": torch.optim.SGD(network.parameters(), 0.1), "device": "cpu",
                 "all_labels": labels}
    loop = next(text for text in (ROOT / "README.md").read_text().split("~~~") if "Recorder(" in text)
    exec(loop.removeprefix("python"), variables)
    dynamics = np.load("dynamics.npy").astype(float)
    assert dynamics.shape == (30, 3, 300) and np.isfinite(dynamics).all() and len(shown) == 3 * 30
    assert len(variables["train"]) == 60
    for step, (images, logits) in enumerate(shown):
        ids = images.argmax(1)
        p_y = logits.softmax(1)[range(len(ids)), labels[ids]]
        assert np.allclose(dynamics[step // 3, 0, ids], p_y, rtol=0, atol=1e-3)


def test_tensors_of_half_precision() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        logits, labels = torch.randn(50, 4).to(dtype), torch.arange(50) % 4
        expected = record(logits=logits.float().numpy(), labels=labels.numpy())
        assert (record(logits=logits, labels=labels) == expected).all()
        rounded = record(probabilities=logits.softmax(1), labels=labels)
        assert np.allclose(rounded, expected, rtol=0, atol=2e-2)
        with pytest.raises(ValueError, match="^logits: NumPy cannot read this Tensor .Can't call"):
            record(logits=logits.requires_grad_(), labels=labels)
