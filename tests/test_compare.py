"""compare.py's tables, intervals and plot against runs that are made by hand; its plan and its options."""
import csv
import itertools
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compare
from forks import ROOT, Forks, Run
from utils import tables
from utils.files import BadInput, sha256
from utils.processes import make_places
from utils.tables import WHOLE

SMALL = ["--dataset", "toy", "--arch", "resnet20", "--epoch", "2", "--seeds", "1", "2", "--rates", "0.2",
         "0.5"]


def row(method: str, rate: float, seed: int, last: float, best: float = 0, equal: str = "epochs") -> dict:
    return {"method": method, "rate": str(rate), "seed": str(seed), "last_accuracy": str(last),
            "best_accuracy": str(best or last), "equal": equal, "seconds": "1800",
            "epochs": "30" if method == WHOLE else "100"}


ROWS = [row(WHOLE, 1, 1, 80), row(WHOLE, 1, 2, 82), row("random", 0.2, 1, 30), row("random", 0.2, 2, 34),
        row("moderate", 0.2, 1, 35), row("moderate", 0.2, 2, 37), row("random", 0.5, 1, 50, 60)]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line]


def test_accuracies_are_mean_deviation_and_number_best_in_bold() -> None:
    table = cells(tables.accuracy_table(ROWS, "last_accuracy"))
    assert table[0] == ["method", "keep 20 %", "keep 50 %"]
    assert table[2] == ["whole set: 81.00 ± 1.41 (2)", "", ""]
    assert table[3] == ["random", "32.00 ± 2.83 (2)", "**50.00** (1)"]
    assert table[4] == ["moderate", "**36.00 ± 1.41** (2)", "-"]


def test_the_best_epochs_table_has_the_best_epochs_accuracy() -> None:
    assert cells(tables.accuracy_table(ROWS, "best_accuracy"))[3][2] == "**60.00** (1)"


def test_differences_are_paired_by_seed() -> None:
    # 5 and 3: mean 4, deviation sqrt(2), so 12.706 * sqrt(2) / sqrt(2).
    assert cells(tables.difference_table(ROWS))[2] == ["moderate", "+4.00 ± 12.71 (2)", "-"]


def test_an_interval_against_a_worked_example() -> None:
    # Student's own data (sleep, 1908): mean 1.58, deviation 1.23, t(9) 2.262, interval 0.70 to 2.46.
    mean, half_width = tables.interval([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert mean == pytest.approx(1.58) and (mean - half_width, mean + half_width) == pytest.approx(
        (0.7001, 2.4599), abs=1e-3)


def test_equal_steps_and_equal_epochs_are_tables_of_their_own() -> None:
    text = tables.tables([*ROWS, row("moderate", 0.2, 1, 70, equal="steps")], [])
    epochs, steps = text.split("## Equal steps")
    assert "Epochs: 30 of the whole set, 100 of a coreset" in epochs
    assert "36.00 ± 1.41" in epochs and "70.00" not in epochs and "**70.00** (1)" in steps
    assert "4.00 hours of training and testing, 1.00 of them base runs" in steps


def test_published_figures_are_those_of_the_file() -> None:
    header, *rows = tables.published_rows(compare.ROOT / "imgs/published.csv", "CIFAR100")
    assert header[:2] == ["CIFAR-100", "keep 20 %"] and len(rows) == 9
    assert ["Moderate-DS (Xia 2023)", "51.83±0.52"] in [row[:2] for row in rows]


def test_published_figures_of_a_scene_leave_out_rates_that_have_none() -> None:
    header, *rows = tables.published_rows(compare.ROOT / "imgs/published.csv", "CIFAR100N")
    assert header == ["CIFAR-100, 20 % label noise", "keep 20 %", "keep 30 %"]
    assert ["Random (Xia 2023)", "34.47", "43.26"] in rows
    assert ["Moderate-DS (Xia 2023)", "40.25", "48.53"] in rows
    assert tables.published_rows(compare.ROOT / "imgs/published.csv", "toy") == []


def shown(rows: list[dict], name: str) -> np.ndarray:
    """Rows and columns of a method's pixels in the plot, the legend aside, (n, 2)."""
    pixels = np.asarray(tables.draw_plot(rows, "toy"))
    assert pixels.shape == (tables.HEIGHT, tables.WIDTH, 3)
    color = tables.COLORS[("random", "moderate").index(name)]
    own = (pixels == [int(color[i:i + 2], 16) for i in (1, 3, 5)]).all(axis=2)
    own[:, tables.WIDTH - tables.RIGHT:] = False
    own[:, :tables.LEFT] = False
    return np.argwhere(own)


def test_the_plot_shows_each_method_in_its_color_at_its_accuracy() -> None:
    heights = [places[places[:, 1] < tables.LEFT + 120, 0].mean()
               for places in (shown(ROWS, "moderate"), shown(ROWS, "random"))]
    assert heights[0] < heights[1]  # higher up


def test_the_plot_of_a_single_rate_has_methods_beside_one_another() -> None:
    rows = ROWS[:6]
    assert shown(rows, "random")[:, 1].max() + 50 < shown(rows, "moderate")[:, 1].min()


def test_the_plot_does_not_mix_equal_steps_with_equal_epochs() -> None:
    steps = row("random", 0.2, 1, 70, equal="steps")
    assert tables.draw_plot([*ROWS, steps], "toy") == tables.draw_plot(ROWS, "toy")
    assert tables.draw_plot([*ROWS[:2], steps], "toy") != tables.draw_plot([*ROWS[:2], ROWS[2]], "toy")


@pytest.mark.parametrize("accuracies", [(50, 50), (0, 100), (33.3, 33.4), (0, 0), (100, 100)])
def test_the_plot_holds_any_range_of_accuracies(accuracies: tuple[float, float]) -> None:
    rows = [row("random", 0.2, 1, accuracies[0], 1), row("moderate", 0.2, 1, accuracies[1], 1)]
    for name in ("random", "moderate"):
        places = shown(rows, name)[:, 0]
        assert len(set(places)) == 9 and places.min() >= tables.TOP - 4  # a dot, all of it
        assert places.max() <= tables.HEIGHT - tables.BOTTOM + 4


def test_a_wide_deviation_ends_at_the_plots_edges() -> None:
    rows = [row("random", 0.2, 1, 97), row("random", 0.2, 2, 2)]  # 49.5 ± 67.2
    places = shown(rows, "random")[:, 0]
    assert places.min() >= tables.TOP and places.max() <= tables.HEIGHT - tables.BOTTOM


def test_rows_are_in_the_methods_order_whichever_was_finished_first() -> None:
    rows = [row("ccs", 0.2, 2, 1), row("my-own", 0.2, 1, 1), row("ccs", 0.2, 1, 1), row("random", 0.5, 1, 1),
            row(WHOLE, 1, 1, 1), row("random", 0.2, 1, 1)]
    assert [(one["method"], one["rate"], one["seed"]) for one in compare.in_order(rows)] == [
        (WHOLE, "1", "1"), ("random", "0.2", "1"), ("random", "0.5", "1"), ("ccs", "0.2", "1"),
        ("ccs", "0.2", "2"), ("my-own", "0.2", "1")]


def plan(*options: str) -> list[compare.Run]:
    """The runs on the toy set's 3,000 images."""
    return compare.plan(compare.parse_options([*SMALL, "--out", "x", *options]), 3000)


def test_the_plan_has_a_base_run_a_seed_then_its_coresets() -> None:
    runs = plan("--methods", "random", "moderate")
    assert [(run.method, run.rate, run.seed) for run in runs][:5] == [
        (WHOLE, 1, 1), ("random", 0.2, 1), ("moderate", 0.2, 1), ("random", 0.5, 1), ("moderate", 0.5, 1)]
    assert len({run.key for run in runs}) == len(runs) == 10


def test_equal_steps_gives_a_coreset_the_base_runs_steps() -> None:
    runs = plan("--equal", "steps", "--base_epoch", "4", "--batch_size", "100", "--methods", "random")
    epochs = {run.rate: run.commands[-1][run.commands[-1].index("--epoch") + 1] for run in runs}
    assert epochs == {1.0: "4", 0.2: "20", 0.5: "8"}  # 4 x 30 steps: 20 x 6, 8 x 15


def test_what_is_named_twice_is_done_once() -> None:
    options = ("--methods", "random", "random", "--rates", "1/3", "0.333333", "--seeds", "1", "1")
    runs = plan(*options)
    assert [run.key for run in runs] == [(WHOLE, 1, 1, "epochs"), ("random", 0.333333, 1, "epochs")]
    assert float(f"{runs[1].rate:g}") == runs[1].rate  # what runs.csv has of it is found again


def test_jobs_share_out_the_cores() -> None:
    places = make_places(2)
    assert not set(places[0].cores) & set(places[1].cores) or len(set(places[0].cores)) == 1
    assert [place.card for place in make_places(1, ["0", "3"])] == ["0", "3"]


def test_other_settings_in_a_folder_are_refused(tmp_path: Path) -> None:
    options = [*SMALL, "--out", str(tmp_path)]
    compare.check_settings(compare.parse_options(options), "a")
    compare.check_settings(compare.parse_options([*options, "--seeds", "7"]), "a")
    with pytest.raises(BadInput, match="--lr: 0.2, but 0.1 in"):
        compare.check_settings(compare.parse_options([*options, "--lr", "0.2"]), "a")
    with pytest.raises(BadInput, match="--data data: other images or labels of toy than those of"):
        compare.check_settings(compare.parse_options(options), "b")


@pytest.mark.parametrize("options", [["--rates", "0"], ["--rates", "1.5"], ["--methods", "best"],
                                     ["--seeds", "-1"], ["--jobs", "0"], ["--equal", "hours"], []])
def test_bad_options_are_one_line(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        compare.parse_options([*(["--out", "x"] if options else []), *options])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and (options or ["--out"])[0] in error


def test_a_file_that_is_not_compares_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="runs.csv: not a file of compare.py"):
        tables.read_runs(tmp_path / "runs.csv", compare.COLUMNS)


def test_a_comparison_of_real_runs_killed_and_continued(forks: Forks, cifar: Path, tmp_path: Path) -> None:
    """What is written down is what the runs' own files say."""
    options = ("--data", cifar, "--arch", "resnet6", "--image_size", 16, "--classes", 4, "--epoch", 1,
               "--base_epoch", 2, "--batch_size", 40, "--methods", "random", "moderate", "--rates", 0.2,
               "--seeds", 1, 2, "--jobs", 2, "--device", "CPU", "--out", "out")
    stop = {"places": str(tmp_path / "places"), "change": "os.rename .runs.csv.tmp", "number": 3}
    assert forks.start(tmp_path, "compare.py", *options, stop=stop).finish().returncode == -signal.SIGKILL
    begun = len((tmp_path / "out/runs.csv").read_text().splitlines()) - 1
    run = forks.start(tmp_path, "compare.py", *options).finish()
    assert run.returncode == 0 and begun == 3, run.err
    rows = rows_of(tmp_path)
    coresets = itertools.product(("random", "moderate"), ("0.2",), "12")
    assert sorted((row["method"], row["rate"], row["seed"]) for row in rows) == sorted(
        [(WHOLE, "1", "1"), (WHOLE, "1", "2"), *coresets])
    for row in rows:
        base = tmp_path / f"out/seed-{row['seed']}/CIFAR100/resnet6"
        folder, index = base, ""
        if row["method"] != WHOLE:
            name = "CIFAR100.bin" if row["method"] == "moderate" else "CIFAR100-random.bin"
            index = sha256(tmp_path / f"out/index/seed-{row['seed']}/rate-{row['rate']}" / name)
            folder = next(base.glob(f"coreset-{row['method']}-{row['rate']}*"))
        with open(folder / "log.csv", newline="") as file:
            log = list(csv.DictReader(file))
        assert int(row["images"]) == (160 if row["method"] == WHOLE else 32)
        assert int(row["epochs"]) == len(log)
        assert int(row["steps"]) == len(log) * -(-int(row["images"]) // 40)
        assert row["last_accuracy"] == log[-1]["test_acc"] and row["train_accuracy"] == log[-1]["train_acc"]
        assert float(row["best_accuracy"]) == max(float(line["test_acc"]) for line in log)
        assert row["index_sha256"] == index and row["checkpoint_sha256"] == sha256(folder / "last.pth")
    with Image.open(tmp_path / "out/plot.png") as plot:
        assert plot.size == (tables.WIDTH, tables.HEIGHT)
    assert (tmp_path / "out/table.md").read_text() == tables.tables(compare.in_order(rows), [])


# Whole comparisons with train.py and selection.py replaced by scripts of a moment

OPTIONS = (*SMALL, "--methods", "random", "moderate", "--out", "out")
RUNS = 10  # two base runs and eight coresets
FILES = ("runs.csv", "table.md", "table.csv", "plot.png", "settings.json")
# The change of a file at which compare.py is killed, and which one of that kind.
DEATHS = [("open .settings.json.tmp", 0), ("os.rename .settings.json.tmp", 0), ("open .runs.csv.tmp", 0),
          ("os.rename .runs.csv.tmp", 1), ("open moderate-0.2-seed-1-epochs.log", 0),
          ("os.rename .runs.csv.tmp", 4), ("os.rename .table.md.tmp", 0), ("os.rename .table.csv.tmp", 0),
          ("open .plot.png.tmp", 0), ("os.rename .plot.png.tmp", 0)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with compare.py and, beside it, scripts that do in a moment what it runs."""
    shutil.copy(ROOT / "compare.py", tmp_path)
    shutil.copytree(ROOT / "imgs", tmp_path / "imgs")
    (tmp_path / "train.py").write_text(FAKE_TRAIN)
    (tmp_path / "selection.py").write_text(FAKE_SELECTION)
    return tmp_path


@pytest.fixture
def start(forks: Forks, project: Path) -> Callable[..., Run]:
    """start("--jobs", 2): compare.py, begun."""
    return lambda *options, **settings: forks.start(project, str(project / "compare.py"), *OPTIONS, *options,
                                                    **settings)


def results(project: Path) -> dict[str, bytes]:
    return {name: (project / "out" / name).read_bytes() for name in FILES}


def calls(project: Path) -> list[str]:
    """The scripts that were begun."""
    return (project / "calls").read_text().splitlines()


def rows_of(project: Path) -> list[dict]:
    with open(project / "out/runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_that_fails_does_not_stop_the_others_and_is_made_up_for(project: Path, start: Callable) -> None:
    (project / "fail").write_text("moderate 0.5 2")
    run = start().finish()
    assert run.returncode == 1
    assert "compare.py: failed: moderate 0.5, seed 2, equal epochs: selection.py: no luck\n" in run.err
    assert len(rows_of(project)) == RUNS - 1 and "| 51.00 (1) |" in (project / "out/table.md").read_text()
    (project / "fail").unlink()
    assert start().finish().returncode == 0
    assert len(rows_of(project)) == RUNS and len(calls(project)) == RUNS + 8 + 2 - 1
    table = (project / "out/table.md").read_text()
    assert "| random | **21.50 ± 0.71** (2) | **51.50 ± 0.71** (2) |" in table


def test_a_run_whose_files_cannot_be_read_does_not_stop_the_others(project: Path, start: Callable) -> None:
    log = project / "out/seed-2/toy/resnet20/coreset-random-0.5/log.csv"
    log.mkdir(parents=True)  # in its place
    run = start().finish()
    assert run.returncode == 1 and "failed: random 0.5, seed 2, equal epochs: " in run.err
    assert len(rows_of(project)) == RUNS - 1 and "Traceback" not in run.err


def test_coresets_of_a_base_run_that_fails_are_not_tried(project: Path, start: Callable) -> None:
    (project / "fail").write_text("base 1")
    run = start().finish()
    assert run.returncode == 1 and run.err.count("seed 1, equal epochs: its base run failed") == 4
    assert {row["seed"] for row in rows_of(project)} == {"2"}


def test_a_comparison_without_a_finished_run_says_why(project: Path, start: Callable) -> None:
    (project / "fail").write_text("base 1")
    run = start("--seeds", 1).finish()
    assert run.returncode == 1 and "Traceback" not in run.err and not (project / "out/runs.csv").exists()
    assert "compare.py: failed: whole set 1, seed 1, equal epochs: train.py: no luck\n" in run.err


def test_methods_are_added_to_a_finished_folder(project: Path, start: Callable) -> None:
    assert start().finish().returncode == 0
    before = len(calls(project))
    assert start("--methods", "random", "moderate", "herding").finish().returncode == 0
    assert len(calls(project)) == before + 2 * 4  # its four runs, no others
    assert (project / "out/table.md").read_text().count("| herding |") == 3


def test_two_jobs_give_the_same_results_and_plot_as_one(project: Path, start: Callable) -> None:
    assert start().finish().returncode == 0
    one = results(project)
    rows = rows_of(project)
    shutil.rmtree(project / "out")
    assert start("--jobs", 2).finish().returncode == 0
    two = results(project)
    assert sorted(map(str, rows)) == sorted(map(str, rows_of(project)))
    assert all(one[name] == two[name] for name in ("table.md", "table.csv", "plot.png"))


def test_a_finished_folder_without_its_large_files_goes_on_elsewhere(project: Path, start: Callable) -> None:
    """With what .gitignore leaves of it: finished runs are those of runs.csv."""
    assert start().finish().returncode == 0
    before = calls(project)
    for path in [*(project / "out").rglob("last.pth"), *(project / "out").rglob("coreset-*"),
                 project / "out/output"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert start().finish().returncode == 0 and calls(project) == before
    assert start("--seeds", 1, 2, 3).finish().returncode == 0 and len(rows_of(project)) == RUNS + 5


@pytest.mark.parametrize("change, number", [
    pytest.param(*death, marks=() if death in DEATHS[3:5] else pytest.mark.kills) for death in DEATHS])
def test_killed_and_continued_is_as_never_stopped(project: Path, start: Callable, change: str, number: int
                                                  ) -> None:
    assert start().finish().returncode == 0
    expected = results(project)
    shutil.rmtree(project / "out")
    stop = {"places": str(project / "out.places"), "change": change, "number": number}
    assert start(stop=stop).finish().returncode == -signal.SIGKILL
    (project / "calls").unlink(missing_ok=True)
    finished = len(rows_of(project)) if (project / "out/runs.csv").exists() else 0
    run = start().finish()
    assert run.returncode == 0 and results(project) == expected, run.err
    begun = calls(project) if (project / "calls").exists() else []
    assert begun.count("train") == RUNS - finished


@pytest.mark.parametrize("number, status", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_what_it_runs_ends_with_it(project: Path, start: Callable, number: int, status: int) -> None:
    (project / "sleep").write_text("")
    run = start("--jobs", 2)
    until = time.monotonic() + 60
    while len(list(project.glob("asleep-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    asleep = [int(path.name.partition("-")[2]) for path in project.glob("asleep-*")]
    run.send_signal(number)
    assert run.finish().returncode == status
    if number == signal.SIGINT:
        assert run.err.splitlines()[-1] == "compare.py: stopped; the same command goes on from there"
        assert "Traceback" not in run.err
    while any(Path(f"/proc/{pid}").exists() for pid in asleep) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(asleep) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in asleep)


def test_a_dry_run_prints_the_commands_and_writes_nothing(project: Path, start: Callable) -> None:
    run = start("--dry_run").finish()
    assert run.returncode == 0 and not (project / "out").exists()
    lines = run.out.splitlines()
    assert len(lines) == RUNS + 8 and lines[0].startswith("python train.py --dataset toy")


FAKE_TRAIN = '''
import json, os, pathlib, sys, time

def fails(here, what):
    return (here / "fail").exists() and what == (here / "fail").read_text()

words = [word for word in sys.argv[1:] if word != "--resume"]
options = dict(zip(words[::2], words[1::2]))
here = pathlib.Path(sys.argv[0]).parent
with open(here / "calls", "a") as file:
    print("train", file=file)
if (here / "sleep").exists():
    (here / f"asleep-{os.getpid()}").touch()
    time.sleep(600)
if "--prune" not in options and fails(here, f"base {options['--seed']}"):
    sys.exit("train.py: no luck")
folder = pathlib.Path(options["--model_dir"], options["--dataset"], options["--arch"])
accuracy = 80
if "--prune" in options:
    manifest = json.loads(pathlib.Path(options["--prune"]).with_suffix(".json").read_text())
    folder /= f"coreset-{manifest['method']}-{manifest['rate']:g}"
    accuracy = 100 * manifest["rate"] + int(options["--seed"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "last.pth").write_text("weights")
(folder / "args.json").write_text(json.dumps({"images": 100, "batch_size": 10}))
header = "epoch,train_acc,test_acc,train_seconds,test_seconds"
(folder / "log.csv").write_text(f"{header}\\n1,9,{accuracy},1,1\\n")
'''
FAKE_SELECTION = '''
import fcntl, json, os, pathlib, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
here = pathlib.Path(sys.argv[0]).parent
method, rate, seed = options["--method"], options["--rate"], options["--seed"]
with open(here / "calls", "a") as file:
    print("selection", file=file)
if (here / "fail").exists() and f"{method} {rate} {seed}" == (here / "fail").read_text():
    sys.exit("selection.py: no luck")
index = pathlib.Path(options["--save"], "toy.bin" if method == "moderate" else f"toy-{method}.bin")
index.parent.mkdir(parents=True, exist_ok=True)
base = os.open(pathlib.Path(options["--ckpt"]).parent, os.O_RDONLY)
fcntl.flock(base, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails beside another one, as selection.py does
time.sleep(0.1)
index.write_text("ids")
index.with_suffix(".json").write_text(json.dumps({"method": method, "rate": float(rate)}))
'''
