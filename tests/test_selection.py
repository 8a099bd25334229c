"""selection.py: what is chosen by what, where it is kept, what the index and its manifest say."""
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import mindspore as ms
import numpy as np
import pytest
from PIL import Image, ImageFont

import train
from conftest import CLASSES, SMALL, TRAIN, Payload, check_one_line, contents, names, objects, set_args
from datasets import SOURCES, DataSet
from datasets.images import Split
from forks import ROOT, Forks
from golden_networks import golden, seeded
from methods import METHODS, configure, select
from models.checkpoint import save_checkpoint
from models.features import features_and_logits
from two_layers import FEATURES, NAME
from utils.files import locked
from utils.index import coreset_name, read_index
from utils.picture import draw_selection, fitting
from weights import make_batch

RUN = Path("ckpt/CIFAR100", NAME)
LABELS = np.arange(TRAIN) % CLASSES
# What small data often are warned of: classes that lose nearly all, and ties.
NOTICED = re.compile("warning: (classes that keep none or under a quarter|.* images kept are drawn by)")
SUFFIXES = "bin", "json", "kept.npy", "png"  # of every index


@pytest.fixture
def choose(script, work: Path) -> Callable[..., CompletedProcess]:
    """choose("--method", "random"): keep a fifth of the images, by the run's best.pth."""
    def run(*options: object) -> CompletedProcess:
        result = script("selection.py", work, "--ckpt", RUN / "best.pth", "--rate", 0.2, *options)
        assert result.returncode == 0, result.stderr
        assert all(NOTICED.search(line) for line in result.stderr.splitlines()), result.stderr
        return result
    return run


def read(index: Path) -> tuple[np.ndarray, dict]:
    """Ids to drop and the manifest."""
    return pickle.loads(index.read_bytes()), json.loads(index.with_suffix(".json").read_text())


# As the release

@pytest.mark.parametrize("rate", [0.2, 0.3, 0.4, 0.6, 0.8, 1.0])
def test_ids_agree_with_pytorchs_features_and_the_releases_formula(rate: float, features: np.ndarray) -> None:
    kept = select(np.arange(200) % 7, rate, method="moderate", features=features)
    assert np.delete(np.arange(200), kept).tolist() == golden("selection")[f"{rate}"].tolist()


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return seeded("resnet20").set_train(False).features(ms.Tensor(make_batch(200)[0])).asnumpy()


def test_features_and_logits_are_in_evaluation_mode_and_order(tmp_path: Path) -> None:
    """Each image's as the unfolded network gives them; 150 images do not fill the last batch."""
    images = np.random.default_rng(3).integers(0, 256, (150, 32, 32, 3), np.uint8)
    split, source = Split(images, np.zeros(150, np.int32)), SOURCES["CIFAR100"]
    data = DataSet("x", split, split, [str(i) for i in range(100)], source, "")
    network = seeded("resnet20").set_train(False)
    save_checkpoint(network, tmp_path / "best.pth")
    some = [0, 63, 64, 149]
    inputs = ((images[some] / 255 - source.mean) / source.std).transpose(0, 3, 1, 2).astype(np.float32)
    alone = {"features": np.concatenate([network.features(ms.Tensor(x[None])).asnumpy() for x in inputs])}
    alone["logits"] = network.classifier(ms.Tensor(alone["features"])).asnumpy()
    together = features_and_logits(data, "resnet20", tmp_path / "best.pth", tmp_path)
    for name, values in alone.items():
        assert together[name].shape == (150, values.shape[1]) and together[name].dtype == np.float32
        assert np.abs(together[name][some] - values).max() < 1e-4 * np.abs(values).max()


# Every method

@pytest.mark.parametrize("method", METHODS)
def test_a_method_after_three_epochs(choose, kept: Path, method: str) -> None:
    result = choose("--method", method)
    index = kept / f"index/CIFAR100{'' if method == 'moderate' else f'-{method}'}.bin"
    drop, manifest = read(index)
    assert drop.dtype == np.int64 and len(set(drop)) == len(drop) == 160
    ids_kept = index.with_suffix(".kept.npy")
    ids = np.load(ids_kept)
    assert sorted([*drop, *ids]) == list(range(200))
    assert ids.dtype == np.int32
    counts = np.bincount(np.delete(LABELS, drop), minlength=CLASSES)
    assert manifest["kept_by_class"] == counts.tolist()
    assert re.search(f"kept 40 of 200 images, {min(counts)} .* to {max(counts)} .* per class", result.stdout)
    assert result.stdout.endswith(f"ids kept in {ids_kept.relative_to(kept)}, ids to drop in "
                                  f"{index.relative_to(kept)}\n")
    assert (manifest["method"], manifest["rate"]) == (method, 0.2)
    row = METHODS[method]
    assert (manifest["keep"], manifest["per_class"], manifest["hard_cutoff"]) == (
        row.rule, row.per_class, row.hard_cutoff)
    selection = configure(method, rate=0.2)
    for name, value in selection.settings.items():
        assert manifest[name] == value
    used = {"checkpoint"} if selection.needs else set()
    assert {name.removesuffix("_sha256") for name in manifest if name.endswith("_sha256")} == {
        "images", "index", "dropped", *used, *({"dynamics"} & {*selection.needs})}
    suffixes = {*SUFFIXES, "scores.npy"} if row.score else {*SUFFIXES}
    assert names(kept / "index") == {f"{index.stem}.{suffix}" for suffix in suffixes}
    if row.score:
        scores = np.load(index.with_suffix(".scores.npy"))
        assert scores.shape == (TRAIN,)
        assert manifest["kept_band"] == [scores[ids].min(), scores[ids].max()]
    assert len(Image.open(index.with_suffix(".png")).getcolors(10 ** 6)) > 100


def test_dynamics_alone_keep_the_network_of_their_run(script, work: Path) -> None:
    """And its classes, whose number the dynamics have to fit; an option unlike the run's is refused."""
    command = "selection.py", work, "--method", "aum", "--rate", 0.2, "--dynamics", RUN / "dynamics.npy"
    assert script(*command).returncode == 0
    manifest = read(work / "index/CIFAR100-aum.bin")[1]
    assert (manifest["arch"], manifest["image_size"], manifest["trained_on"]) == (NAME, 32, "CIFAR100")
    check_one_line(script(*command, "--classes", 3), f"--classes 3: the run of {RUN}/dynamics.npy has all, ")


@pytest.mark.parametrize("file", ["CIFAR100.kept.npy", "CIFAR100.json", "CIFAR100.png"])
def test_a_selection_that_fails_leaves_the_earlier_one_complete(selected: Path, forks: Forks, file: str
                                                                ) -> None:
    """On a full disk, here a limit of the size of a file."""
    before = contents(selected / "index")
    change = f"open .{file}.tmp" if file.endswith(("npy", "json")) else f"open {file}"
    options = "selection.py", "--ckpt", RUN / "best.pth", "--rate", 0.4
    run = forks.start(selected, *options, stop={"change": change, "bytes": 10}).finish()
    assert run.returncode != 0 and contents(selected / "index") == before
    assert forks.start(selected, *options).finish().returncode == 0
    assert names(selected / "index") == {*before} and contents(selected / "index") != before


def test_a_random_control_keeps_the_network_and_size_that_it_names(script, work: Path) -> None:
    options = "--method", "random", "--rate", 0.2, "--arch", "resnet20", "--image_size", 16
    assert script("selection.py", work, *options).returncode == 0
    manifest = read(work / "index/CIFAR100-random.bin")[1]
    assert (manifest["arch"], manifest["image_size"]) == ("resnet20", 16)


def test_no_variant_displaces_another(choose, work: Path) -> None:
    """Whatever is not the method's default stands in the name of the index."""
    variants = {"": (), "-keep-ends": ("--keep", "ends"), "-per_class": ("--per_class", True),
                "-keep-0.3-hard_cutoff-0.25": ("--keep", 0.3, "--hard_cutoff", "1/4"),
                "-aum-keep-middle": ("--method", "aum", "--keep", "middle"),
                "-forgetting-never_learned-max": ("--method", "forgetting", "--never_learned", "max")}
    for options in variants.values():
        choose(*options)
    indices = {name: work / f"index/CIFAR100{name}.bin" for name in variants}
    assert set(indices.values()) == set((work / "index").glob("*.bin"))
    assert len({read(index)[0].tobytes() for index in indices.values()}) == len(variants)
    counts = read(indices["-per_class"])[1]["kept_by_class"]
    assert np.abs(counts - np.bincount(LABELS, minlength=CLASSES) / 5).max() < 1


def test_scores_of_an_earlier_selection_do_not_stay_beside_one_without(choose, work: Path) -> None:
    (work / "index").mkdir()
    (work / "index/CIFAR100-random.scores.npy").write_bytes(b"earlier")
    choose("--method", "random")
    assert names(work / "index") == {f"CIFAR100-random.{suffix}" for suffix in SUFFIXES}


# Names of coreset runs

@pytest.mark.parametrize("options, name", [
    ((), "coreset-moderate-0.2"),
    (("--seed", 1), "coreset-moderate-0.2"),  # moderate draws nothing
    (("--center", "mean"), "coreset-moderate-0.2-center-mean"),
    (("--method", "random"), "coreset-random-0.2"),
    (("--method", "random", "--seed", 1), "coreset-random-0.2-seed-1"),
    (("--method", "herding", "--center", "mean", "--seed", 7), "coreset-herding-0.2-center-mean-seed-7"),
    (("--method", "ccs", "--hard_cutoff", 0.1), "coreset-ccs-0.2-hard_cutoff-0.1"),
    (("--method", "ccs", "--hard_cutoff", 0.2), "coreset-ccs-0.2"),
    (("--method", "aum", "--keep", "0.70"), "coreset-aum-0.2-keep-0.7"),
    (("--method", "aum", "--per_class", False), "coreset-aum-0.2-per_class-False"),
    (("--method", "aum", "--keep", "0.30", "--per_class"), "coreset-aum-0.2"),
    (("--per_class", True, "--seed", 1), "coreset-moderate-0.2-per_class-seed-1"),  # it draws between classes
    (("--method", "gm", "--per_class", False, "--seed", 1), "coreset-gm-0.2-per_class-False")])  # it does not
def test_a_coreset_runs_folder_names_what_is_not_default(choose, kept: Path, options: tuple,
                                                         name: str) -> None:
    choose(*options)
    index = next((kept / "index").glob("*.bin"))
    images_sha256 = read(index)[1]["images_sha256"]
    assert coreset_name(index, read_index(index, "CIFAR100", np.arange(TRAIN), images_sha256)[1], 40) == name


# Features and logits, kept once

KEPT = {"best.features.npy", "best.features.json", "best.logits.npy"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, cifar: Path, trained: Path, script) -> Path:
    """A working folder after a first selection, whose features are kept beside the checkpoint."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "data").symlink_to(cifar)
    shutil.copytree(trained, folder / RUN)
    result = script("selection.py", folder, "--ckpt", RUN / "best.pth", "--rate", 0.2)
    assert result.returncode == 0 and not result.stderr and "using the features" not in result.stdout
    assert KEPT < names(folder / RUN) and not KEPT & names(folder / "index")
    return folder


@pytest.fixture
def kept(first: Path, work: Path) -> Path:
    """The working folder with the features that were kept."""
    for name in KEPT:
        shutil.copy(first / RUN / name, work / RUN)
    return work


@pytest.fixture
def selected(first: Path, kept: Path) -> Path:
    """The working folder after that selection."""
    shutil.copytree(first / "index", kept / "index")
    return kept


@pytest.mark.parametrize("options", [("--rate", 0.4), ("--center", "mean"), ("--method", "grand"),
                                     ("--method", "gm", "--seed", 1), ("--save", "another/folder")])
def test_one_pass_serves_every_selection(selected: Path, choose, options: tuple) -> None:
    assert f"using the features in {RUN}/best.features.npy" in choose(*options).stdout


def test_the_same_name_with_other_weights_is_another_checkpoint(selected: Path, choose) -> None:
    shutil.copy(selected / RUN / "last.pth", selected / RUN / "best.pth")
    assert "using the features" not in choose().stdout


def test_other_images_get_features_of_their_own_and_a_warning(selected: Path, script) -> None:
    data = shutil.copytree(selected / "data", selected / "changed")
    table = pickle.loads((data / "cifar-100-python/train").read_bytes())
    table["data"] = 255 - table["data"]
    (data / "cifar-100-python/train").write_bytes(pickle.dumps(table))
    result = script("selection.py", selected, "--ckpt", RUN / "best.pth", "--rate", 0.2, "--data", "changed")
    assert "using the features" not in result.stdout
    check_one_line(result, f"{RUN}/best.pth: trained on CIFAR100, not on all images and labels of ", status=0)


def test_another_image_size_gets_features_of_its_own(selected: Path, choose) -> None:
    (selected / RUN / "args.json").unlink()
    assert "using the features" not in choose("--image_size", 16, "--arch", NAME).stdout


@pytest.mark.parametrize("option, trained_with", [(("--image_size", 16), 32), (("--arch", "resnet6"), NAME)])
def test_an_option_unlike_the_runs_is_refused(script, work: Path, option: tuple, trained_with: object
                                             ) -> None:
    result = script("selection.py", work, "--ckpt", RUN / "best.pth", "--rate", 0.2, *option)
    check_one_line(result, f"{option[0]} {option[1]}: the run of {RUN}/best.pth has {trained_with}, ")
    assert not (work / "index").exists()


def test_the_checkpoint_of_a_coreset_run_is_taken_with_a_warning(script, choose, work: Path) -> None:
    choose()
    assert script("train.py", work, *SMALL, "--epoch", 1, "--prune", "index/CIFAR100.bin").returncode == 0
    run = RUN / "coreset-moderate-0.2"
    result = script("selection.py", work, "--ckpt", run / "best.pth", "--rate", 0.4)
    check_one_line(result, f"{run}/best.pth: trained on CIFAR100, a coreset of 40 images, not on all ",
                   status=0)
    assert read(work / "index/CIFAR100.bin")[1]["trained_on"] == "CIFAR100, a coreset of 40 images"


def test_captions_are_cut_where_the_image_ends() -> None:
    font = ImageFont.load_default(10)
    captions = "pickup_truck", "Yorkshire terrier", ""
    assert [fitting(caption, font) for caption in captions] == ["pickup truck", "Yorkshire te…", ""]


def test_a_name_that_the_font_cannot_show_becomes_the_images_id(tmp_path: Path) -> None:
    pixels, score = np.zeros((30, 8, 8, 3), np.uint8), np.arange(30.)
    drawn = [draw_selection("title", score, "high", "score", np.arange(6), 30, lambda i: pixels[i], captions)
             for captions in (["\u732b"] * 30, [str(i) for i in range(30)], ["owl"] * 30)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_rate_that_drops_nothing_is_said_loudly(script, work: Path) -> None:
    result = script("selection.py", work, "--method", "random")
    check_one_line(result, "nothing is dropped at --rate 1; pass the fraction to keep, such as 0.2", status=0)


def test_in_a_locked_folder_features_are_kept_beside_the_index(choose, work: Path) -> None:
    """As for one that cannot be written to: test_stopping.py."""
    with locked(work / RUN):
        choose()
        assert names(work / RUN) == {"args.json", "best.pth", "dynamics.npy", "last.pth", "log.csv"}
        assert "using the features in index/CIFAR100.features.npy" in choose("--rate", 0.4).stdout


def test_the_index_folder_is_not_locked_during_the_feature_pass(work: Path, forks: Forks, choose) -> None:
    """The process stops itself when it is about to write features; another selection is made meanwhile."""
    stop = {"change": "open .best.features.npy", "signal": signal.SIGSTOP}
    waiting = forks.start(work, "selection.py", "--ckpt", RUN / "best.pth", "--rate", 0.2, stop=stop)
    while "T (stopped)" not in Path(f"/proc/{waiting.pid}/status").read_text():
        time.sleep(0.01)
    choose("--method", "random")
    waiting.send_signal(signal.SIGCONT)
    assert waiting.finish().returncode == 0, waiting.err
    assert {"CIFAR100.bin", "CIFAR100-random.bin"} < names(work / "index")


@pytest.mark.parametrize("damage", [
    lambda run: objects(run / "best.features.npy"),
    lambda run: os.truncate(run / "best.logits.npy", 7),
    lambda run: (run / "best.logits.npy").unlink(),
    lambda run: np.save(run / "best.features.npy", np.zeros((TRAIN, FEATURES))),
    lambda run: np.save(run / "best.features.npy", np.zeros((TRAIN, FEATURES, 1), np.float32)),
    lambda run: (run / "best.features.json").write_bytes(pickle.dumps(Payload())),
], ids=["objects as features", "cut logits", "no logits", "float64", "three axes", "a pickle as key"])
def test_hostile_or_damaged_features_are_computed_again(selected: Path, choose, damage: Callable) -> None:
    """They are only a saving: a payload in them is not run, and the selection is made without them."""
    expected = {path: path.read_bytes() for path in (selected / RUN).iterdir()}
    damage(selected / RUN)
    assert "using the features" not in choose().stdout
    assert {path: path.read_bytes() for path in expected} == expected and not (selected / "TRAP").exists()


# Network and image size, from args.json beside the checkpoint

@pytest.mark.parametrize("damage, words", [
    (lambda run: (run / "best.pth").unlink(), (f"{RUN}/best.pth: no such file",)),
    (lambda run: (run / "args.json").write_text("{"), (f"{RUN}/args.json: not an object in JSON",))])
def test_random_too_needs_the_checkpoint_that_is_named(script, work: Path, damage: Callable, words: tuple
                                                       ) -> None:
    """Its classes and image size are those of the run."""
    damage(work / RUN)
    result = script("selection.py", work, "--ckpt", RUN / "best.pth", "--method", "random", "--rate", 0.2)
    check_one_line(result, *words)
    assert not (work / "index").exists()


def test_the_releases_network_where_there_is_no_args_json(script, work: Path) -> None:
    (work / RUN / "args.json").unlink()
    result = script("selection.py", work, "--ckpt", RUN / "best.pth")
    assert result.returncode == 2 and "not a checkpoint of resnet50" in result.stderr


def test_an_index_made_at_one_size_serves_another(script, forks: Forks, work: Path) -> None:
    """The network's own size is found beside it; two-layers takes images of any size."""
    set_args(work / RUN, image_size=16)
    result = script("selection.py", work, "--rate", 0.2, "--ckpt", RUN / "best.pth")
    assert result.returncode == 0, result.stderr
    manifest = read(work / "index/CIFAR100.bin")[1]
    assert (manifest["arch"], manifest["image_size"]) == (NAME, 16)
    options = train.parse_options(["--prune", str(work / "index/CIFAR100.bin")])
    assert (options.arch, options.image_size) == (NAME, 16)
    said = forks.kill(work, "open .args.json.tmp", 0, "train.py", *SMALL, "--image_size", 32, "--prune",
                      "index/CIFAR100.bin")
    assert "--image_size 32: the images of index/CIFAR100.bin were selected with 16" in said
    assert "40 of 200 training images" in said


def test_training_takes_the_data_set_of_the_selection_where_none_is_given(work: Path, script, noisy) -> None:
    result = script("selection.py", work, "--dataset", "CIFAR100N", "--data", "noisy", "--method", "random",
                    "--rate", 0.2)
    assert result.returncode == 0, result.stderr
    index = "index/CIFAR100N-random.bin"
    assert train.parse_options(["--prune", str(work / index)]).dataset == "CIFAR100N"
    assert train.parse_options([]).dataset == "CIFAR100"
    check_one_line(script("train.py", work, "--dataset", "CIFAR100", *SMALL, "--prune", index),
                   f"{index}: made for CIFAR100N, not for CIFAR100")


@pytest.mark.parametrize("changes, unlike", [
    ({}, ""), ({"batch_size": 50}, "--batch_size 50, not 100"), ({"lr": 0.003}, "--lr 0.003, not 0.1"),
    ({"batch_size": 50, "lr": 0.003}, "--batch_size 50, not 100 and --lr 0.003, not 0.1"), (None, "")])
def test_settings_unlike_those_of_the_run_that_selected_are_said(
        choose, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
        changes: dict | None, unlike: str) -> None:
    """Where the run is gone, nothing is known."""
    choose()
    if changes is None:
        shutil.rmtree(kept / "ckpt")
    else:
        set_args(kept / RUN, **changes)
    monkeypatch.chdir(kept)
    train.parse_options(["--prune", "index/CIFAR100.bin", "--batch_size", "100"])
    said = capsys.readouterr().err
    assert said.partition("warning: ")[2] == (unlike and "the run by which the images of index/CIFAR100.bin "
                                              f"were selected has {unlike}\n")


def test_a_coreset_without_a_class_is_said(work: Path, forks: Forks) -> None:
    np.save(work / "kept.npy", np.flatnonzero(LABELS >= 2))
    run = forks.start(work, "train.py", *SMALL, "--kept", "kept.npy",
                      stop={"change": "open .args.json.tmp"}).finish()
    assert run.err.splitlines()[1:] == [
        "train.py: warning: 2 of 5 classes have no training image: class 0, class 1"]


# Your own arrays

@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, np.ndarray]:
    """A working folder's arrays of 60 images of three classes, saved under their names."""
    generator = np.random.default_rng(5)
    arrays = {"labels": np.arange(60) % 3, "features": generator.random((60, 4)),
              "logits": generator.normal(size=(60, 3)).astype(np.float16), "score": generator.random(60),
              "dynamics": generator.random((12, 3, 60)).astype(np.float32)}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return arrays


@pytest.mark.parametrize("method", METHODS)
def test_a_method_from_files_is_that_of_the_library(script, arrays: dict, tmp_path: Path, method: str
                                                    ) -> None:
    needs = configure(method, rate=0.3).needs
    own = [word for name in needs for word in (f"--{name}", f"{name}.npy")]
    result = script("selection.py", tmp_path, "--labels", "labels.npy", *own, "--method", method, "--rate",
                    0.3, "--seed", 7)
    assert result.returncode == 0, result.stderr
    labels, given = arrays["labels"], {name: arrays[name] for name in needs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept, score = select(labels, 0.3, method=method, seed=7, return_score=True, **given)
    stem = next((name for name in ("features", "logits", "dynamics") if name in needs), "labels")
    index = tmp_path / "index" / configure(method, rate=0.3).index_name(stem)
    assert np.load(index.with_suffix(".kept.npy")).tolist() == kept.tolist()
    assert score is None or (np.load(index.with_suffix(".scores.npy")) == score).all()
    manifest = read(index)[1]
    assert manifest["keep_scale"] == "difficulty" and manifest["class_names"] == ["0", "1", "2"]


def test_without_mindspore_on_the_path(arrays: dict, tmp_path: Path) -> None:
    """Nor does --help load it."""
    program = ("import sys; sys.modules['mindspore'] = None; sys.argv = ['selection.py', *sys.argv[1:]]; "
               f"import runpy; sys.path.insert(0, {str(ROOT)!r}); "
               f"runpy.run_path({str(ROOT / 'selection.py')!r}, run_name='__main__')")
    selected = "--labels labels.npy --dynamics dynamics.npy --method aum --rate 0.2".split()
    for options, words in ((selected, "ids kept in index/dynamics-aum.kept.npy"), (["--help"], "--first_ep")):
        run = subprocess.run([sys.executable, "-c", program, *options], cwd=tmp_path, capture_output=True,
                             text=True)
        assert run.returncode == 0 and words in run.stdout, run.stderr
    kept = select(arrays["labels"], 0.2, method="aum", dynamics=arrays["dynamics"])
    assert np.load(tmp_path / "index/dynamics-aum.kept.npy").tolist() == kept.tolist()


def test_labels_that_are_text_and_a_name_for_the_files(script, arrays: dict, tmp_path: Path) -> None:
    words = np.array(["owl", "bee", "cat"])[arrays["labels"]]
    (tmp_path / "labels.csv").write_text("\ufeff" + "\n".join(words) + "\n")
    result = script("selection.py", tmp_path, "--labels", "labels.csv", "--score", "score.npy", "--keep", 0.3,
                    "--hard", "high", "--rate", 0.2, "--name", "mine")
    assert result.returncode == 0, result.stderr
    assert "score: keeps the images around 0.3 of the difficulty (0 easiest, 1 hardest)\n" in result.stdout
    manifest = read(tmp_path / "index/mine-score-keep-0.3.bin")[1]
    assert manifest["class_names"] == ["bee", "cat", "owl"] and manifest["hard"] == "high"
    kept = select(words, 0.2, score=arrays["score"], keep=0.3, hard="high")
    assert np.load(tmp_path / "index/mine-score-keep-0.3.kept.npy").tolist() == kept.tolist()
    for content, problem in (("label\n0\n1\n", "line 1 is 'label', but all others are whole numbers"),
                             ("0,1\n", "line 1 is not one label"), ("a\n\nb\n", "line 2 is not one label")):
        (tmp_path / "labels.csv").write_text(content)
        check_one_line(script("selection.py", tmp_path, "--labels", "labels.csv", "--method", "random"),
                       f"labels.csv: {problem}")


def test_a_score_of_this_project_knows_its_hard_end(script, choose, kept: Path) -> None:
    """Beside a data set: a score that was written goes in again, and its index has both names."""
    choose("--method", "aum")
    score = kept / "index/CIFAR100-aum.scores.npy"
    options = "--dataset", "CIFAR100", "--score", score, "--keep", 0.3, "--per_class", "--rate", 0.2
    result = script("selection.py", kept, *options)
    assert result.returncode == 0 and "hard images are at its low end" in result.stdout, result.stderr
    again = kept / "index/CIFAR100-CIFAR100-aum.scores-score-keep-0.3-per_class.kept.npy"
    # The same window; of equal sizes the rounding between classes is the same.
    assert np.load(again).tolist() == np.load(kept / "index/CIFAR100-aum.kept.npy").tolist()


def test_dynamics_without_args_json_are_taken_with_a_warning(script, work: Path) -> None:
    """Of another loop: what was not checked is said, and the index has both names."""
    shutil.copy(work / RUN / "dynamics.npy", work / "mine.npy")
    options = "--dataset", "CIFAR100", "--dynamics", "mine.npy", "--method", "aum", "--rate", 0.2
    result = script("selection.py", work, *options)
    check_one_line(result, "mine.npy: no args.json beside it; cannot check that it is of the images of CIFAR",
                   status=0)
    assert (work / "index/CIFAR100-mine-aum.bin").exists()


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """A working folder without any data set: mine.npy, of two classes along a line, and labels.npy."""
    values = np.array([0, 3, 4, 6, 100, 1000, 1003, 1004, 1007, 1100])
    np.save(tmp_path / "mine.npy", values[:, None].astype(np.float32))
    np.save(tmp_path / "labels.npy", np.repeat([7, 9], 5))
    return tmp_path


MINE = ("--features", "mine.npy", "--labels", "labels.npy", "--rate", 0.2)


def test_embeddings_need_no_data_set(script, embeddings: Path) -> None:
    """Distances to the medians 4 and 1004: 4 1 0 2 96, 4 1 0 3 96. The middle two of ten are 2 and 3."""
    result = script("selection.py", embeddings, *MINE)
    assert result.returncode == 0, result.stderr
    drop, manifest = read(embeddings / "index/mine.bin")
    assert drop.tolist() == [0, 1, 2, 4, 5, 6, 7, 9]
    assert manifest["features"] == "mine.npy" and manifest["kept_by_class"] == [1, 1]
    assert names(embeddings / "index") == {f"mine.{name}" for name in (*SUFFIXES, "scores.npy")}


def test_embeddings_alone_take_the_data_sets_labels(script, work: Path) -> None:
    """Those of the checkpoint's own features give its selection."""
    np.save(work / "mine.npy", np.arange(TRAIN, dtype=np.float32)[:, None])
    options = "--features", "mine.npy", "--rate", 0.2, "--method", "herding"
    check_one_line(script("selection.py", work, *options), "--labels: missing, and so is --dataset; pass one")
    result = script("selection.py", work, *options, "--dataset", "CIFAR100")
    assert result.returncode == 0, result.stderr
    drop, manifest = read(work / "index/CIFAR100-mine-herding.bin")
    assert manifest["not_default"] == ["CIFAR100-mine"]
    assert manifest["dataset"] == "CIFAR100" and manifest["kept_by_class"] == [8] * CLASSES
    assert np.delete(np.arange(TRAIN), drop).tolist() == list(range(80, 120))


@pytest.mark.parametrize("name, array", [
    ("mine", np.full((10, 2), np.nan, np.float32)), ("mine", np.ones((10, 0), np.float32)),
    ("labels", np.ones((10, 1), int)), ("labels", np.array([Payload()], object))])
def test_embeddings_or_labels_that_do_not_fit_are_refused(script, embeddings: Path, name: str,
                                                          array: np.ndarray) -> None:
    np.save(embeddings / f"{name}.npy", array, allow_pickle=True)
    check_one_line(script("selection.py", embeddings, *MINE), f"error: {name}.npy: ")
    assert names(embeddings) == {"mine.npy", "labels.npy"}


def test_a_class_without_kept_images_counts_0(script, embeddings: Path) -> None:
    np.save(embeddings / "mine.npy", np.array([0, 0, 0, 0, 0, 1, 2, 3, 4, 90], np.float32)[:, None])
    result = script("selection.py", embeddings, "--features", "mine.npy", "--labels", "labels.npy", "--rate",
                    0.2, "--method", "herding", "--center", "mean")
    assert "kept 2 of 10 images, 0 (9) to 2 (7) per class" in result.stdout
    assert "classes that keep none or under a quarter of their share: 1 of 2 (9: 0 of 5)" in result.stderr
    assert read(embeddings / "index/mine-herding-center-mean.bin")[1]["kept_by_class"] == [2, 0]


@pytest.fixture
def noisy(work: Path) -> np.ndarray:
    """Labels of which a quarter are wrong, as CIFAR100N has them in --data noisy."""
    labels = np.where(np.arange(TRAIN) % 4 == 0, (LABELS + 1) % CLASSES, LABELS)
    folder = shutil.copytree(work / "data", work / "noisy") / "noisy"
    folder.mkdir()
    np.save(folder / "cifar.npy", labels)
    return labels


def test_it_says_how_much_of_a_coreset_is_mislabelled(script, work: Path, noisy: np.ndarray) -> None:
    for more in ((), ("--classes", 3)):
        result = script("selection.py", work, "--dataset", "CIFAR100N", "--data", "noisy", "--method",
                        "random", "--rate", 0.2, *more)
        assert result.returncode == 0, result.stderr
        drop, manifest = read(work / "index/CIFAR100N-random.bin")
        ids = np.flatnonzero(noisy < 3) if more else np.arange(TRAIN)
        wrong = (noisy != LABELS)[ids]
        kept = np.isin(ids, drop, invert=True)
        assert manifest["perturbed_percent"] == 100 * wrong.mean()
        assert manifest["kept_perturbed_percent"] == pytest.approx(100 * wrong[kept].mean())
        assert f"{100 * wrong[kept].mean():.1f} % of the coreset are mislabelled" in result.stdout


def test_it_says_how_many_of_the_wrong_labels_a_run_has_fitted(script, work: Path, noisy: np.ndarray) -> None:
    options = ("--dataset", "CIFAR100N", "--data", "noisy", *SMALL, "--epoch", 2)
    result = script("train.py", work, *options)
    assert result.returncode == 0, result.stderr
    folder = work / "ckpt/CIFAR100N" / NAME
    margin = np.load(folder / "dynamics.npy")[-1, 1]
    fitted = json.loads((folder / "args.json").read_text())["fitted_wrong_labels_percent"]
    assert fitted == pytest.approx(100 * (margin[noisy != LABELS] > 0).mean())
    assert f"has fitted {fitted:.1f} % of the wrong labels (augmented images, training mode)" in result.stdout
    result = script("train.py", work, *options, "--resume")  # the run is the same one still
    assert result.returncode == 0 and f"has fitted {fitted:.1f} %" in result.stdout


# The first classes of a data set

def test_three_classes_go_through_the_workflow_with_the_data_sets_ids(script, forks: Forks, work: Path
                                                                      ) -> None:
    options = (*SMALL, "--epoch", 2, "--classes", 3, "--batch_size", 60)
    assert script("train.py", work, *options).returncode == 0
    result = script("selection.py", work, "--ckpt", RUN / "best.pth", "--rate", 0.2)  # --classes: args.json's
    assert result.returncode == 0, result.stderr
    drop, manifest = read(work / "index/CIFAR100.bin")
    assert manifest["images"] == 120 and manifest["kept"] == 24 and len(drop) == 96
    assert (LABELS[drop] < 3).all() and drop.max() > 120
    assert np.load(work / RUN / "dynamics.npy").shape == (2, 3, 120)
    said = forks.kill(work, "open .args.json.tmp", 0, "train.py", *options, "--prune", "index/CIFAR100.bin")
    assert "24 of 120 training images, 30 test images, 3 classes" in said
    result = script("train.py", work, *SMALL, "--prune", "index/CIFAR100.bin", "--classes", 5)
    assert "--classes 5: the images of index/CIFAR100.bin were selected with 3" in result.stdout
    assert result.returncode == 2 and "made for 120 images of CIFAR100, not for 200; pass " in result.stderr
    result = script("train.py", work, "--batch_size", 100, "--epoch", 1, "--prune", "index/CIFAR100.bin")
    assert f"24 of 120 training images, 30 test images, 3 classes; {NAME} on CPU" in result.stdout
