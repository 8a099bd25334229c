"""compare.py's tables, intervals and plot for runs made by hand; its plan, its options and its processes."""
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import compare
from comparison import charts, intervals, lists, tables
from comparison.jobs import Jobs, split_cores
from comparison.tables import WHOLE
from conftest import log, names
from forks import ROOT, Forks, Run
from methods import METHODS
from selection import parse_options as parse_selection
from utils.errors import BadInput
from utils.files import sha256, write_csv

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
    table = cells(tables.accuracy_table(ROWS, "resnet6", "last_accuracy"))
    assert table[0] == ["method", "keep 20 %", "keep 50 %"]
    assert table[2] == ["whole set (resnet6)", "81.00 ± 1.41 (2)", "81.00 ± 1.41 (2)"]
    assert table[3] == ["random", "32.00 ± 2.83 (2)", "50.00 (1)"]
    assert table[4] == ["moderate", "**36.00 ± 1.41** (2)", "-"]
    assert cells(tables.accuracy_table(ROWS, "resnet6", "best_accuracy"))[3][2] == "60.00 (1)"


def test_bold_is_the_best_of_methods_with_the_same_seeds() -> None:
    """Not of as many runs with other seeds, nor of single runs beside others."""
    others = [row("dual", 0.2, seed, 90) for seed in (2, 3)]
    others += [row(f"aum:keep={i / 10:g}", 0.2, 1, 99) for i in range(9)]
    table = tables.accuracy_table([*ROWS, *others], "resnet6", "last_accuracy")
    assert table.count("**") == 2 and "| dual | 90.00 ± 0.00 (2) | - |" in table
    assert "| moderate | **36.00 ± 1.41** (2) | - |" in table
    larger = [row(name, 0.2, seed, last) for name, last in (("ccs", 8), ("gm", 9)) for seed in (1, 2, 3)]
    rows = [*ROWS, *others, *larger, row("gm", 0.5, 1, 70)]
    table = tables.accuracy_table(rows, "resnet6", "last_accuracy")
    assert table.count("**") == 4 and "| gm | **9.00 ± 0.00** (3) | **70.00** (1) |" in table


def test_differences_are_paired_by_seed_with_students_interval() -> None:
    """From three pairs on: an interval of two is of no use."""
    assert cells(tables.difference_table(ROWS))[2] == ["moderate", "+4.00 (2)", "-"]
    third = [row("random", 0.2, 3, 30), row("moderate", 0.2, 3, 37)]
    # 5, 3 and 7: mean 5, deviation 2, so 4.303 * 2 / sqrt(3) = 4.97 to each side.
    assert cells(tables.difference_table([*ROWS, *third]))[2] == ["moderate", "+5.00 [0.03, 9.97] (3)", "-"]
    # Student's own data (sleep, 1908): mean 1.58, deviation 1.23, t(9) 2.262, interval 0.70 to 2.46.
    mean, half_width = tables.interval([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert (mean, mean - half_width, mean + half_width) == pytest.approx((1.58, 0.7001, 2.4599), abs=1e-3)


def test_what_a_coreset_holds_and_the_worst_class_have_tables_where_a_run_knows() -> None:
    assert not re.search("Mislabelled|of the worst", tables.tables(ROWS, "resnet6"))
    known = [{**row(method, 0.2, seed, 30), "kept_perturbed_percent": share, "worst_class_accuracy": "7",
              "worst_tenth_accuracy": "9"}
             for method in ("random", "dual") for seed, share in ((3, "19"), (4, "21"))]
    base = {**row(WHOLE, 1, 3, 80), "fitted_wrong_labels_percent": "6"}
    text = tables.tables([*ROWS, *known, base], "resnet6")
    _, worst, tenth, mislabelled = re.split("of the worst class|of the worst tenth|Mislabelled or corr", text)
    assert "| random | 20.00 ± 1.41 (2 of 4) | - |" in mislabelled and "**" not in mislabelled
    assert "on augmented images in training mode, %: 6.00 (1)\n" in text
    assert "| random | **7.00 ± 0.00** (2 of 4) | - |" in worst and "| moderate | - | - |" in worst
    assert "| random | **9.00 ± 0.00** (2 of 4) | - |" in tenth


def test_runs_that_failed_are_named_and_missed_in_the_means() -> None:
    failed = [{"method": method, "rate": "0.2", "seed": "3", "equal": "epochs", "failed": "train.py: no luck"}
              for method in ("moderate", "gm")]
    text = tables.tables(ROWS, "resnet6", failed=failed)
    assert text.startswith("Failed runs, which are not in the tables:\n\n"
                           "- moderate 0.2, seed 3, equal epochs: train.py: no luck\n- gm 0.2, seed 3, ")
    assert "| moderate | **36.00 ± 1.41** (2 of 3) | - |" in text and "| gm | - | - |" in text
    assert "| moderate | +4.00 (2 of 3) | - |" in text and "3.50 hours of training" in text


@pytest.mark.parametrize("name, expected", [
    ("aum", ("aum", 0.3)), ("aum:keep=0.4", ("aum", 0.4)), ("aum:keep=hardest", ("aum", 1)),
    ("aum:keep=middle:per_class=False", ("aum:per_class=False", 0.5)),
    ("herding", ("herding", 0)), ("moderate:keep=0.9", ("moderate", 0.9)), ("moderate", ("moderate", 0.5)),
    ("ccs", None), ("random", None), ("gm", None), ("el2n:keep=best", None), (WHOLE, None),
    ("aum:keep=middle:hard_cutoff=0.2", None)])  # the middle of the easier 80 %
def test_windows_lie_where_their_images_are_easy_or_hard(name: str, expected: tuple | None) -> None:
    assert charts.window_of(name) == expected


def drawn(figure: Figure) -> dict[str, list]:
    """The points of each line with bars, by name: x, y and half of the bar, None without one."""
    found = {}
    for container in figure.axes[0].containers:
        line, _, (bars,) = container.lines
        halves = [(ends[1] - ends[0]).max() / 2 if len(ends) else None for ends in bars.get_segments()]
        found[container.get_label()] = [
            (round(float(x), 6), pytest.approx(y), half if half is None or not np.isnan(half) else None)
            for x, y, half in zip(*line.get_data(), halves, strict=True)]
    return found


def test_intervals_show_accuracy_by_difficulty_of_methods_with_three_windows() -> None:
    rows = [row("random", 0.2, seed, 30 + seed) for seed in (1, 2)]
    rows += [row(name, 0.2, 1, last) for name, last in (
        ("aum:keep=0.1", 60), ("aum:keep=easiest", 60), ("aum:keep=middle", 40), ("el2n", 9))]
    # Of a fifth, the window at 0.1 is the easiest one: these are two windows.
    assert charts.draw_intervals({"toy": rows}) is None
    rows += [row("aum:keep=hardest", 0.2, 1, 20)]
    figure, names = charts.draw_intervals({"toy": rows})
    assert names == ["aum"] and drawn(figure) == {"aum": [(0.1, 60, None), (0.5, 40, None), (0.9, 20, None)]}
    levels = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert levels["random"] == 31.5
    rows += [row("aum:keep=middle", 0.2, seed, 40 + 2 * seed) for seed in (2, 3)]  # 40, 44, 46
    figure, names = charts.draw_intervals({"toy": rows, "other": rows})
    assert names == [*drawn(figure)] == ["aum, toy", "aum, other"]
    assert drawn(figure)["aum, toy"][1] == (0.5, 130 / 3, pytest.approx(4.303 * 28 ** 0.5 / 3))
    colors = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert (colors["random, toy"], colors["random, other"]) == charts.COLORS[:2]


def test_a_figure_of_several_comparisons(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, equal in (("one", "epochs"), ("two", "epochs"), ("four", "steps")):
        (tmp_path / name).mkdir()
        rows = [{**dict.fromkeys(compare.COLUMNS, ""),
                 **row(f"{method}:keep={keep}", 0.2, 1, last, equal=equal)}
                for method in ("aum", "moderate") for keep, last in ((0.1, 20), (0.5, 40), (0.9, 60))]
        rows += [{**rows[0], **row("random", 0.2, seed, 30 + seed, equal=equal)} for seed in (1, 2)]
        rows += [{**rows[0], **row("random", 0.2, 3, 33)}]  # whose protocol does not count
        write_csv(tmp_path / name / "runs.csv", rows, compare.COLUMNS)
    folders, out = [str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "picture.svg"
    intervals.main([*folders, "--methods", "aum", "dual", "--out", str(out)])
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/picture.png and .svg: aum, one; aum, two\n"
    assert re.findall(r"(\w+, \w+): not drawn, since it has no runs at three windows", printed.err) == [
        "dual, one", "dual, two"]
    intervals.main([str(tmp_path / "four"), "--out", str(tmp_path / "steps.png")])
    # Of one comparison it is compare.py's figure; the same runs give the same bytes, without a date.
    intervals.main([folders[0], "--methods", "aum", "moderate", "--out", str(tmp_path / "alone.png")])
    figure, _ = charts.draw_intervals({"one": tables.read_runs(tmp_path / "one/runs.csv")})
    charts.save_figure(figure, tmp_path / "again")
    for form in ("png", "svg"):
        alone = (tmp_path / f"alone.{form}").read_bytes()
        assert alone == (tmp_path / f"again.{form}").read_bytes() and b"<dc:date>" not in alone
    assert {"picture.png", "picture.svg"} <= names(tmp_path)
    for options, words in ((["--methods", "gm"], "no method has runs at three windows of its score at one"),
                           (["--methods", "gm", "--map"], "runs at two windows of its score and at random"),
                           ([str(tmp_path / "three")], "three/runs.csv: missing"),
                           ([str(tmp_path / "four")], "two: equal epochs, four: equal steps; one figure")):
        with pytest.raises(BadInput, match=words):
            intervals.main([*folders, *options, "--out", str(tmp_path / "none.png")])
    for wrong in ([*folders, str(tmp_path / "other/one"), "--out", str(tmp_path / "none.png")],  # of one name
                  [*folders, "--out", str(tmp_path / "none.pdf")]):
        with pytest.raises(SystemExit, match="2"):
            intervals.main(wrong)
    assert not [*tmp_path.glob("none*")]


def test_a_map_shows_points_ahead_of_random_by_rate_and_difficulty() -> None:
    rows = [row("random", rate, seed, 30 + seed) for rate in (0.2, 0.6) for seed in (1, 2, 3)]
    rows += [row("aum", 0.2, seed, 40 + 2 * seed) for seed in (1, 2, 4)]  # 11 and 12 ahead
    rows += [row(f"aum:keep={keep}", 0.6, 1, 26) for keep in (0.2, 0.1)] + [row("moderate", 0.2, 1, 50)]
    figure, names = charts.draw_map({"toy": rows})
    axes, = figure.axes
    texts = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert names == ["aum"] and texts == {((0, 0), "+11.5\n(2)"), ((0, 1), "-5.0\n(1)")}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.3"]  # 60 % at 0.1 and at 0.2: 0.3
    assert [label.get_text() for label in axes.get_yticklabels()] == ["20 %", "60 %"]
    (image,) = axes.images
    assert image.get_array().tolist() == [[11.5], [-5]] and image.get_clim() == (-11.5, 11.5)
    blue, red = image.to_rgba(11.5), image.to_rgba(-5)
    assert blue[2] > blue[0] and red[0] > red[2]
    figure, names = charts.draw_map({"toy": rows, "other": rows})
    assert names == ["aum, toy", "aum, other"] and len(figure.axes) == 2


def test_without_matplotlib_a_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "comparison.charts")
    monkeypatch.delattr("comparison.charts")
    for draw in (lambda: compare.draw(tmp_path, ROWS, "toy", "resnet6"),
                 lambda: lists.write_correlations(tmp_path, {"aum": (METHODS["aum"], np.eye(2, 5))}, "toy")):
        draw()
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "install it by python -m pip install matplotlib" in said
    with pytest.raises(BadInput, match="no figure: .* python -m pip install matplotlib"):
        intervals.main([str(tmp_path), "--out", str(tmp_path / "none.png")])
    assert names(tmp_path) == {"correlations.md"}


def test_training_and_selection_do_not_import_matplotlib() -> None:
    program = "import sys, train, selection, compare, comparison.lists; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_equal_steps_and_equal_epochs_are_tables_of_their_own() -> None:
    text = tables.tables([*ROWS, *(row(method, 0.2, 1, last, equal="steps")
                                   for method, last in (("moderate", 70), ("random", 60)))], "resnet6")
    epochs, steps = text.split("## Equal steps")
    assert "Epochs: 30 of the whole set, 100 of a coreset" in epochs
    assert "36.00 ± 1.41" in epochs and "70.00" not in epochs and "**70.00** (1)" in steps
    assert "4.50 hours of training and testing, 1.00 of them base runs" in steps


def test_a_path_that_is_not_utf8_is_recorded_as_it_is(tmp_path: Path) -> None:
    path, data = tmp_path / "runs.csv", os.fsdecode(b"train.py --data \xff")
    written = {**dict.fromkeys(compare.COLUMNS, ""), **ROWS[0], "command": data}
    write_csv(path, [written], compare.COLUMNS)
    assert b"--data \xff," in path.read_bytes() and tables.read_runs(path) == [written]


def test_a_file_of_an_older_version_or_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path, new = tmp_path / "runs.csv", "worst_tenth_accuracy"
    written = {**dict.fromkeys(compare.COLUMNS, ""), **ROWS[2], "worst_class_accuracy": "7",
               "command": "a, b"}
    write_csv(path, [{name: text for name, text in written.items() if name != new}],
              [name for name in compare.COLUMNS if name != new])
    older = path.read_text().replace("worst_class_accuracy", "lowest_class_accuracy")
    path.write_text(older)
    assert tables.read_runs(path) == [written]
    path.write_text("\ufeff" + older.replace(",", ";").replace('"a; b"', '"a, b"').replace("\n", "\r\n"))
    assert tables.read_runs(path) == [written]


def test_published_figures_are_those_of_the_file_for_rates_that_have_some() -> None:
    path = ROOT / "imgs/published.csv"
    header, *rows = tables.published_rows(path, "CIFAR100", 0)
    assert header[:2] == ["CIFAR-100", "keep 20 %"] and len(rows) == 9
    assert ["Moderate-DS (Xia 2023)", "51.83±0.52"] in [row[:2] for row in rows]
    header, *rows = tables.published_rows(path, "CIFAR100N", 0.197)
    assert header == ["CIFAR-100, 20 % label noise", "keep 20 %", "keep 30 %"]
    assert ["Random (Xia 2023)", "34.47", "43.26"] in rows
    assert tables.published_rows(path, "CIFAR100N", 0.352)[0][0] == "CIFAR-100, 35 % label noise"
    assert tables.published_rows(path, "CIFAR100N", 0.1) == [] == tables.published_rows(path, "toy", 0)


def test_the_plot_of_one_rate_has_a_dot_for_each_method_sorted_by_mean() -> None:
    third = [row("moderate", 0.2, 3, 42), row("dual", 0.2, 1, 31)]
    figure = charts.draw_plot([*ROWS[:6], *third], "toy", "resnet6")
    axes, = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["dual (1)", "random (2)", "moderate (3)", "whole set (resnet6) (2)"]
    dots = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert dots == [31, 32, 38, 81]
    bars = [container.lines[2][0].get_segments() for container in axes.containers]  # 35, 37 and 42
    assert np.ptp(bars[2][0][:, 0]) == pytest.approx(2 * 4.303 * 13 ** 0.5 / 3 ** 0.5)
    assert "95 % confidence intervals of the means over seeds, where there are 3" in figure.get_supxlabel()
    assert 32 in [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]  # random's line


def test_the_plot_of_several_rates_has_a_line_for_each_of_twelve_methods() -> None:
    figure = charts.draw_plot(ROWS, "toy", "resnet6")
    # The only method with both.
    assert [(point[0], point[1]) for point in drawn(figure)["random"]] == [(20, 32), (50, 50)]
    assert [*drawn(figure)] == ["random"] and "1 of 2 methods" in figure.get_supxlabel()
    levels = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert levels["whole set (resnet6)"] == 81
    steps = row("random", 0.2, 1, 70, equal="steps")  # not mixed with equal epochs
    assert drawn(charts.draw_plot([*ROWS, steps], "toy", "resnet6")) == drawn(figure)
    rows = [row(f"m{i}", rate, 1, 30 + i) for i in range(14) for rate in (0.2, 0.5)]
    rows += [row("m13", 0.2, 2, 43), row("m12", 0.2, 2, 42)]
    figure = charts.draw_plot(rows, "toy", "resnet6")
    assert [*drawn(figure)] == [f"m{i}" for i in (13, 12, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert "12 of 14 methods" in figure.get_supxlabel() and len(looks) == 12


def test_rows_are_in_the_methods_order_whichever_was_finished_first() -> None:
    rows = [row("ccs", 0.2, 2, 1), row("my-own", 0.2, 1, 1), row("ccs", 0.2, 1, 1), row("random", 0.5, 1, 1),
            row(WHOLE, 1, 1, 1), row("random", 0.2, 1, 1), row("ccs:keep=0.3", 0.2, 1, 1)]
    assert [(one["method"], one["rate"], one["seed"]) for one in compare.in_order(rows)] == [
        (WHOLE, "1", "1"), ("random", "0.2", "1"), ("random", "0.5", "1"), ("ccs", "0.2", "1"),
        ("ccs", "0.2", "2"), ("ccs:keep=0.3", "0.2", "1"), ("my-own", "0.2", "1")]


def plan(*options: str) -> list[compare.Run]:
    """The runs on the toy set's 3,000 images."""
    return compare.plan(compare.parse_options([*SMALL, "--out", "x", *options]), 3000)


def test_the_plan_has_for_each_seed_a_base_run_and_its_coresets() -> None:
    runs = plan("--methods", "random", "moderate")
    assert [(run.method, run.rate, run.seed) for run in runs][:5] == [
        (WHOLE, 1, 1), ("random", 0.2, 1), ("moderate", 0.2, 1), ("random", 0.5, 1), ("moderate", 0.5, 1)]
    assert len({run.key for run in runs}) == len(runs) == 10
    runs = plan("--methods", "random", "random", "--rates", "1/3", "0.333333", "--seeds", "1", "1")
    assert [run.key for run in runs] == [(WHOLE, 1, 1, "epochs"), ("random", 0.333333, 1, "epochs")]
    assert float(f"{runs[1].rate:g}") == runs[1].rate  # so that its row of runs.csv is found again


def test_a_variant_of_a_method_is_a_row_of_its_own() -> None:
    """What is its default is no variant, so that no run is made twice; options arrive in selection.py."""
    runs = plan("--seeds", "1", "--rates", "0.2", "--methods", "moderate:per_class", "el2n:keep=hardest",
                "el2n", "aum:keep=0.40:hard_cutoff=1/5", "aum:per_class:keep=0.30",
                "moderate:center=mean:per_class=False")[1:]
    assert [(run.method, run.index.name) for run in runs] == [
        ("moderate:per_class", "toy-per_class.bin"), ("el2n", "toy-el2n.bin"),
        ("aum:keep=0.4:hard_cutoff=0.2", "toy-aum-keep-0.4-hard_cutoff-0.2.bin"), ("aum", "toy-aum.bin"),
        ("moderate:center=mean", "toy-center-mean.bin")]
    for run in runs:
        args = parse_selection(list(run.commands[0][1:]))
        assert args.selection.index_name("toy") == run.index.name
        assert run.commands[1][run.commands[1].index("--prune") + 1] == str(run.index)


def test_another_network_may_choose() -> None:
    base, coreset = plan("--seeds", "1", "--rates", "0.2", "--methods", "random", "--base_arch", "resnet6")
    assert base.folder.name == "resnet6" and "resnet6" in base.commands[0]
    assert coreset.commands[0][coreset.commands[0].index("--ckpt") + 1] == str(base.folder / "best.pth")
    assert coreset.folder.name == "resnet20" and "resnet6" not in coreset.commands[1]


def test_equal_steps_gives_a_coreset_the_base_runs_steps() -> None:
    runs = plan("--equal", "steps", "--base_epoch", "4", "--batch_size", "100", "--methods", "random")
    epochs = {run.rate: run.commands[-1][run.commands[-1].index("--epoch") + 1] for run in runs}
    assert epochs == {1.0: "4", 0.2: "20", 0.5: "8"}  # 4 x 30 steps: 20 x 6, 8 x 15


def test_every_run_has_the_precision_and_all_digits_of_the_learning_rate() -> None:
    assert all({"0.12345678", "O2"} <= set(run.commands[-1])
               for run in plan("--lr", "0.12345678", "--amp_level", "O2"))


def test_the_cores_are_split_and_jobs_have_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5, 6})
    assert split_cores(2) == [[0, 1], [4, 5, 6]]
    assert {tuple(part) for part in split_cores(7)} == {(0,), (1,), (4,), (5,), (6,)}


@pytest.mark.parametrize("devices", [(), ("0", "3")])
def test_each_job_has_its_cores_or_its_device(devices: tuple[str, ...], tmp_path: Path) -> None:
    names, begun = ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"), threading.Barrier(2)
    program = f"import os; print(sorted(os.sched_getaffinity(0)), *map(os.getenv, {names}))"

    def job(_: int) -> int:
        begun.wait()  # for the other one, so that each has its thread
        return jobs.run([sys.executable, "-c", program], tmp_path / "output")

    with Jobs(2, devices) as jobs:
        assert list(jobs.map(job, range(2))) == [0, 0]
    cores, variables = sorted(os.sched_getaffinity(0)), [*map(os.getenv, names)]
    expected = [(cores, device, device) for device in devices]
    expected = expected or [(part, *variables) for part in split_cores(2)]
    found = (tmp_path / "output").read_text().splitlines()
    assert sorted(found) == [" ".join(map(str, words)) for words in expected]


def test_other_or_unknown_settings_in_a_folder_are_refused(tmp_path: Path) -> None:
    def check(*options: str, images: str = "a") -> dict[str, object]:
        args = compare.parse_options([*SMALL, "--lr", "0.12345678", "--out", str(tmp_path), *options])
        return compare.check_settings(args, images)

    settings = check()
    (tmp_path / "runs.csv").write_text("a")
    with pytest.raises(BadInput, match="settings.json: missing, so the settings of the runs"):
        check()
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    check("--seeds", "7")
    with pytest.raises(BadInput, match="--lr: 0.123457, but 0.12345678 in"):
        check("--lr", "0.123457")
    with pytest.raises(BadInput, match="--data data: other images or labels of toy than those of"):
        check(images="b")
    assert settings.pop("keep_scale") == "difficulty"
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match="its rules count the score, not the difficulty; choose another --out"):
        check()


@pytest.mark.parametrize("name, value, message", [
    (None, "a,b\n1,2\n", "not a file of compare.py, or an editor changed its columns, such as 'a'; "),
    (None, "", "an editor changed its columns, such as 'best_accuracy'; restore it or choose another"),
    (None, ",".join(compare.COLUMNS) + "\na,b\n", "line 2: not as many cells as columns"),
    ("rate", "0,2", "runs.csv, line 2: rate is '0,2', not a finite number with a decimal point; restore it"),
    ("seed", "", "line 2: seed is ''"), ("seed", "1.0", "seed is '1.0', not a whole number"),
    ("last_accuracy", "nan", "line 2: last_accuracy is 'nan', not a finite number"),
    ("seconds", "1e999", "seconds is '1e999', not a finite"), ("worst_tenth_accuracy", "inf", "is 'inf'"),
    ("kept_perturbed_percent", "n/a", "kept_perturbed_percent is 'n/a', not a finite number")])
def test_a_file_that_is_not_compares_is_refused(tmp_path: Path, name: str | None, value: str, message: str
                                                ) -> None:
    (tmp_path / "runs.csv").write_text(value)
    if name:
        whole = {**dict.fromkeys(compare.COLUMNS, ""), **ROWS[0], name: value}
        write_csv(tmp_path / "runs.csv", [whole], compare.COLUMNS)
    with pytest.raises(BadInput, match=message):
        tables.read_runs(tmp_path / "runs.csv")


def test_a_methods_own_cut_off_gives_way_and_one_by_hand_leaves_its_cell_empty(
        capsys: pytest.CaptureFixture) -> None:
    """The usual plot is accuracy against rate: d2 cuts off 40 %, ccs 20 %."""
    runs = plan("--seeds", "1", "--rates", "0.2", "0.5", "0.8", "--methods", "random", "ccs", "d2",
                "moderate:hard_cutoff=0.4")
    assert [(run.method, run.rate) for run in runs[1:]] == [
        *((name, 0.2) for name in ("random", "ccs", "d2", "moderate:hard_cutoff=0.4")),
        *((name, 0.5) for name in ("random", "ccs", "d2", "moderate:hard_cutoff=0.4")),
        *((name, 0.8) for name in ("random", "ccs", "d2"))]
    assert {run.index.name for run in runs[1:] if run.method == "d2"} == {"toy-d2.bin"}
    assert capsys.readouterr().out.splitlines() == [
        "d2: its hard_cutoff 0.4 leaves fewer images than the rate 0.8 keeps and becomes 0.2",
        "moderate:hard_cutoff=0.4 at a rate of 0.8 is skipped: hard_cutoff: 0.4 leaves 1800 of 3000 images, "
        "2400 are to be kept; choose a smaller one or a smaller rate"]


def test_a_comparison_of_real_runs_killed_and_resumed(forks: Forks, cifar: Path, tmp_path: Path) -> None:
    """What is written down is what the runs' own files say."""
    options = ("--data", cifar, "--out", "out", *"--arch resnet6 --image_size 16 --classes 4 --epoch 1 "
               "--base_epoch 2 --batch_size 40 --seeds 1 --jobs 2 --device CPU".split())
    forks.kill(tmp_path, "os.rename .runs.csv.tmp", 1, "compare.py", *options)
    assert len(rows_of(tmp_path)) == 1
    run = forks.start(tmp_path, "compare.py", *options).finish()
    assert run.returncode == 0, run.err
    rows = rows_of(tmp_path)
    assert sorted((row["seed"], row["method"], row["rate"]) for row in rows) == [
        ("1", "moderate", "0.2"), ("1", "random", "0.2"), ("1", WHOLE, "1")]
    for row in rows:
        folder, index, images = tmp_path / f"out/seed-{row['seed']}/CIFAR100/resnet6", "", 160
        if row["method"] != WHOLE:
            name = "CIFAR100.bin" if row["method"] == "moderate" else "CIFAR100-random.bin"
            index = sha256(tmp_path / f"out/index/seed-{row['seed']}/rate-0.2" / name)
            folder, images = next(folder.glob(f"coreset-{row['method']}-0.2*")), 32
        epochs = log(folder)
        assert (int(row["images"]), int(row["epochs"])) == (images, len(epochs))
        assert int(row["steps"]) == len(epochs) * -(-images // 40)
        last = epochs[-1]
        assert row["last_accuracy"] == last["test_acc"] and row["train_accuracy"] == last["train_acc"]
        assert float(row["best_accuracy"]) == max(float(epoch["test_acc"]) for epoch in epochs)
        assert row["index_sha256"] == index and row["checkpoint_sha256"] == sha256(folder / "last.pth")
    assert {"plot.png", "plot.svg"} < names(tmp_path / "out")
    assert (tmp_path / "out/table.md").read_text() == (
        "# CIFAR100: 160 images of 4 classes, 16x16 pixels\n\nBase runs: resnet6. Coreset runs: "
        "resnet6. Batches of 40.\n\n" + tables.tables(compare.in_order(rows), "resnet6"))


# What macOS lacks; read as sitecustomize.py by each Python that starts.
WITHOUT = '''
import ctypes, os, pathlib
for name in "posix_fallocate", "sched_getaffinity", "sched_setaffinity":
    delattr(os, name)
load, exists = ctypes.CDLL, pathlib.Path.exists
ctypes.CDLL = lambda name, *more, **named: load(name, *more, **named) if name else object()
pathlib.Path.exists = lambda path: not str(path).startswith("/proc") and exists(path)
with open(os.path.join(os.path.dirname(__file__), "started"), "a") as file:
    file.write(".")
'''


def test_the_workflow_without_the_calls_that_macos_lacks(forks: Forks, tmp_path: Path) -> None:
    """Training, a selection and a coreset run of the toy set, as compare.py runs them."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    (tmp_path / "x.py").write_text("import runpy, sys; exec(open('sitecustomize.py').read(), {'__file__': "
                                   f"'sitecustomize.py'}})\nrunpy.run_path('{ROOT}/compare.py', "
                                   "run_name='__main__')")
    run = forks.start(tmp_path, str(tmp_path / "x.py"), *"--dataset toy --arch resnet6 --epoch 1 --seeds 1 "
                      "--jobs 2 --batch_size 500 --methods aum --device CPU --out out".split(),
                      environment={"PYTHONPATH": str(tmp_path)}).finish()
    assert run.returncode == 0, run.err
    assert [row["cpu"] for row in rows_of(tmp_path)] == [platform.machine()] * 2
    assert len((tmp_path / "started").read_text()) >= 4  # compare.py and what it runs


# Whole comparisons with quick scripts instead of train.py and selection.py

OPTIONS = (*SMALL, "--methods", "random", "moderate", "--out", "out")
RUNS = 10  # two base runs and eight coresets
# The change of a file at which compare.py is killed, and how many like it are made before.
DEATHS = [("open .settings.json.tmp", 0), ("os.rename .settings.json.tmp", 0), ("open .runs.csv.tmp", 0),
          ("os.rename .runs.csv.tmp", 1), ("open moderate-0.2-seed-1-epochs.log", 0),
          ("os.rename .runs.csv.tmp", 4), ("os.rename .table.md.tmp", 0), ("os.rename .table.csv.tmp", 0),
          ("open .plot.png.tmp", 0), ("os.rename .plot.png.tmp", 0)]


def make_project(folder: Path) -> Path:
    """A folder with compare.py and, beside it, quick stand-ins for the scripts that it runs."""
    shutil.copy(ROOT / "compare.py", folder)
    shutil.copytree(ROOT / "imgs", folder / "imgs")
    for name in ("train.py", "selection.py"):
        (folder / name).write_text(FAKE)
    return folder


def starter(forks: Forks, project: Path) -> Callable[..., Run]:
    """start = starter(forks, project); start("--jobs", 2): start compare.py there."""
    return lambda *options, **settings: forks.start(project, str(project / "compare.py"), *OPTIONS, *options,
                                                    **settings)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A project whose comparison was made by one job; two give the same rows, in another order."""
    project, found = make_project(tmp_path_factory.mktemp("whole")), []
    for jobs in (2, 1):
        shutil.rmtree(project / "out", ignore_errors=True)
        (project / "calls").unlink(missing_ok=True)
        run = starter(forks, project)("--jobs", jobs).finish()
        assert run.returncode == 0, run.err
        found.append(results(project))
        found[-1]["runs.csv"] = sorted(found[-1]["runs.csv"].splitlines())
    assert found[0] == found[1]
    return project


@pytest.fixture
def start(forks: Forks, project: Path) -> Callable[..., Run]:
    return starter(forks, project)


def results(project: Path) -> dict[str, bytes]:
    return {name: (project / "out" / name).read_bytes()
            for name in ("runs.csv", "table.md", "table.csv", "plot.png", "plot.svg", "settings.json")}


def calls(project: Path) -> list[str]:
    """The scripts that were started."""
    return (project / "calls").read_text().splitlines()


def rows_of(project: Path) -> list[dict]:
    return tables.read_runs(project / "out/runs.csv")


def test_runs_that_fail_do_not_stop_the_others_and_are_done_next_time(project: Path, start: Callable) -> None:
    (project / "fail").write_text("moderate 0.5 2")
    blocked = project / "out/output/random-0.5-seed-2-epochs.log"
    blocked.mkdir(parents=True)  # a folder in the file's place
    run = start().finish()
    assert run.returncode == 1 and "Traceback" not in run.err
    assert "compare.py: failed: moderate 0.5, seed 2, equal epochs: selection.py: no luck\n" in run.err
    assert "compare.py: failed: random 0.5, seed 2, equal epochs: [Errno 21] Is a directory" in run.err
    table = (project / "out/table.md").read_text()
    assert len(rows_of(project)) == RUNS - 2 and "(2) | **51.00** (1 of 2) |" in table
    assert "- moderate 0.5, seed 2, equal epochs: selection.py: no luck\n" in table
    (project / "fail").unlink()
    blocked.rmdir()
    assert start().finish().returncode == 0
    assert len(rows_of(project)) == RUNS and len(calls(project)) == RUNS + 8 + 1
    assert "| **21.50 ± 0.71** (2) | **51.50 ± 0.71** (2) |" in (project / "out/table.md").read_text()


def test_coresets_of_a_base_run_that_fails_are_not_tried(project: Path, start: Callable) -> None:
    """Without a finished run, the folder keeps no settings either."""
    (project / "fail").write_text("base 1 1")
    run = start("--seeds", 1).finish()
    assert run.returncode == 1 and "Traceback" not in run.err
    assert not names(project / "out") & {"runs.csv", "settings.json"}
    assert "compare.py: failed: whole set 1, seed 1, equal epochs: train.py: no luck\n" in run.err
    run = start().finish()
    assert run.returncode == 1 and run.err.count("seed 1, equal epochs: its base run failed") == 4
    assert {row["seed"] for row in rows_of(project)} == {"2"}


@pytest.mark.parametrize("gone, methods, again", [
    ("best.pth", ["random", "herding"], True), ("best.pth", ["random"], False),
    ("dynamics.npy", ["aum"], True), ("dynamics.npy", ["herding"], False)])
def test_a_base_run_whose_files_are_gone_is_run_again_where_a_method_needs_them(
        project: Path, start: Callable, gone: str, methods: list[str], again: bool) -> None:
    assert start("--seeds", 1, "--methods", "random", "--rates", 0.2).finish().returncode == 0
    base = Path("out/seed-1/toy/resnet20")
    (project / base / gone).unlink()
    before = calls(project)
    run = start("--seeds", 1, "--methods", *methods, "--rates", 0.2).finish()
    assert run.returncode == 0, run.err
    assert (f"{base / gone}: missing, so the base run of seed 1 is run again" in run.out) == again
    new = {"random"} < {*methods} or "random" not in methods
    assert len(calls(project)) == len(before) + again + 2 * new
    assert [row["method"] for row in rows_of(project)].count(WHOLE) == 1


def test_a_finished_folder_can_be_extended_without_its_large_files(project: Path, start: Callable,
                                                                   whole: Path) -> None:
    """Finished runs are those of runs.csv; .gitignore leaves out the rest."""
    shutil.copytree(whole / "out", project / "out")
    shutil.copy(whole / "calls", project)
    before = calls(project)
    for path in [*(project / "out").rglob("last.pth"), *(project / "out").rglob("coreset-*"),
                 project / "out/output"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert start().finish().returncode == 0 and calls(project) == before
    assert start("--methods", "random", "moderate", "herding").finish().returncode == 0
    assert len(calls(project)) == len(before) + 2 * 4  # its four runs, no others
    assert (project / "out/table.md").read_text().count("| herding |") == 3
    assert start("--seeds", 1, 2, 3).finish().returncode == 0 and len(rows_of(project)) == RUNS + 4 + 5


@pytest.mark.parametrize("change, number", [
    pytest.param(*death, marks=() if death in DEATHS[3:5] else pytest.mark.kills) for death in DEATHS])
def test_killed_and_resumed_is_as_never_stopped(project: Path, start: Callable, whole: Path, change: str,
                                                number: int) -> None:
    killed = start(stop={"change": change, "number": number}).finish()
    assert killed.returncode == -signal.SIGKILL, killed.err
    (project / "calls").unlink(missing_ok=True)
    finished = len(rows_of(project))
    run = start().finish()
    assert run.returncode == 0 and results(project) == results(whole), run.err
    started = calls(project) if (project / "calls").exists() else []
    assert started.count("train") == RUNS - finished


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
        assert run.err.splitlines()[-1] == "compare.py: stopped; to resume, repeat the command"
        assert "Traceback" not in run.err
    while any(Path(f"/proc/{pid}").exists() for pid in asleep) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(asleep) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in asleep)


def test_a_comparison_outlives_its_terminal(project: Path, start: Callable, whole: Path) -> None:
    """Which is closed when the first coreset run begins."""
    assert start(terminal="python selection.py").finish().returncode == 0
    assert results(project) == results(whole)


def test_a_dry_run_prints_the_commands_and_writes_nothing(project: Path, start: Callable) -> None:
    run = start("--dry_run").finish()
    assert run.returncode == 0 and not run.err and not (project / "out").exists()
    warned = start("--dry_run", "--paper").finish()
    assert "warning: --paper: imgs/published.csv has no figures of toy with 20 % of" in warned.err
    for options, message in ((("--rates", 0.0001), "--rates: 0.0001 keeps none of 3000 images"),
                             (("--base_arch", "vgg16"), "--base_arch vgg16: needs images of 32 pixels")):
        refused = start("--dry_run", *options).finish()
        assert refused.returncode == 2 and message in refused.err
    assert run.out.count("\n") == RUNS + 8 and run.out.startswith("python train.py --dataset toy")


FAKE = '''
import fcntl, json, os, pathlib, sys, time
words = [word for word in sys.argv[1:] if word != "--resume"]
options = dict(zip(words[::2], words[1::2]))
script, seed = pathlib.Path(sys.argv[0]), options["--seed"]
with open(script.with_name("calls"), "a") as file:
    print(script.stem, file=file)
if script.with_name("sleep").exists():
    script.with_name(f"asleep-{os.getpid()}").touch()
    time.sleep(600)
method, rate, fail = options.get("--method", "base"), options.get("--rate", "1"), script.with_name("fail")
if "--prune" not in options and fail.exists() and f"{method} {rate} {seed}" == fail.read_text():
    sys.exit(f"{script.name}: no luck")
if script.stem == "selection":
    index = pathlib.Path(options["--save"], "toy.bin" if method == "moderate" else f"toy-{method}.bin")
    index.parent.mkdir(parents=True, exist_ok=True)
    base = os.open(pathlib.Path(options["--ckpt"]).parent, os.O_RDONLY)
    fcntl.flock(base, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails beside another one, as selection.py does
    time.sleep(0.1)
    index.write_text("ids")
    index.with_suffix(".json").write_text(json.dumps({
        "method": method, "rate": float(rate),
        "not_default": [f"seed-{seed}"] if method == "random" else []}))
    sys.exit()
folder, accuracy = pathlib.Path(options["--model_dir"], options["--dataset"], options["--arch"]), 80
if "--prune" in options:
    manifest = json.loads(pathlib.Path(options["--prune"]).with_suffix(".json").read_text())
    folder /= "-".join(["coreset", manifest["method"], f"{manifest['rate']:g}", *manifest["not_default"]])
    accuracy = 100 * manifest["rate"] + int(seed)
folder.mkdir(parents=True, exist_ok=True)
for name in ("best.pth", "last.pth", "dynamics.npy"):
    (folder / name).write_text("weights")
(folder / "args.json").write_text(json.dumps({"images": 100, "batch_size": 10, "device": "CPU"}))
(folder / "log.csv").write_text("epoch,train_acc,test_acc,train_seconds,test_seconds\\n"
                                f"1,9,{accuracy},1,1\\n")
'''
