"""Centres, distances, sizes, ids."""
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import selection
from datasets import SOURCES, DataSet, Split
from test_models import golden, seeded
from weights import make_batch

RATES = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


def plain_distances(features: np.ndarray, labels: np.ndarray, centre) -> np.ndarray:
    return np.array([np.linalg.norm(f.astype(float) - centre(features[labels == c], axis=0))
                     for f, c in zip(features, labels)])


@pytest.mark.parametrize("name, centre", [("median", np.median), ("mean", np.mean)])
@pytest.mark.parametrize("block", [1, 2 ** 23])
def test_distances(name: str, centre, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BLOCK_BYTES", block)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(61, 9)).astype(np.float32)
    labels = generator.choice([0, 3, 4, 1000], 61)  # gaps, and
    labels[7] = 77  # a class of one sample
    ours = selection.distances_to_centres(features, labels, name)
    assert np.allclose(ours, plain_distances(features, labels, centre), rtol=1e-6)
    assert ours[7] == 0


@pytest.mark.parametrize("rate", RATES)
def test_ids_agree_with_pytorchs_features_and_the_releases_formula(rate: float) -> None:
    network = seeded("resnet20").set_train(False)
    features = network.features(ms.Tensor(make_batch(200)[0])).asnumpy()
    order = np.argsort(selection.distances_to_centres(features, np.arange(200) % 7), kind="stable")
    assert np.sort(selection.ids_to_drop(order, rate)).tolist() == golden("selection")[f"{rate}"].tolist()


def test_extraction_is_in_evaluation_mode_and_order(tmp_path: Path) -> None:
    """Each image's features as the unfolded network gives them; 150 images do not fill the last batch."""
    images = np.random.default_rng(3).integers(0, 256, (150, 32, 32, 3), np.uint8)
    split = Split(images, np.zeros(150, np.int32))
    source = SOURCES["CIFAR100"]
    data = DataSet("x", split, split, ["0"], source.mean, source.std, True, source.recipe,
                   source.train_transform)
    network = seeded("resnet20").set_train(False)
    inputs = ((images / 255 - source.mean) / source.std).transpose(0, 3, 1, 2).astype(np.float32)
    alone = np.concatenate([network.features(ms.Tensor(inputs[i:i + 1])).asnumpy() for i in (0, 63, 64, 149)])
    network.set_train(True)
    together = selection.extract_features(network, data, tmp_path / "partial", {})
    assert together.shape == (150, 64)
    assert np.abs(together[[0, 63, 64, 149]] - alone).max() < 1e-4 * np.abs(alone).max()


@pytest.mark.parametrize("n", [50_000, 100_000])
@pytest.mark.parametrize("rate", RATES)
def test_sizes_are_exact_for_the_papers_data_sets(n: int, rate: float) -> None:
    drop = selection.ids_to_drop(np.arange(n), rate)
    assert n - len(drop) == round(n * rate)


@pytest.mark.parametrize("n, rate, kept",
                         [(1_281_167, 0.3, 384_351), (4, 0.2, 0), (5, 0.2, 1), (5, 0.4, 2), (7, 0.2, 1)])
def test_the_releases_rounding(n: int, rate: float, kept: int) -> None:
    drop = selection.ids_to_drop(np.arange(n), rate)
    low, high = round(n * (.5 - rate / 2)), round(n * (.5 + rate / 2))
    assert n - len(drop) == high - low == kept
    assert sorted(drop) == list(range(low)) + list(range(high, n))
