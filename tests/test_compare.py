"""compare.py's tables, intervals and plot against runs that are made by hand; its plan and its options."""
import csv
from pathlib import Path

import numpy as np
import pytest

import compare
from utils import tables
from utils.files import BadInput
from utils.processes import make_places
from utils.tables import WHOLE

SMALL = ["--dataset", "toy", "--arch", "resnet20", "--epoch", "2", "--seeds", "1", "2", "--rates", "0.2",
         "0.5"]


def row(method: str, rate: float, seed: int, last: float, best: float = 0, equal: str = "epochs") -> dict:
    return {"method": method, "rate": str(rate), "seed": str(seed), "last_accuracy": str(last),
            "best_accuracy": str(best or last), "equal": equal, "seconds": "1800"}


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
    assert "36.00 ± 1.41" in epochs and "70.00" not in epochs and "**70.00** (1)" in steps
    assert "4.00 hours of training and testing, 1.00 of them base runs" in steps


def test_published_figures_are_those_of_the_file() -> None:
    header, *rows = tables.published_rows(compare.ROOT / "imgs/published.csv", "CIFAR100")
    assert header[:2] == ["method", "keep 20 %"] and len(rows) == 9
    assert ["Moderate-DS (Xia 2023)", "51.83±0.52"] in [row[:2] for row in rows]


def test_published_figures_of_a_scene_leave_out_rates_that_have_none() -> None:
    header, *rows = tables.published_rows(compare.ROOT / "imgs/published.csv", "CIFAR100N")
    assert header == ["method", "keep 20 %", "keep 30 %"]
    assert ["Random (Xia 2023)", "34.47", "43.26"] in rows
    assert ["Moderate-DS (Xia 2023)", "40.25", "48.53"] in rows
    assert tables.published_rows(compare.ROOT / "imgs/published.csv", "toy") == []


def test_the_plot_shows_each_method_in_its_color_at_its_accuracy() -> None:
    pixels = np.asarray(tables.draw_plot(ROWS, "toy"))
    assert pixels.shape == (tables.HEIGHT, tables.WIDTH, 3)
    heights = {}
    for name, color in zip(("random", "moderate"), tables.COLORS):
        own = (pixels == [int(color[i:i + 2], 16) for i in (1, 3, 5)]).all(axis=2)
        own[:, tables.WIDTH - tables.RIGHT:] = False  # the legend
        own[:, :tables.LEFT] = False
        heights[name] = np.flatnonzero(own[:, :tables.LEFT + 120].any(axis=1)).mean()
    assert heights["moderate"] < heights["random"]  # higher up


def test_the_plan_has_a_base_run_a_seed_then_its_coresets() -> None:
    runs = compare.plan(compare.parse_options([*SMALL, "--methods", "random", "moderate", "--out", "x"]))
    assert [(run.method, run.rate, run.seed) for run in runs][:5] == [
        (WHOLE, 1, 1), ("random", 0.2, 1), ("moderate", 0.2, 1), ("random", 0.5, 1), ("moderate", 0.5, 1)]
    assert len({run.key for run in runs}) == len(runs) == 10


def test_equal_steps_gives_a_coreset_the_base_runs_steps() -> None:
    runs = compare.plan(compare.parse_options([*SMALL, "--equal", "steps", "--base_epoch", "4",
                                               "--batch_size", "100", "--methods", "random", "--out", "x"]))
    epochs = {run.rate: run.commands[-1][run.commands[-1].index("--epoch") + 1] for run in runs}
    assert epochs == {1.0: "4", 0.2: "20", 0.5: "8"}  # 4 x 30 steps: 20 x 6, 8 x 15


def test_jobs_share_out_the_cores() -> None:
    places = make_places(2)
    assert not set(places[0].cores) & set(places[1].cores) or len(set(places[0].cores)) == 1
    assert [place.card for place in make_places(1, ["0", "3"])] == ["0", "3"]


def test_other_settings_in_a_folder_are_refused(tmp_path: Path) -> None:
    options = [*SMALL, "--out", str(tmp_path)]
    compare.check_settings(compare.parse_options(options))
    compare.check_settings(compare.parse_options([*options, "--seeds", "7"]))
    with pytest.raises(BadInput, match="--lr: 0.2, but 0.1 in"):
        compare.check_settings(compare.parse_options([*options, "--lr", "0.2"]))


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


def test_end_to_end_stopped_by_a_failing_run_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture) -> None:
    """Two methods, two rates, two seeds, with train.py and selection.py replaced by scripts of seconds."""
    (tmp_path / "imgs").mkdir()
    (tmp_path / "train.py").write_text(FAKE_TRAIN)
    (tmp_path / "selection.py").write_text(FAKE_SELECTION)
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    options = [*SMALL, "--methods", "random", "moderate", "--out", str(tmp_path / "out")]
    (tmp_path / "fail").write_text("moderate 0.5 2")
    with pytest.raises(SystemExit) as end:
        compare.main(options)
    error = capsys.readouterr().err
    assert end.value.code == 1
    assert "failed: moderate 0.5, seed 2, equal epochs: selection.py: no luck" in error
    (tmp_path / "fail").write_text("")
    with pytest.raises(SystemExit) as end:
        compare.main(options)
    assert end.value.code == 0
    with open(tmp_path / "out/runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and len((tmp_path / "calls").read_text().splitlines()) == 10 + 8 + 2 - 1
    table = (tmp_path / "out/table.md").read_text()
    assert "| random | **21.50 ± 0.71** (2) | **51.50 ± 0.71** (2) |" in table
    with pytest.raises(SystemExit):  # a method is added: its four runs, no others
        compare.main([*SMALL, "--methods", "random", "moderate", "herding",
                                                          "--out", str(tmp_path / "out")])
    assert len((tmp_path / "out/runs.csv").read_text().splitlines()) == 1 + 14
    assert (tmp_path / "out/plot.png").exists()


FAKE_TRAIN = '''
import json, pathlib, sys
words = [word for word in sys.argv[1:] if word != "--resume"]
options = dict(zip(words[::2], words[1::2]))
here = pathlib.Path(sys.argv[0]).parent
with open(here / "calls", "a") as file:
    print("train", file=file)
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
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
here = pathlib.Path(sys.argv[0]).parent
method, rate, seed = options["--method"], options["--rate"], options["--seed"]
with open(here / "calls", "a") as file:
    print("selection", file=file)
if f"{method} {rate} {seed}" == (here / "fail").read_text():
    sys.exit("selection.py: no luck")
index = pathlib.Path(options["--save"], "toy.bin" if method == "moderate" else f"toy-{method}.bin")
index.parent.mkdir(parents=True, exist_ok=True)
index.write_text("ids")
index.with_suffix(".json").write_text(json.dumps({"method": method, "rate": float(rate)}))
'''
