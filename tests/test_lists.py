"""comparison/lists.py: scores and lists from several runs, and training on a list."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from comparison.lists import average_ranks
from conftest import CLASSES, TRAIN, TRAINED, check_one_line, names, set_args
from datasets import open_dataset
from forks import Forks
from methods import METHODS
from test_selection import NOTICED
from two_layers import NAME

RUN = Path("ckpt/CIFAR100", NAME)
SECOND = Path("second/CIFAR100", NAME)
RATES = 0.1, 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cifar: Path, trained: Path, script) -> Path:
    """A working folder with two runs of different seeds and the lists of both, not to be changed."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "data").symlink_to(cifar)
    shutil.copytree(trained, folder / RUN)
    assert not script("train.py", folder, *TRAINED, "--seed", 7, "--model_dir", "second").returncode
    make(script, folder, (RUN, SECOND), *METHODS, "forgetting:never_learned=max", "aum:per_class=False")
    return folder


def make(script, folder: Path, runs: tuple[Path, ...], *methods: str) -> None:
    result = script("comparison/lists.py", folder, "--ckpt", *(run / "best.pth" for run in runs), "--methods",
                    *methods, "--rates", *RATES, "--out", "lists")
    assert result.returncode == 0, result.stderr
    assert all(NOTICED.search(line) for line in result.stderr.splitlines()), result.stderr


def manifest(folder: Path) -> dict:
    return json.loads((folder / "lists/manifest.json").read_text())


def test_one_run_gives_what_selection_gives(work: Path, script) -> None:
    """With the run's seed, which draws random's and ccs's images."""
    methods = {"moderate": (), "gm": (), "dual": (), "el2n": (), "random": (), "ccs": (),
               "aum-keep-0.7": ("--keep", 0.7), "aum-per_class-False": ("--per_class=False",)}
    set_args(work / RUN, seed=7)
    make(script, work, (RUN,), *methods.keys() - {"aum-keep-0.7", "aum-per_class-False"}, "aum:keep=0.7",
         "aum:per_class=False")
    for name, options in methods.items():
        result = script("selection.py", work, "--ckpt", RUN / "best.pth", "--rate", 0.3, "--method",
                        name.partition("-")[0], "--seed", 7, *options)
        assert result.returncode == 0, result.stderr
        index = "CIFAR100" if name == "moderate" else f"CIFAR100-{name}"
        listed = np.load(work / f"lists/{name}-0.3.npy")
        assert listed.dtype == np.int32 and (listed == np.load(work / f"index/{index}.kept.npy")).all()
        if METHODS[name.partition("-")[0]].score:
            scores = np.load(work / f"lists/{name.partition('-')[0]}.scores.npy")
            assert scores.dtype == np.float32
            assert np.allclose(scores, np.load(work / f"index/{index}.scores.npy"))


def means(folder: Path, row: int) -> list[np.ndarray]:
    """Of a row of both runs' dynamics over the epochs."""
    return [np.load(folder / run / "dynamics.npy")[:, row].mean(axis=0, dtype=float) for run in (RUN, SECOND)]


def test_scores_are_the_means_and_lists_follow_from_them(folder: Path) -> None:
    margins = means(folder, 1)
    scores = np.load(folder / "lists/aum.scores.npy")
    assert np.allclose(scores, np.mean(margins, axis=0)) and not np.allclose(*margins, atol=1e-3)
    order = np.argsort(np.mean(margins, axis=0))
    assert set(np.load(folder / "lists/aum-per_class-False-0.3.npy")) == set(order[110:170])
    kept = np.load(folder / "lists/aum-0.1.npy")
    for label in range(CLASSES):  # of each class the window at 0.3 from its easy end, the high one
        own = order[order % CLASSES == label]
        assert set(kept[kept % CLASSES == label]) == set(own[26:30])


def test_scores_of_features_are_means_too_and_rules_use_those_of_the_first_run(folder: Path, script) -> None:
    found = {}
    for run, seed in ((RUN, 42), (SECOND, 7)):
        for method in ("moderate", "gm"):
            result = script("selection.py", folder, "--ckpt", run / "best.pth", "--rate", 0.3, "--method",
                            method, "--seed", seed, "--save", f"index-{seed}")
            assert result.returncode == 0, result.stderr
        index = folder / f"index-{seed}"
        found[seed] = np.load(index / "CIFAR100.scores.npy"), np.load(index / "CIFAR100-gm.kept.npy")
    assert np.allclose(np.load(folder / "lists/moderate.scores.npy"), (found[42][0] + found[7][0]) / 2)
    assert (np.load(folder / "lists/gm-0.3.npy") == found[42][1]).all()
    assert (found[42][1] != found[7][1]).any()


def test_every_file_is_in_the_manifest(folder: Path) -> None:
    found = manifest(folder)
    assert names(folder / "lists") == {*found["lists"], *found["scores"], "manifest.json", "correlations.md",
                                       "correlations.png", "correlations.svg"}
    assert len(found["lists"]) == len(RATES) * (len(METHODS) + 2)
    runs = [(run["seed"], run["arch"], run["epochs"]) for run in found["runs"]]
    assert runs == [(42, NAME, 3), (7, NAME, 3)]
    assert found["lists"]["gm-0.3.npy"]["score"] is None
    assert [found["scores"][f"{name}.scores.npy"]["hard"] for name in ("aum", "el2n")] == ["low", "high"]
    for name, entry in found["lists"].items():
        assert len(np.load(folder / "lists" / name)) == entry["kept"] == TRAIN * entry["rate"]


def test_correlations(folder: Path) -> None:
    """Of a score between the runs, and of two scores' means; aum is low where an image is hard, el2n high."""
    lines = (folder / "lists/correlations.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    header, table = rows[0], {row[0]: row for row in rows[2:]}
    assert {"aum, ccs", "moderate, herding", "forgetting, d2", "forgetting-never_learned-max"} <= set(header)
    errors = means(folder, 2)
    between = np.corrcoef([by_hand(values) for values in errors])[0, 1]
    assert table["el2n"][1] == f"{between:.2f} to {between:.2f}"
    assert table["el2n"][header.index("el2n")] == f"{between:.2f}"
    margins = np.load(folder / "lists/aum.scores.npy").astype(float)
    with_aum = np.corrcoef(by_hand(np.mean(errors, axis=0)), by_hand(-margins))[0, 1]
    assert table["el2n"][header.index("aum, ccs")] == f"{with_aum:.2f}" and with_aum > 0.5


def by_hand(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean, by counting."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def test_ties_share_their_mean_rank() -> None:
    values = np.random.default_rng(0).integers(0, 5, 40)
    assert (average_ranks(values) == by_hand(values)).all()


def test_training_on_a_list_keeps_its_images(folder: Path, work: Path, script) -> None:
    """In a folder named after the method; network and image size are the user's, not the runs'."""
    shutil.copytree(folder / "lists", work / "lists")
    listed = "lists/aum-per_class-False-0.1.npy"
    refused = script("train.py", work, "--prune", listed, *TRAINED)
    check_one_line(refused, f"--prune {listed}: holds the images to keep; use --kept {listed}")
    result = script("train.py", work, "--kept", listed, *TRAINED)
    assert result.returncode == 0 and "has no manifest" not in result.stderr, result.stderr
    assert f"20 of {TRAIN} training images" in result.stdout
    args = json.loads((work / RUN / "coreset-aum-0.1-per_class-False-list/args.json").read_text())
    kept = np.load(work / "lists/aum-per_class-False-0.1.npy")
    data = open_dataset("CIFAR100", work / "data")
    assert args["images"] == len(kept) == 20 and args["index"]["images_sha256"] == data.images_sha256


@pytest.mark.parametrize("change, word", [
    ({}, "another index"),  # the list's content
    ({"dataset": "CIFAR100N"}, "made for CIFAR100N"), ({"images_sha256": "0"}, "other images"),
    ({"images": 100}, "made for 100 images"), ({"lists": {"aum-0.1.npy": 3}}, "not a manifest")])
def test_a_list_of_other_images_is_refused(change: dict, word: str, folder: Path, work: Path, script) -> None:
    shutil.copytree(folder / "lists", work / "lists")
    (work / "lists/manifest.json").write_text(json.dumps(manifest(folder) | change))
    if not change:
        np.save(work / "lists/aum-0.1.npy", np.arange(20, dtype=np.int32))
    result = script("train.py", work, "--dataset", "CIFAR100", "--kept", "lists/aum-0.1.npy", *TRAINED)
    check_one_line(result, "aum-0.1.npy" * (word != "not a manifest"), word)
    assert not list((work / RUN).glob("coreset*"))


@pytest.mark.parametrize("manifest", [None, "{}", "[", '{"lists": 3}'])
@pytest.mark.parametrize("option, images, said", [
    ("--prune", TRAIN - 20, "leaves out 20, trains on 180; if these are the images to keep, use --kept"),
    ("--kept", 20, "leaves out 180, trains on 20; if these are the images to leave out, use --prune")])
def test_a_list_without_a_manifest_is_what_the_option_says(
        folder: Path, work: Path, forks: Forks, option: str, images: int, said: str, manifest: str | None
) -> None:
    """It was copied, renamed, or the writing of the lists was stopped; its type does not matter."""
    shutil.copy(folder / "lists/aum-0.1.npy", work / "ids.npy")
    if manifest:
        (work / "manifest.json").write_text(manifest)
    else:
        np.save(work / "ids.npy", np.load(work / "ids.npy").astype(np.int64))
    run = forks.start(work, "train.py", option, "ids.npy", *TRAINED,
                      stop={"change": "open .args.json.tmp"}).finish()
    assert run.err.startswith(f"train.py: warning: ids.npy: has no manifest; {said}\n")
    assert f"{images} of {TRAIN} training images" in run.out and f"coreset-ids-{images}" in run.out


def test_a_part_of_the_classes(work: Path, script, forks: Forks) -> None:
    """Its rows are those of ids.npy, and train.py takes the images of its list from that part."""
    part, record = np.flatnonzero(np.arange(TRAIN) % CLASSES < 3), work / RUN / "dynamics.npy"
    set_args(work / RUN, classes=3, images=len(part))
    np.save(record, np.load(record)[..., part])
    make(script, work, (RUN,), "aum:keep=hardest:per_class=False")
    name = "lists/aum-keep-hardest-per_class-False-0.1.npy"
    ids, kept = np.load(work / "lists/ids.npy"), np.load(work / name)
    assert (ids == part).all() and len(kept) == 12
    margins = np.load(record)[:, 1].mean(axis=0, dtype=float)
    assert set(kept) == set(ids[np.argsort(margins)[:12]])
    said = forks.kill(work, "open .args.json.tmp", 0, "train.py", "--kept", name, *TRAINED)
    assert "12 of 120 training images" in said


@pytest.mark.parametrize("options, words", [
    (("--rates", 0.001), ("--rates: 0.001 keeps none of 200",)), (("--methods", "oum"), ("--methods", "oum")),
    (("--ckpt", "ckpt/none/best.pth"), ("ckpt/none/best.pth",)),
    (("--ckpt", RUN / "best.pth", RUN / "last.pth"), ("--ckpt", "two checkpoints of one run"))])
def test_bad_options(options: tuple, words: tuple, work: Path, script) -> None:
    result = script("comparison/lists.py", work, "--ckpt", RUN / "best.pth", "--out", "lists", *options)
    check_one_line(result, *words)
    assert not (work / "lists").exists()


@pytest.mark.parametrize("args, words", [
    ({"epoch": 4}, "3 of 4 epochs"), ({"classes": CLASSES - 1}, "other images"),
    ({"prune": "index.bin", "images": 40}, "trained on a coreset; pass runs on the whole")])
def test_runs_that_do_not_belong_together_or_are_incomplete_are_refused(args: dict, words: str, work: Path,
                                                                       script) -> None:
    set_args(shutil.copytree(work / RUN, work / SECOND), **args)
    runs = RUN / "best.pth", SECOND / "best.pth"
    result = script("comparison/lists.py", work, "--ckpt", *runs, "--methods", "moderate", "--out", "lists")
    check_one_line(result, str(SECOND / "best.pth"), words)
    assert not (work / "lists").exists()


def test_lists_that_would_lose_their_manifest_are_not_left_behind(work: Path, script) -> None:
    """Another command may write more lists into their folder, but not fewer; 0.8 leaves too few for 0.3."""
    make(script, work, (RUN,), "random", "ccs:hard_cutoff=0.8")
    assert manifest(work)["lists"].keys() == {"random-0.1.npy", "random-0.3.npy",
                                              "ccs-hard_cutoff-0.8-0.1.npy"}
    before = {path.name: path.read_bytes() for path in (work / "lists").iterdir()}
    options = "--ckpt", RUN / "best.pth", "--methods", "aum", "--out", "lists", "--rates", *RATES
    result = script("comparison/lists.py", work, *options)
    check_one_line(result, "--out lists: holds lists", "-0.1.npy")
    assert {path.name: path.read_bytes() for path in (work / "lists").iterdir()} == before
    make(script, work, (RUN,), "random", "aum", "ccs:hard_cutoff=0.8")
