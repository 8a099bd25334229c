"""What README and the documents beside it say: their commands, links, tests and results."""
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import compare
import selection
import train
from comparison import tables
from comparison.variants import parse_variant
from forks import ROOT, Forks
from utils.files import read_json, sha256

LISTS = ROOT / "results/lists/CIFAR100"
DOCUMENTS = [ROOT / "README.md", *sorted(path for folder in ("docs", "robust", "tests", LISTS)
                                         for path in (ROOT / folder).glob("*.md"))]
PARSERS: dict[str, Callable] = {"train.py": train.parse_options, "selection.py": selection.parse_options,
                                "compare.py": compare.parse_options}


def commands(document: Path) -> list[str]:
    """Those of a document's blocks and of its lines that run a script of the project."""
    text = document.read_text().replace("\\\n", "")  # a command over several lines
    blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    pieces = [line.partition("#")[0].replace("$seed", "1") for block in blocks for line in block.splitlines()]
    pieces += re.findall(r"`([^`\n]+)`", re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S))
    pieces = [re.sub(r"^msrun( --\S+)+ (?=\S+\.py)", "python ", piece) for piece in pieces]
    return [command for piece in pieces for command in re.split(r"\s*(?:;|&&)\s*", piece.strip())
            if re.match(r"(python|bash) (-m (comparison|datasets|models)\.|\S+\.(py|sh)\b)", command)]


COMMANDS = sorted({command for document in DOCUMENTS for command in commands(document)})
BASH = [command for command in COMMANDS if command.startswith("bash")]
PYTHON = [command for command in COMMANDS if command not in BASH]


def test_readme_has_the_documented_commands() -> None:
    assert {"python train.py --dataset CIFAR100 --data data",
            "python selection.py --dataset CIFAR100 --ckpt ckpt/CIFAR100/resnet50/best.pth --rate 0.2",
            "python train.py --dataset CIFAR100 --data data --prune index/CIFAR100.bin",
            "bash demo.sh", "bash convert-tiny.sh", "bash tests/run.sh", "python corrupt-cifar.py",
            "python attack-tiny.py"} < set(COMMANDS)


def script_of(name: str) -> str:
    """A script's path in the project; README runs those of robust/ in their folder, too."""
    return name if (ROOT / name).is_file() else f"robust/{name}"


@pytest.mark.parametrize("command", PYTHON)
def test_a_documented_command_is_understood(command: str, forks: Forks, tmp_path: Path) -> None:
    _, name, *options = shlex.split(command)
    if name == "-m":
        name = options.pop(0).replace(".", "/") + ".py"
    if name in PARSERS:
        PARSERS[name](options)
    else:
        run = forks.start(tmp_path, script_of(name), *options, options_only=True).finish()
        assert run.returncode == 0 and not run.err


@pytest.mark.parametrize("command", BASH)
def test_a_documented_shell_script_has_its_options(command: str) -> None:
    _, name, *options = shlex.split(command)
    known = re.findall(r"--[\w-]+", (ROOT / name).read_text())
    assert {option for option in options if option.startswith("--")} <= set(known)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_tests_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    links = [document.parent / link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    tests = [ROOT / "tests" / name for name in re.findall(r"\btest_\w+\.py", text)]
    assert [path for path in (*links, *tests) if not path.exists()] == []


def accuracies(name: str, column: str, equal: str = "epochs") -> dict[tuple[str, float], dict[int, float]]:
    """Of the runs of equal epochs or steps, by method and rate, and in each by seed."""
    runs = tables.read_runs(ROOT / f"results/{name}/runs.csv")
    return tables.by_cell((row for row in runs if row["equal"] == equal), column)


def cells_below(document: str, header: str) -> list[list[str]]:
    """The rows of the table whose header begins so."""
    section = (ROOT / document).read_text().partition(header)[2]
    lines = section.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def cell_of(shown: str, name: str, rate: float = 0.2) -> tuple[str, float]:
    """Method and rate of a row; the whole set's has its network in brackets."""
    if not shown.startswith(tables.WHOLE):
        return shown, rate
    assert shown == f"{tables.WHOLE} ({read_json(ROOT / f'results/{name}/settings.json', '')['base_arch']})"
    return tables.WHOLE, 1.0


def mean_and_number(runs: dict[int, float]) -> str:
    """As tables show it; nothing where there is no run."""
    return f"{tables.plus_minus(*tables.mean_and_deviation(runs.values()))} ({len(runs)})" if runs else ""


FIFTH, MORE = "| | 20 % wrong labels | minus random | clean |", "| | 30 % kept, wrong labels |"


@pytest.mark.parametrize("header, rows, column, name, rate, equal", [
    (FIFTH, 16, 1, "CIFAR100N", 0.2, "epochs"), (FIFTH, 16, 3, "CIFAR100", 0.2, "epochs"),
    (FIFTH, 16, 5, "CIFAR100C", 0.2, "epochs"), (MORE, 4, 1, "CIFAR100N", 0.3, "epochs"),
    (MORE, 4, 3, "CIFAR100N", 0.2, "steps"), (MORE, 4, 5, "CIFAR100", 0.2, "steps")])
def test_the_results_shown_are_those_of_the_runs(header: str, rows: int, column: int, name: str, rate: float,
                                                 equal: str) -> None:
    """Accuracies and differences from random."""
    cells, table = accuracies(name, "last_accuracy", equal), cells_below("docs/results.md", header)
    assert len(table) == rows
    for method, accuracy, difference in ((row[0], row[column].strip("*"), row[column + 1]) for row in table):
        own = cells.get(cell_of(method, name, rate), {})
        if len(own) < 3:  # single runs are in tables of their own
            assert not accuracy and not difference
            continue
        assert accuracy == mean_and_number(own).partition(" (")[0]
        if method != "random" and not method.startswith(tables.WHOLE):
            assert difference == tables.minus_random(cells, method, rate).partition(" (")[0]


def test_the_results_of_100_classes_are_those_of_the_runs() -> None:
    """No method is left out that has a run in either scene."""
    table, methods = cells_below("README.md", "| 100 classes | clean |"), set()
    for column, name in ((1, "CIFAR100-all"), (3, "CIFAR100N-all")):
        cells, shares = accuracies(name, "last_accuracy"), accuracies(name, "kept_perturbed_percent")
        assert min(min(values.values()) for (_, rate), values in accuracies(name, "train_accuracy").items()
                   if rate == 0.2) >= 97  # as docs/results.md says
        methods |= {method for method, rate in cells if rate in (0.2, 1)}
        for method, *figures in table:
            own = cells.get(cell_of(method, name), {})
            assert figures[column - 1] == mean_and_number(own)
            assert figures[column] == ("" if method == "random" else tables.minus_random(cells, method, 0.2))
            if name == "CIFAR100N-all":
                share = shares.get((method, 0.2))
                assert figures[-1] == (f"{np.mean([*share.values()]):.1f}" if share else "")
    assert sorted(cell_of(row[0], "CIFAR100-all")[0] for row in table) == sorted(methods)


def test_the_classes_that_a_method_loses_are_those_of_three_runs() -> None:
    worst = accuracies("CIFAR100-all", "worst_class_accuracy")
    found = [[*worst[method, 0.2].values()] for method in ("aum:per_class=False", "random")]
    assert found == [[0] * 3, [6, 6, 7]]
    for document, claim in (("README.md", "0 % with each of three seeds, that of a random fifth 6 or 7 %"),
                            ("docs/results.md", "0 % with each of three seeds, that of random 6, 6 and 7 %")):
        assert claim in " ".join((ROOT / document).read_text().split())


def test_the_overview_has_the_differences_to_random_of_the_runs() -> None:
    table = cells_below("docs/results.md", "| a fifth kept, minus random |")
    assert len(table) == 5
    for method, *figures in table:
        assert figures == [tables.minus_random(accuracies(name, "last_accuracy"), method, 0.2) for name in (
            "CIFAR100-all", "CIFAR100N-all", "CIFAR100", "CIFAR100N", "CIFAR100C")]


@pytest.mark.parametrize("column, name", [(4, "CIFAR100"), (5, "CIFAR100N")])
def test_the_costs_shown_are_those_of_the_runs(column: int, name: str) -> None:
    """In thousands of image-epochs: as many as the runs of seed 1 have."""
    runs = {row["method"]: int(row["images"]) * int(row["epochs"]) / 1000
            for row in tables.read_runs(ROOT / f"results/{name}/runs.csv")
            if (row["seed"], row["equal"], row["rate"]) in (("1", "epochs", "0.2"), ("1", "epochs", "1"))}
    base = {"random": 0, "aum": runs[tables.WHOLE]}
    table = cells_below("docs/results.md", "| twenty classes, a fifth kept |")
    assert len(table) == 3
    for method, *figures in table:
        assert float(figures[2]) == runs[cell_of(method, name)[0]] + base.get(method, 0)
        own = accuracies(name, "last_accuracy")[cell_of(method, name)]
        assert figures[column - 1] == mean_and_number(own)


@pytest.mark.parametrize("column, score", [(1, "aum"), (4, "moderate")])
def test_the_windows_shown_are_those_of_the_runs(column: int, score: str) -> None:
    table = cells_below("docs/results.md", "| difficulty |")
    assert len(table) == 7
    for cells in table:
        name = parse_variant(f"{score}:keep={cells[0]}:per_class=False").title(":", "=")
        for shown, data in zip(cells[column:column + 3], ("CIFAR100N", "CIFAR100", "CIFAR100C"), strict=True):
            assert shown == mean_and_number(accuracies(data, "last_accuracy").get((name, 0.2), {}))


@pytest.mark.parametrize("column, name", [(1, "CIFAR100N"), (2, "CIFAR100C")])
def test_the_shares_of_perturbed_images_shown_are_those_of_the_runs(column: int, name: str) -> None:
    shares = accuracies(name, "kept_perturbed_percent")
    table = cells_below("docs/results.md", "| a fifth kept, share of |")
    assert len(table) == 9
    for method, *figures in table:
        own = shares[method, 0.2]
        mean, deviation = tables.mean_and_deviation(own.values())
        assert figures[column - 1] == f"{mean:.1f} ± {deviation:.1f} ({len(own)})"


LAST, SHARE = ("last_accuracy", ".2f"), ("kept_perturbed_percent", ".1f")
WRONG, CLEAN = ("CIFAR100N", LAST, SHARE), ("CIFAR100", LAST)
# By the header's beginning: how many rows, and for each column what follows the method's name, the comparison
# and the figure, None for one that is not of our runs.
SINGLE_RUNS = {
    "| score, seed 1 |": (6, [(rule, name, figure) for name, *figures in (WRONG, CLEAN, ("CIFAR100C", LAST))
                              for rule in ("", ":keep=middle") for figure in figures]),
    "| method, seed 1 |": (14, [("", f"CIFAR100N{base}", figure) for base in ("-150", "")
                                for figure in (LAST, SHARE)] + [None]),
    "| method, one seed |": (5, [("", name + base, figure) for name, *figures in (WRONG, CLEAN)
                                 for base in ("-resnet20", "") for figure in figures]),
    "| | 20 % wrong labels | of them": (9, [("", name, figure) for name, *figures in (
        WRONG, CLEAN, ("CIFAR100C", LAST, SHARE)) for figure in figures]),
    "| first epochs, seed 1 |": (5, [("", "CIFAR100N", LAST), ("", "CIFAR100N", SHARE)]),
    "| method, both ways |": (5, [(scope, name, figure) for name, *figures in (WRONG, CLEAN)
                                  for scope in ("", ":per_class") for figure in figures]),
    "| method, attacked images |": (4, [("", "CIFAR100A", LAST)]),
}


def changed(method: str, option: str) -> str:
    """A method's name with another option, such as :keep=middle, in the place of its own."""
    if not option:
        return method
    words = [word for word in method.split(":") if word.partition("=")[0] != option[1:].partition("=")[0]]
    return parse_variant(":".join(words) + option).title(":", "=")


@pytest.mark.parametrize("header", SINGLE_RUNS)
def test_the_single_runs_shown_are_those_of_seed_1(header: str) -> None:
    number, columns = SINGLE_RUNS[header]
    table = cells_below("docs/results.md", header)
    assert len(table) == number
    for quoted, *cells in table:
        for cell, shown in zip(cells, columns, strict=True):
            if shown:
                more, name, (column, form) = shown
                runs = accuracies(name, column).get((changed(quoted.strip("`"), more), 0.2), {})
                assert cell == (format(runs[1], form) if 1 in runs else "")


@pytest.mark.parametrize("header, name", [
    ("| method, seed 1 |", "CIFAR100N-150"), ("| method, one seed |", "CIFAR100N-resnet20"),
    ("| method, one seed |", "CIFAR100-resnet20"), ("| method, attacked images |", "CIFAR100A")])
def test_no_run_of_these_comparisons_is_left_out(header: str, name: str) -> None:
    assert {quoted.strip("`") for quoted, *_ in cells_below("docs/results.md", header)} == {
        method for method, rate in accuracies(name, "last_accuracy") if rate == 0.2}


def test_the_mean_margins_shown_are_those_of_the_training_dynamics() -> None:
    runs = ["CIFAR100-all/seed-1/CIFAR100/resnet20", "CIFAR100N-all/seed-1/CIFAR100N/resnet20",
            "CIFAR100/seed-1/CIFAR100/resnet6", "CIFAR100N/seed-1/CIFAR100N/resnet6"]
    margins = [np.load(ROOT / f"results/{run}/dynamics.npy")[:, 1].mean(axis=0, dtype=float) for run in runs]
    assert [figures for _, *figures in cells_below("docs/results.md", "| mean margin, seed 1 |")] == [
        [f"{np.quantile(of_run, quantile):.2f}" for of_run in margins] for quantile in (0.5, 0.7)]


def test_the_lists_are_those_of_their_manifest_and_of_the_runs() -> None:
    """AUM's score is a mean of which seed 1's dynamics are one part; windows follow from the scores."""
    found = read_json(LISTS / "manifest.json", "")
    hashes = {name: entry["index_sha256"] for name, entry in found["lists"].items()}
    hashes |= {name: entry["sha256"] for name, entry in found["scores"].items()}
    assert {name: sha256(LISTS / name) for name in hashes} == hashes
    assert {path.name for path in LISTS.glob("*.npy")} == {*hashes}
    runs = found["runs"]
    assert [run["seed"] for run in runs] == [1, 2, 3]
    assert [sha256(ROOT / run["checkpoint"]) for run in runs] == [run["checkpoint_sha256"] for run in runs]
    assert sha256(ROOT / runs[0]["dynamics"]) == runs[0]["dynamics_sha256"]
    mean = np.load(LISTS / "aum.scores.npy")
    margins = np.load(ROOT / runs[0]["dynamics"])[:, 1].mean(axis=0, dtype=float)
    of_others = (3 * mean - margins) / 2  # whose dynamics are not committed
    assert abs(of_others).max() <= 1 and np.corrcoef(of_others, margins)[0, 1] > 0.9
    for name, score, quantile in (("aum-per_class-False", "aum", 0.7), ("moderate", "moderate", 0.5)):
        order = np.argsort(np.argsort(np.load(LISTS / f"{score}.scores.npy"), kind="stable"))
        ranks = order[np.load(LISTS / f"{name}-0.2.npy")]
        assert np.ptp(ranks) < 10_010 and abs(ranks.mean() - quantile * 50_000) < 5
