"""Selection methods: each on data whose right answer can be seen, and all on awkward data at every rate."""
import inspect
import math
import shutil
import statistics
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
import pytest

from forks import ROOT
from methods import (
    METHODS,
    RULES,
    Candidates,
    InvalidInput,
    Method,
    Rule,
    SelectionWarning,
    blocks,
    configure,
    distances,
    feature_rules,
    rules,
    select,
)
from methods.checks import check_array
from methods.dynamics import mean_over_epochs
from methods.select import coreset_size, keep_images, score_of

RATES = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def column(*values: float) -> np.ndarray:
    """Features of one dimension."""
    return np.array(values, np.float32)[:, None]


def record(**rows: list | np.ndarray) -> np.ndarray:
    """Dynamics (epochs, 3, n) of probability, margin and error, each (epochs, n); those not given are 0."""
    zeros = np.zeros(np.shape(next(iter(rows.values()))))
    return np.stack([rows.get(name, zeros) for name in ("probability", "margin", "error")],
                    axis=1).astype(np.float16)


class Choice(NamedTuple):
    """The positions kept and the score."""
    kept: np.ndarray
    score: np.ndarray | None


def choose(name: str, labels: np.ndarray, size: int, generator: np.random.Generator, keep: str | None = None,
           **given: object) -> Choice:
    """A method's choice of `size` images by its own rule or the rule `keep`, from arrays and settings."""
    arrays = {need: given.pop(need) for need in ("features", "logits", "dynamics") if need in given}
    selection = configure(name, rate=1e-6, keep=keep, **given)
    inputs = {need: check_array(need, arrays[need], len(labels), selection.first_epochs)
              for need in selection.needs}
    score = score_of(selection, labels, inputs, generator) if selection.method.score else None
    return Choice(keep_images(selection, labels, size, score, inputs, generator), score)


def scored(score: list | np.ndarray, size: int, keep: str, seed: int = 0, labels: np.ndarray | None = None,
           hard: str = "high", **options: object) -> list[int]:
    """What a rule keeps of a plain score."""
    selection = configure(rate=1e-6, keep=keep, hard=hard, **options)
    labels = np.zeros(len(score), int) if labels is None else labels
    return keep_images(selection, labels, size, np.array(score, float), {}, seeded(seed)).tolist()


# Rules

@pytest.mark.parametrize("rate", [.1, .2, .3, .4, .5, .6, .7, .8, .9, 1])
def test_ranks_are_the_releases(rate: float) -> None:
    for n in (*range(1, 3001), 50_000, 100_000, 1_281_167):
        first, last = round(n * (0.5 - rate / 2)), round(n * (0.5 + rate / 2))
        number = coreset_size(n, rate)
        assert number == last - first
        if number:
            everything = Candidates(np.arange(n), np.arange(n), np.arange(n), "high", {}, {}, seeded())
            ranks = RULES["middle"].select(everything, number)
            assert (ranks[0], ranks[-1], len(ranks)) == (first, last - 1, number)


@pytest.mark.parametrize("keep, expected", [
    ("hardest", [0, 2, 3]), ("easiest", [1, 2, 4]), ("middle", [0, 1, 2]), ("ends", [1, 3, 4])])
def test_rules_and_ties_drawn_from_all_classes(keep: str, expected: list[int]) -> None:
    """Of 1,000 images in order of their class, all of one score, 200 are kept."""
    assert scored([3, 1, 2, 9, 0], 3, keep) == expected
    kept = np.array(scored(np.zeros(1000), 200, keep))
    assert np.bincount(kept // 100, minlength=10).min() >= 8
    assert kept.tolist() != scored(np.zeros(1000), 200, keep, seed=1)


@pytest.mark.parametrize("keep, difficulty", [("easiest", 0), ("middle", 0.5), ("hardest", 1)])
def test_a_difficulty_is_the_center_of_the_window(keep: str, difficulty: float) -> None:
    """Counted from the easy end, which is the high one where hard images have low scores."""
    for n in range(1, 60):
        score = seeded(n).random(n)
        for size in range(1, n + 1):
            window = partial(rules.window, difficulty=difficulty)
            order = np.argsort(score)
            everything = Candidates(np.arange(n), order, score, "high", {}, {}, seeded())
            assert scored(score, size, keep) == sorted(window(everything, size))
    assert scored(range(100), 10, "0.3") == list(range(25, 35))
    assert scored(range(100), 10, "0.3", hard="low") == list(range(65, 75))
    assert scored(range(100), 10, "0.02") == list(range(10))  # moved inside
    assert scored(range(100), 10, "0.97") == list(range(90, 100))
    assert scored(range(100), 10, "0.03", hard="low") == list(range(90, 100))
    assert scored(range(100), 10, "hardest", hard="low") == list(range(10))


@pytest.mark.parametrize("hard, kept", [("low", [4, 5, 6]), ("high", [2, 3, 4])])
def test_the_hard_end_is_cut_off_first(hard: str, kept: list[int]) -> None:
    assert scored(range(9), 3, "middle", hard=hard, hard_cutoff="2/9") == kept


def test_per_class_each_class_keeps_its_fraction() -> None:
    """Of 5 + 3 + 2 images 5 are kept: 2.5 + 1.5 + 1, and one of two equal remainders by the seed."""
    labels = np.repeat([4, 8, 9], [5, 3, 2])
    found = {tuple(scored(range(10), 5, "easiest", seed, labels, per_class=True)) for seed in range(20)}
    assert found == {(0, 1, 2, 5, 8), (0, 1, 5, 6, 8)}
    assert scored(range(10), 5, "easiest", labels=labels) == [0, 1, 2, 3, 4]


def test_best_is_the_window_that_labels_the_others_best() -> None:
    """Labels of low scores are random, those of high scores are on the wrong side, as are no others."""
    generator = seeded()
    n, score = 400, np.arange(400.)
    side = generator.integers(0, 2, n)
    features = generator.normal(size=(n, 3)).astype(np.float32) / 10
    features[:, 0] += 2 * side - 1
    labels = side.copy()
    labels[:100], labels[300:] = generator.integers(0, 2, 100), 1 - side[300:]
    best = configure(rate=0.2, keep="best", hard="high")
    with pytest.warns(UserWarning) as told:
        kept = keep_images(best, labels, 80, score, {"features": features}, seeded())

    def right(kept: np.ndarray) -> float:
        x = np.column_stack([features / np.sqrt((features.astype(float) ** 2).mean()), np.ones(n)])
        y = np.eye(2)[labels]
        weights = np.linalg.inv(x[kept].T @ x[kept] + rules.RIDGE * np.eye(4)) @ x[kept].T @ y[kept]
        return np.mean((x @ weights).argmax(axis=1) == labels)

    windows = [np.array(scored(score, 80, f"{difficulty:g}")) for difficulty in rules.DIFFICULTIES]
    assert right(kept) == max(map(right, windows))
    assert f"labels {100 * right(kept):.1f} % of all images" in str(told[0].message)
    alike = np.ones((n, 3), np.float32) * 1e9  # near a singular matrix
    assert len(keep_images(best, labels, 80, score, {"features": alike}, seeded())) == 80


# Distances

def test_moderate_keeps_the_middle_and_ties_go_by_id() -> None:
    """Distances to the median, 4, are 4 1 0 1 96, which ranks the ids 2 1 3 0 4."""
    features, labels = column(0, 3, 4, 5, 100), np.zeros(5, int)
    choice = choose("moderate", labels, 1, seeded(), features=features)
    assert choice.kept.tolist() == [3]
    assert choice.score.tolist() == [4, 1, 0, 1, 96]
    assert choose("moderate", labels, 2, seeded(), features=features).kept.tolist() == [0, 3]
    assert choose("moderate", labels, 3, seeded(), features=features).kept.tolist() == [0, 1, 3]
    # To the mean, 22.4, they are 22.4 19.4 18.4 17.4 77.6.
    assert choose("moderate", labels, 1, seeded(), features=features, center="mean").kept.tolist() == [1]


def test_herding_keeps_the_nearest_of_all_classes() -> None:
    features = column(0, 100, 8, 101, 16, 102)  # the classes' centers are 8 and 101
    choice = choose("herding", np.array([5, 9, 5, 9, 5, 9]), 4, seeded(), features=features)
    assert choice.kept.tolist() == [1, 2, 3, 5]
    assert choice.score.tolist() == [8, 1, 0, 0, 8, 1]


@pytest.mark.parametrize("name, center", [("median", np.median), ("mean", np.mean)])
@pytest.mark.parametrize("block", [1, 2 ** 23])
@pytest.mark.parametrize("by_class", [False, True])
def test_distances_to_centers(name: str, center: Callable, block: int, by_class: bool,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    generator = seeded()
    features = generator.normal(size=(61, 9)).astype(np.float32)
    labels = generator.choice([0, 3, 4, 1000], 61)  # gaps, and
    labels[7] = 77  # a class of one image
    if by_class:
        labels.sort()
    plain = [np.linalg.norm(f.astype(float) - center(features[labels == c], axis=0))
             for f, c in zip(features, labels, strict=True)]
    found = distances.distance_to_class_center(labels, seeded(), features=features, center=name)
    assert np.allclose(found, plain, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("block", [1, 2 ** 23])
def test_selfsup_keeps_the_far_ones(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two opposite directions, each with one image at 0.4 rad on either side; lengths do not matter."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    angles = np.array([-.1, -.05, .05, .1, -.4, .4, 3.0, 3.1, 3.2, 3.3, 2.75, 3.55])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = (circle * seeded().uniform(1, 1000, (12, 1))).astype(np.float32)
    expected = np.linalg.norm(circle - np.repeat([circle[:6].mean(0), circle[6:].mean(0)], 6, axis=0), axis=1)
    labels = np.arange(12) % 2  # only their number matters
    for seed in range(5):
        choice = choose("selfsup", labels, 4, seeded(seed), features=features)
        assert choice.kept.tolist() == [4, 5, 10, 11]
        assert np.allclose(choice.score, expected, atol=1e-5)


def test_kmeans_uses_centroids_that_lost_their_images() -> None:
    """Most starts lie on the same point twice; three centroids for three points leave no distance."""
    three, two = np.eye(3, dtype=np.float32)[[0] * 10 + [1, 2]], np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    for features in (three, two):
        labels = np.arange(len(features)) % 3  # three centroids
        for seed in range(20):
            assert distances.distance_to_nearest_centroid(labels, seeded(seed), features=features).max() == 0


# Predictions

def test_grand_is_the_gradient_of_the_last_layer() -> None:
    generator = seeded()
    features, weight, bias = (generator.normal(size=size).astype(np.float32) for size in [(6, 5), (4, 5), 4])
    labels = np.array([0, 3, 1, 1, 2, 0])
    logits = features @ weight.T + bias

    def loss(weight: ms.Tensor, bias: ms.Tensor, feature: ms.Tensor, label: ms.Tensor) -> ms.Tensor:
        return ms.ops.cross_entropy(ms.ops.matmul(feature, weight.T) + bias, label)

    gradient = ms.grad(loss, grad_position=(0, 1))
    expected = []
    for feature, label in zip(features, labels, strict=True):
        parts = gradient(ms.Tensor(weight), ms.Tensor(bias), ms.Tensor(feature[None]),
                         ms.Tensor([int(label)], ms.int32))
        expected.append(math.sqrt(sum((part.asnumpy().astype(float) ** 2).sum() for part in parts)))
    choice = choose("grand", labels, 2, seeded(), features=features, logits=logits)
    assert np.allclose(choice.score, expected, rtol=1e-5)
    assert choice.kept.tolist() == sorted(np.argsort(expected)[-2:])
    far = choose("grand", labels, 2, seeded(), features=features, logits=logits + np.float32(2000))
    assert np.allclose(far.score, expected, rtol=1e-3)


def test_entropy_and_least_confidence_are_of_the_prediction_whatever_the_label() -> None:
    p = np.array([[.5, .25, .25], [1, 1e-30, 1e-30], [1 / 3] * 3, [.7, .2, .1]])
    logits = np.log(p).astype(np.float32)
    entropy = choose("entropy", np.zeros(4, int), 2, seeded(), logits=logits)
    assert np.allclose(entropy.score, -(p * np.log(p)).sum(axis=1), atol=1e-6)
    assert entropy.kept.tolist() == [0, 2]
    choice = choose("least-confidence", np.ones(4, int), 2, seeded(), logits=logits + 500)
    assert np.allclose(choice.score, [.5, 0, 2 / 3, .3], atol=1e-4) and choice.kept.tolist() == [0, 2]
    far = np.array([[0., -900]], np.float32)
    assert choose("entropy", np.zeros(1, int), 1, seeded(), logits=far).score.tolist() == [0]


# Dynamics of three epochs, counted by hand

def test_forgetting() -> None:
    """+-+, +++, never right, -+-, a margin of 0 is not right, +--; the third counts 0 events or the most."""
    margin = [[.5, .5, -.1, -.5, .5, .1],
              [-.5, .5, -.1, .5, 0, -.1],
              [.5, .5, -.1, -.5, .5, -.1]]
    run = record(margin=margin)
    choice = choose("forgetting", np.zeros(6, int), 5, seeded(), dynamics=run)
    assert choice.score.tolist() == [1, 0, 0, 1, 1, 1]
    choice = choose("forgetting", np.zeros(6, int), 5, seeded(), dynamics=run, never_learned="max")
    assert choice.score.tolist() == [1, 0, 3, 1, 1, 1]
    assert choice.kept.tolist() == [0, 2, 3, 4, 5]
    choice = choose("forgetting", np.zeros(6, int), 1, seeded(), dynamics=run, never_learned="max")
    assert choice.kept.tolist() == [2]
    margin = [[1], [-1], [1], [-1], [-1], [1], [0]]  # each time counts
    choice = choose("forgetting", np.zeros(1, int), 1, seeded(), dynamics=record(margin=margin))
    assert choice.score.tolist() == [3]


def test_el2n() -> None:
    run = record(error=[[1, .25, .5], [.5, .25, 1], [0, 1, 0]])
    choice = choose("el2n", np.zeros(3, int), 2, seeded(), dynamics=run, first_epochs=2)
    assert choice.score.tolist() == [.75, .25, .75]
    assert choice.kept.tolist() == [0, 2]
    with pytest.warns(UserWarning, match="^dynamics: there are 3 epochs, first_epochs 10 becomes 3$"):
        assert choose("el2n", np.zeros(3, int), 2, seeded(), dynamics=run).score.tolist() == [.5, .5, .5]


STRATA = record(margin=[[0] * 1 + [.51] * 5 + [1] * 14])  # images in the strata 0, 25 and 49 of 50


@pytest.mark.parametrize("number, budgets", [(9, [1, 4, 4]), (17, [1, 5, 11]), (2, [0, 1, 1]),
                                             (20, [1, 5, 14])])
def test_ccs_shares_out_from_the_smallest_stratum_up(number: int, budgets: list[int]) -> None:
    """Of 9: min(1, 9 // 3), then min(5, 8 // 2), then the 4 that are left."""
    kept = choose("ccs", np.zeros(20, int), number, seeded(), dynamics=STRATA, hard_cutoff=0).kept
    assert np.histogram(kept, [0, 1, 6, 20])[0].tolist() == budgets
    drawn = [choose("ccs", np.zeros(20, int), number, seeded(seed), dynamics=STRATA, hard_cutoff=0).kept
             for seed in range(200)]
    assert set(np.concatenate(drawn)) == set(range(1 - budgets[0], 20))


def test_ccs_drops_the_lowest_margins_first() -> None:
    run = record(margin=[[-.5, .5, -1, .25, -.75, 1, .75, .1, .2, .3]])
    kept = choose("ccs", np.zeros(10, int), 7, seeded(), dynamics=run, hard_cutoff=0.3).kept
    assert kept.tolist() == [1, 3, 5, 6, 7, 8, 9]
    with pytest.raises(InvalidInput, match="hard_cutoff: 0.3 leaves 7 of 10 images, 8 are to be kept"):
        choose("ccs", np.zeros(10, int), 8, seeded(), dynamics=run, hard_cutoff=0.3)
    with pytest.raises(InvalidInput, match="leaves 0 of 10"):
        choose("ccs", np.zeros(10, int), 1, seeded(), dynamics=run, hard_cutoff=1)


@pytest.mark.parametrize("margins, area", [
    ([[.5, -1, 0], [.25, -.5, 0], [.75, 0, .75]], [.5, -.5, .25]),  # the mean of all epochs
    ([[-1, -.875, -.5]], [-1, -.875, -.5]), ([[.25, .25, .25]], [.25] * 3)])
def test_ccs_keeps_the_highest_area_whatever_its_sign(margins: list, area: list[float]) -> None:
    choice = choose("ccs", np.zeros(3, int), 3, seeded(), dynamics=record(margin=margins), hard_cutoff=0)
    assert choice.kept.tolist() == [0, 1, 2] and choice.score.tolist() == area


def test_dyn_unc_and_dual_are_means_over_windows() -> None:
    run = record(probability=seeded().random((35, 7)))
    images = run[:, 0].T.astype(float).tolist()

    def windows(image: list[float]) -> list[list[float]]:
        return [image[first:first + 10] for first in range(len(image) - 9)]

    uncertainty = [statistics.fmean(map(statistics.pstdev, windows(image))) for image in images]
    choice = choose("dyn-unc", np.zeros(7, int), 3, seeded(), dynamics=run)
    assert np.allclose(choice.score, uncertainty, rtol=1e-12)
    assert choice.kept.tolist() == sorted(np.argsort(uncertainty)[-3:])
    score = [statistics.fmean(statistics.pstdev(w) * (1 - statistics.fmean(w)) for w in windows(image[:30]))
             for image in images]
    assert np.allclose(choose("dual", np.zeros(7, int), 3, seeded(), dynamics=run).score, score, rtol=1e-12)


def test_short_runs_shorten_windows() -> None:
    """p = 0 .5 1 and .5 .5 .5 have deviations sqrt(1/6) and 0."""
    run = record(probability=[[0, .5], [.5, .5], [1, .5]])
    with pytest.warns(UserWarning, match="^dynamics: 3 epochs are used, windows of 10 become 3$"):
        choice = choose("dyn-unc", np.zeros(2, int), 1, seeded(), dynamics=run)
    assert np.allclose(choice.score, [math.sqrt(1 / 6), 0])
    assert choice.kept.tolist() == [0]
    with pytest.warns(UserWarning, match="first_epochs 30 becomes 3"):
        choice = choose("dual", np.zeros(2, int), 1, seeded(), dynamics=run)
    assert np.allclose(choice.score, [math.sqrt(1 / 24), 0])


def test_dual_draws_by_score_times_beta_density() -> None:
    """One of four images, 4,000 times: each as often as its weight says, to five deviations.

    mu is the mean over the ten images of highest score, here all four, and b = 15 (1 - mu) (1 - (3/4)^4).
    """
    probability = np.array([[.25, .5, .75, .5], [.5, .75, .625, .75], [.75, 1, .5, .75]])
    mean, deviation = probability.mean(axis=0), probability.std(axis=0)
    b = 15 * (1 - mean.mean()) * (1 - .75 ** 4)
    expected = deviation * (1 - mean) * mean ** (15 - b) * (1 - mean) ** (b - 1)
    expected /= expected.sum()
    generator, draws, run = seeded(), 4000, record(probability=probability)
    counts = np.bincount([choose("dual", np.zeros(4, int), 1, generator, dynamics=run).kept[0]
                          for _ in range(draws)], minlength=4)
    assert (np.abs(counts - draws * expected) < 5 * np.sqrt(draws * expected * (1 - expected))).all()
    assert expected.min() > .05


@pytest.mark.filterwarnings("default")
def test_dual_takes_images_of_weight_0_last() -> None:
    """Three images whose probability changes, and others that are always 0, .5 or 1."""
    probability = np.array([[.1, .2, .3, 0, .5, 1, .5, 1], [.2, .3, .9, 0, .5, 1, .5, 1]])
    run = record(probability=probability)
    with pytest.warns(UserWarning, match="^dual: of the 5 images kept 2 have weight 0 and are drawn unif"):
        drawn = [choose("dual", np.zeros(8, int), 5, seeded(seed), dynamics=run).kept.tolist()
                 for seed in range(20)]
    assert all(kept[:3] == [0, 1, 2] for kept in drawn)
    assert {i for kept in drawn for i in kept} == set(range(8))


# Matching

def median_of(points: list) -> np.ndarray:
    points = np.array(points, float)
    gram = points @ points.T
    weights = feature_rules.geometric_median(gram.__matmul__, np.diag(gram))
    assert weights.sum() == pytest.approx(1)
    return weights @ points


@pytest.mark.parametrize("points, median", [
    ([(0, 0), (4, -1), (8, 0), (1, 2)], (3, 0)),  # of a convex quadrilateral: where its diagonals cross
    ([(0, 0), (5, 1), (-5, 1)], (0, 0)),  # of a triangle with an angle above 120 degrees: that corner
    ([(2, 1)] * 5 + [(90, 7), (-50, 3), (0, 60)], (2, 1)),  # where more than half of them lie
    ([(0,), (1,), (2,), (3,), (9,)], (2,)),  # on a line: the middle one; the mean is another one of them
    ([(3, 4)] * 3, (3, 4)), ([(0, 0)], (0, 0))])
def test_geometric_median(points: list, median: tuple) -> None:
    assert np.allclose(median_of(points), median, atol=1e-3)


def picks_by_definition(points: np.ndarray, number: int, unit: bool) -> list[int]:
    """Algorithm 1 as it is written, or with points and their median then scaled to length 1."""
    median = points.mean(axis=0)
    for _ in range(2000):
        weights = 1 / np.linalg.norm(points - median, axis=1)
        median = weights @ points / weights.sum()
    if unit:
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        median = median / np.linalg.norm(median)
    theta, picks = median.copy(), []
    for _ in range(number):
        picks.append(max(set(range(len(points))) - set(picks), key=lambda i: theta @ points[i]))
        theta += median - points[picks[-1]]
    return picks


@pytest.mark.parametrize("d", [6, 100])  # fewer and more numbers than images
@pytest.mark.parametrize("length", ["as-is", "unit"])
def test_gm_picks_by_its_definition(d: int, length: str) -> None:
    features = seeded().gamma(1, size=(80, d)).astype(np.float32)
    expected = picks_by_definition(features.astype(float), 30, length == "unit")
    everything = Candidates(np.arange(80), np.arange(80), np.zeros(80), "high", {"features": features},
                            {"gm_length": length}, seeded())
    assert feature_rules.gm_matching(everything, 30).tolist() == expected
    choice = choose("gm", np.zeros(80, int), 10, seeded(), features=features, gm_length=length)
    assert choice.kept.tolist() == sorted(expected[:10])


def test_gm_of_a_class_is_that_of_its_images_alone() -> None:
    features = seeded().normal(size=(30, 4)).astype(np.float32) + 1
    labels = np.arange(30) % 3 * 7
    kept = choose("gm", labels, 12, seeded(), features=features).kept
    for label in (0, 7, 14):
        members = np.flatnonzero(labels == label)
        alone = choose("gm", labels[members], 4, seeded(), features=features[members]).kept
        assert kept[np.isin(kept, members)].tolist() == members[alone].tolist()
    # Features without length are taken, too.
    kept = choose("gm", np.zeros(4, int), 4, seeded(), features=np.zeros((4, 3), np.float32)).kept
    assert kept.tolist() == [0, 1, 2, 3]


# Distances between images

def test_kcenter_is_greedy_farthest_first() -> None:
    features, labels = seeded().normal(size=(40, 6)).astype(np.float32), np.repeat([0, 1], 20)
    kept = choose("kcenter", labels, 16, seeded(3), features=features).kept
    for members in (np.arange(20), np.arange(20, 40)):
        found = []
        for first in members:
            picks = [first]
            while len(picks) < 8:
                picks.append(max(members, key=lambda i: min(np.linalg.norm(features[i] - features[j])
                                                            for j in picks)))
            found.append(sorted(picks))
        assert kept[np.isin(kept, members)].tolist() in found
    features = column(0, 0, 0, 9, 0, 0)
    assert 3 in choose("kcenter", np.zeros(6, int), 2, seeded(), features=features).kept


def d2_by_definition(score: np.ndarray, features: np.ndarray, size: int) -> list[int]:
    n = len(features)
    distance = np.linalg.norm(features[:, None].astype(float) - features, axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :5]
    neighbors = [{*nearest[i], *np.flatnonzero((nearest == i).any(axis=1))} for i in range(n)]
    message = [score[i] + sum(math.exp(-distance[i, j]) * max(score[j], 1e-7) for j in neighbors[i])
               for i in range(n)]
    expected: list[int] = []
    while len(expected) < size:
        pick = max(set(range(n)) - set(expected), key=lambda i: message[i])
        for j in neighbors[pick]:
            message[j] -= math.exp(-.1 * distance[pick, j]) * message[pick]
        expected.append(pick)
    return sorted(expected)


def test_d2_passes_messages_by_its_definition() -> None:
    """By default the 40 % of lowest AUM are cut off first, of both classes together."""
    n = 50
    features, margin = seeded().normal(size=(n, 4)).astype(np.float32) / 3, seeded(1).normal(size=(12, n))
    choice = choose("d2", np.zeros(n, int), 12, seeded(), dynamics=record(margin=margin), features=features,
                    hard_cutoff=0)
    assert choice.kept.tolist() == d2_by_definition(choice.score, features, 12)
    never = choose("d2", np.zeros(n, int), 12, seeded(), dynamics=record(margin=np.abs(margin)),
                   features=features, hard_cutoff=0)
    assert not never.score.any() and never.kept.tolist() == d2_by_definition(never.score, features, 12)
    margin[:, 25:] += 1
    aum = record(margin=margin)[:, 1].mean(axis=0, dtype=float)
    left = np.argsort(aum)[20:]
    kept = choose("d2", np.repeat([0, 1], 25), 20, seeded(), dynamics=record(margin=margin),
                  features=features).kept
    assert np.isin(kept, left).all()
    assert 0 < (kept < 25).sum() == (left < 25).sum() < 10  # as many as are left


# Every method

N = 67
LABELS = seeded(1).choice([0, 3, 4, 11], N)  # gaps, and
LABELS[5] = 8  # a class of one image
ARRAYS = {"features": seeded(2).gamma(1, size=(N, 5)).astype(np.float32),
            "logits": seeded(3).normal(size=(N, 12)).astype(np.float32),
            "dynamics": seeded(4).random((3, 3, N)).astype(np.float16)}


def run(name: str, number: int, seed: int | list[int] = 0, arrays: dict = ARRAYS, labels: np.ndarray = LABELS,
        **settings: object) -> Choice:
    return choose(name, labels, number, seeded(seed), **arrays, **settings)


@pytest.mark.parametrize("name", METHODS)
def test_keeps_the_number_asked_for(name: str) -> None:
    for number in (1, *(coreset_size(N, rate) for rate in RATES)):
        choice = run(name, number, **{"hard_cutoff": 0} if METHODS[name].score else {})  # for 100 %
        assert choice.kept.dtype == np.int64
        assert (np.diff(choice.kept) > 0).all() and choice.kept[0] >= 0 and choice.kept[-1] < N
        assert len(choice.kept) == number
        assert (choice.score is not None) == bool(METHODS[name].score)
        if choice.score is not None:
            assert choice.score.shape == (N,) and choice.score.dtype == float
            assert np.isfinite(choice.score).all()


def test_the_default_cut_off_leaves_enough_at_the_papers_rates_but_100_percent() -> None:
    for n in range(5, 200):
        margin = record(margin=[seeded(n).random(n)])
        for rate in RATES[:-1]:
            number = coreset_size(n, rate)
            if number:
                assert len(choose("ccs", np.zeros(n, int), number, seeded(), dynamics=margin).kept) == number
    with pytest.raises(InvalidInput):
        run("ccs", N)


@pytest.mark.parametrize("name, setting", [
    ("gm", {"gm_length": "as-is"}), ("moderate", {"center": "mean"}), ("herding", {"center": "mean"}),
    ("el2n", {"first_epochs": 1}), ("ccs", {"hard_cutoff": 0.5}), ("dual", {"dual_power": 0.5}),
    ("dual", {"first_epochs": 2}), ("d2", {"per_class": False}),
    ("kcenter", {"per_class": False}), ("moderate", {"per_class": True}), ("aum", {"keep": "best"}),
    ("aum", {"per_class": False}), ("aum", {"first_epochs": 1})])
def test_settings_change_the_coreset(name: str, setting: dict) -> None:
    assert run(name, 20, **setting).kept.tolist() != run(name, 20).kept.tolist()


@pytest.mark.parametrize("name", METHODS)
def test_one_seed_one_coreset(name: str) -> None:
    assert run(name, 20).kept.tolist() == run(name, 20).kept.tolist()
    differ = run(name, 20).kept.tolist() != run(name, 20, seed=1).kept.tolist()
    assert differ == (name in ("random", "forgetting", "selfsup", "ccs", "dual", "kcenter"))


# Blocks and memory

ALL_BUT_RANDOM = [name for name, method in METHODS.items() if method.rule != "uniform"]
ORDERS = {"mixed": LABELS, "by class": np.sort(LABELS), "one class": np.zeros(N, int)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ALL_BUT_RANDOM)
def test_small_blocks_give_the_same(name: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(name, 20, labels=ORDERS[order])
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 300)
    small_blocks = run(name, 20, labels=ORDERS[order])
    assert small_blocks.kept.tolist() == plain.kept.tolist()
    if plain.score is not None:
        assert np.allclose(small_blocks.score, plain.score, rtol=1e-5)  # float32 sums of other blocks


@pytest.mark.parametrize("name", ["moderate", "herding", "grand", "gm"])
def test_mixed_images_are_chosen_as_those_in_order(name: str) -> None:
    mixed = run(name, 20)
    ids = np.argsort(LABELS, kind="stable")
    in_order = run(name, 20, labels=LABELS[ids], arrays={
        need: array[ids] for need, array in ARRAYS.items() if need != "dynamics"})
    assert sorted(ids[in_order.kept]) == mixed.kept.tolist()
    if mixed.score is not None:
        assert in_order.score.tobytes() == mixed.score[ids].tobytes()


def test_distances_of_large_features_do_not_overflow() -> None:
    """Squares of 1e25 are beyond float32's range."""
    features, labels = column(0, 3, 4, 5, 100) * np.float32(1e25), np.zeros(5, int)
    choice = choose("moderate", labels, 2, seeded(), features=features)
    assert choice.kept.tolist() == [0, 3] and np.allclose(choice.score, np.array([4, 1, 0, 1, 96]) * 1e25)
    assert np.isfinite(choose("moderate", labels, 2, seeded(), features=features, center="mean").score).all()
    small = seeded().gamma(1, size=(5, 3)).astype(np.float32)
    large = small * np.float32(2 ** 80)
    found = [choose("gm", labels, 2, seeded(), features=these).kept.tolist() for these in (small, large)]
    assert found[0] == found[1]
    assert 4 in choose("kcenter", labels, 2, seeded(), features=features).kept
    far = column(1, 1, 1, 1, -1) * np.float32(1e25)
    assert choose("selfsup", np.arange(5) % 2, 2, seeded(), features=far).score.max() < 1e-6


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("name", ALL_BUT_RANDOM)
def test_memory_is_a_part_of_what_it_reads(name: str, by_class: bool,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty classes, blocks of 64 KiB: neither all features nor all dynamics are copied."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2 ** 16)
    n = 4000
    arrays = {"features": np.ones((n, 512), np.float32), "logits": np.ones((n, 200), np.float32),
                "dynamics": np.ones((200, 3, n), np.float16)}
    arrays["features"] += seeded().random(n, np.float32)[:, None]
    labels = np.arange(n) % 20
    if by_class:
        labels.sort()
    tracemalloc.start()
    run(name, n // 5, arrays=arrays, labels=labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    needs = {*METHODS[name].needs, *configure(name, rate=1e-6).rule.needs}
    assert peak < sum(arrays[need].nbytes for need in needs) / 2


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.score])
def test_the_table_says_what_the_score_takes(name: str) -> None:
    method = METHODS[name]
    parameters = inspect.signature(method.score).parameters.values()
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["labels", "generator"]
    assert {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} == {
        **dict.fromkeys(method.needs, inspect.Parameter.empty),
        **{key: setting.default for key, setting in method.settings.items()}}
    for setting in method.settings.values():
        assert setting.default in setting.choices if setting.choices else setting.default >= 0


def test_readmes_example_of_a_new_score_and_a_new_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def confidence(labels, generator, *, dynamics):
        """Mean probability of the label over the training run."""
        return mean_over_epochs(dynamics, 0)

    def evenly(candidates, size):
        """Keep images evenly spread over the ranks."""
        return candidates.order[np.arange(size) * len(candidates.order) // size]

    monkeypatch.setitem(METHODS, "confidence", Method("easiest", confidence, ("dynamics",), hard="low"))
    monkeypatch.setitem(RULES, "evenly", Rule(evenly, any_score=True))
    labels = np.zeros(4, int)
    dynamics = record(probability=[[.5, .1, .9, .2], [.5, .3, .1, .2]])
    assert select(labels, 0.5, method="confidence", dynamics=dynamics).tolist() == [0, 2]
    dynamics = record(probability=[[.4, .1, .3, .2]])
    assert select(labels, 0.5, method="confidence", dynamics=dynamics, keep="evenly").tolist() == [1, 2]
    monkeypatch.setitem(RULES, "evenly", Rule(lambda candidates, size: candidates.order[:1], any_score=True))
    with pytest.raises(InvalidInput, match="the rule evenly keeps 1 images where 2 are asked for"):
        select(labels, 0.5, method="confidence", dynamics=dynamics, keep="evenly")


# The function select

GIVEN = {"method": "moderate", "features": ARRAYS["features"]}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_given_is_the_methods_own(name: str) -> None:
    """Its rule, its quotas and its cut-off, drawn by the seed of the scripts."""
    kept, score = select(LABELS, 0.25, method=name, return_score=True, **ARRAYS)
    expected = run(name, len(kept), [42, *name.encode()])
    assert kept.tolist() == expected.kept.tolist() and kept.dtype == np.int64
    assert (score is None) == (expected.score is None) and (score is None or (score == expected.score).all())
    assert len(kept) == coreset_size(N, 0.25)


@pytest.mark.parametrize("labels, same_as", [
    (LABELS.tolist(), LABELS), (LABELS.astype(np.uint8), LABELS),
    (np.array(["a", "b", "c"])[LABELS % 3], LABELS % 3),
    (["no", "yes", "no"] * 22 + ["no"], np.arange(N) % 3 == 1),
    (np.arange(N) % 3 == 1, np.arange(N) % 3 == 1)])
def test_labels_of_any_kind(labels: object, same_as: np.ndarray) -> None:
    expected = run("moderate", coreset_size(N, 0.2), [42, *b"moderate"], labels=same_as, per_class=True).kept
    for features in (ARRAYS["features"], ARRAYS["features"].astype(float), ARRAYS["features"].tolist()):
        kept = select(labels, 0.2, method="moderate", features=features, per_class=True)
        assert kept.tolist() == expected.tolist()


def test_strings_are_the_columns_of_logits_in_sorted_order() -> None:
    """Where a score needs them: whole numbers are columns by themselves."""
    columns = np.arange(N) % 12
    words = np.array([f"class {i:02}" for i in range(12)])[columns]
    found = [select(labels, 0.2, method="grand", **ARRAYS, return_score=True)[1]
             for labels in (columns, words)]
    assert (found[0] == found[1]).all()
    for labels, problem in ((["z", *words[1:]], "labels: of 13 classes, but the logits have 12 columns"),
                            (columns + 1, "labels: reach 12, but the logits have 12 columns")):
        with pytest.raises(ValueError, match=problem):
            select(labels, 0.2, method="grand", **ARRAYS)


def test_a_score_of_ones_own_takes_any_rule() -> None:
    score = seeded().random(N)
    kept, same = select(LABELS, 0.2, score=score, keep=0.3, hard="low", return_score=True)
    size = coreset_size(N, 0.2)
    assert kept.tolist() == scored(score, size, "0.7") and (same == score).all()
    assert select(LABELS, 0.2, score=score.astype(np.float16), keep="middle").tolist() == scored(
        score.astype(np.float16), size, "middle")


@pytest.mark.parametrize("given, problem", [
    ({"method": "oum"}, "method: 'oum' is none of random, moderate, "),
    ({}, "method: pass either a method, or a score of your own as score"),
    ({**GIVEN, "score": np.ones(N)}, "method: pass either a method, or"),
    ({"method": "moderate"}, r"features: missing; pass an array \(n, d\)"),
    ({**GIVEN, "features": ARRAYS["features"][:-1]}, f"features: of {N - 1} images, but there are {N} label"),
    ({**GIVEN, "features": np.full((N, 2), np.nan)}, "features: holds numbers that are not finite in float3"),
    ({**GIVEN, "features": np.ones(N)}, r"features: float64 \(67,\); pass floats \(n, d\)"),
    ({**GIVEN, "keep": "lowest"}, "keep: rules count difficulty now; lowest is easiest for moderate"),
    ({"method": "aum", "keep": "lowest"}, "keep: rules count difficulty now; lowest is hardest for aum"),
    ({**GIVEN, "keep": "beta"}, "keep: 'beta' is neither one of easiest, middle, hardest, "),
    ({**GIVEN, "keep": 1.5}, "keep: 1.5 is neither one of"),
    ({**GIVEN, "centre": "mean"}, "centre: not a setting of moderate with the rule middle; it has keep, per"),
    ({**GIVEN, "dual_power": 3}, "dual_power: not a setting of moderate .* it belongs to dual"),
    ({**GIVEN, "center": "middle"}, "center: 'middle' is none of median, mean"),
    ({**GIVEN, "hard": "low"}, "hard: only for a score of your own"),
    ({"method": "aum", "first_epochs": 0}, "first_epochs: 0 is not a whole number from 1"),
    ({**GIVEN, "first_epochs": 3}, "first_epochs: the method moderate uses no dynamics"),
    ({**GIVEN, "per_class": "perhaps"}, "per_class: 'perhaps' is neither True nor False"),
    ({**GIVEN, "rate": 0}, "rate: 0 is not a number above 0 to 1"),
    ({"method": "random", "labels": [0, 1], "rate": 0.1}, "rate: 0.1 keeps none of 2 images"),
    ({**GIVEN, "seed": -1}, "seed: -1 is not a whole number from 0"),
    ({**GIVEN, "labels": LABELS - 1}, "labels: .* are below 0, such as -1, which often marks images with"),
    ({**GIVEN, "labels": LABELS / 2}, "labels: float64"),
    ({"method": "random", "labels": []}, "labels: float64"),
    ({"method": "gm", "keep": "middle"}, "keep: the method gm has no score; those that have one: moderate"),
    ({"method": "aum", "dynamics": np.zeros((3, 2, N))}, r"dynamics: float64 .*; pass floats \(epochs, 3, n"),
    ({"method": "aum", "dynamics": np.full((3, 3, N), np.nan)}, "dynamics: hold no finished epoch"),
    ({"score": np.ones(N)}, "keep: missing; a score of your own has no usual rule"),
    ({"score": np.ones(N), "keep": "hardest"}, "hard: missing; high or low"),
    ({"score": np.ones(N - 1), "keep": "middle"}, r"score: float64 \(66,\); it has to be one number per im"),
    ({"score": np.full(N, np.inf), "keep": "middle"}, "score: 67 of 67 numbers are not finite")])
def test_what_cannot_be_used_is_one_line_that_names_the_keyword(given: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}") as error:
        select(**{"labels": LABELS, "rate": 0.2, **given})
    assert "\n" not in str(error.value)


def test_images_that_training_never_showed_are_refused_and_unfinished_epochs_are_left_out() -> None:
    dynamics = ARRAYS["dynamics"].astype(np.float32)
    unfinished = np.concatenate([dynamics, np.full((2, 3, N), np.nan, np.float32)])
    assert select(LABELS, 0.2, method="aum", dynamics=unfinished).tolist() == select(
        LABELS, 0.2, method="aum", dynamics=dynamics).tolist()
    unfinished[:, :, :4] = np.nan
    with pytest.raises(ValueError, match="dynamics: 4 of 67 images have numbers that are not finite; leave"):
        select(LABELS, 0.2, method="aum", dynamics=unfinished)


@pytest.mark.parametrize("score, problem", [
    (lambda labels, generator: np.ones(len(labels) - 1), r"float64 \(66,\); it has to be one number per im"),
    (lambda labels, generator: np.full(len(labels), np.nan), "67 of 67 numbers are not finite"),
    (lambda labels, generator: None, r"object \(\); it has to be one number per image")])
def test_a_score_that_is_wrong_is_named(score: Callable, problem: str, monkeypatch: pytest.MonkeyPatch
                                        ) -> None:
    monkeypatch.setitem(METHODS, "mine", Method("middle", score))
    with pytest.raises(ValueError, match=f"^score of mine: {problem}"):
        select(LABELS, 0.2, method="mine")


def test_a_methods_own_cut_off_gives_way_to_the_rate_and_one_by_hand_does_not() -> None:
    given = {"method": "ccs", "dynamics": ARRAYS["dynamics"]}
    with pytest.warns(UserWarning, match="^ccs: its hard_cutoff 0.2 leaves fewer images than the rate 0.9"):
        assert len(select(LABELS, 0.9, **given)) == coreset_size(N, 0.9)
    with pytest.raises(ValueError, match="hard_cutoff: 0.2 leaves 54 of 67 images, 61 are to be kept"):
        select(LABELS, 0.9, hard_cutoff=0.2, **given)
    with pytest.warns(UserWarning):
        assert configure("ccs", rate=0.9).title() == "ccs" == configure("ccs", rate=0.2).title()


def test_a_choice_that_is_a_draw_is_a_warning() -> None:
    """All scores equal, or more than a tenth of the coreset inside one tie."""
    labels = np.zeros(100, int)
    with pytest.warns(SelectionWarning, match="20 of the 20 images kept are drawn by the seed from the 100 "):
        select(labels, 0.2, score=np.zeros(100), keep="middle")
    counts = np.repeat([0., 1, 2, 3], [70, 17, 10, 3])
    with pytest.warns(SelectionWarning, match="7 of the 20 images kept are drawn by the seed from the 17 w"):
        select(labels, 0.2, score=counts, keep="hardest", hard="high")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select(labels, 0.3, score=counts, keep="hardest", hard="high")


def test_classes_that_lose_nearly_all_are_named() -> None:
    """Three of four classes lie at one end of the score; with per_class each keeps one image or more."""
    labels = np.repeat(["owl", "bee", "cat", "dog"], [40, 40, 18, 2])
    score = np.arange(100.)
    with pytest.warns(SelectionWarning, match=r"share: 3 of 4 \(bee: 0 of 40, cat: 0 of 18, dog: 0 of 2\); "
                      "per_class keeps the same fraction"):
        select(labels, 0.2, score=score, keep="easiest", hard="high")
    kept = select(labels, 0.1, score=score, keep="easiest", hard="high", per_class=True)
    # Of 10 images 4, 4, 1.8 and 0.2 would be theirs; the dog's comes from one of the largest parts.
    counts = [np.count_nonzero(labels[kept] == name) for name in ("owl", "bee", "cat", "dog")]
    assert sorted(counts[:2]) == [3, 4] and counts[2:] == [2, 1]


def test_the_library_needs_numpy_alone(tmp_path: Path) -> None:
    """Copied into another folder, under another name; nothing is printed."""
    shutil.copytree(ROOT / "methods", tmp_path / "vendored/coresets")
    program = ("import sys; sys.path.insert(0, 'vendored'); import numpy; from coresets import select; "
               "features = numpy.random.default_rng(0).random((100, 3)); "
               "print(select([0, 1] * 50, 0.2, method='moderate', features=features).shape, "
               "{'mindspore', 'PIL', 'tqdm', 'utils', 'datasets', 'models', 'methods'} & {*sys.modules})")
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("(20,) set()\n", "")
