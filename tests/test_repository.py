"""README's commands are ones that the scripts understand; lines keep to the house's width."""
import re
import shlex

import pytest

import selection
import train
from conftest import ROOT

PARSERS = {"train.py": train.parse_options, "selection.py": selection.parse_options}
COMMANDS = [line for block in re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
            for line in block.splitlines() if line.startswith(tuple(f"python {name}" for name in PARSERS))]
WIDTH = 110


def test_readme_has_the_documented_commands() -> None:
    assert {"python train.py --dataset CIFAR100 --data data",
            "python selection.py --dataset CIFAR100 --ckpt ckpt/CIFAR100/resnet50/best.pth --rate 0.2",
            "python train.py --dataset CIFAR100 --data data --prune index/CIFAR100.bin"} < set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_readme_is_understood(command: str) -> None:
    _, script, *options = shlex.split(command, comments=True)
    PARSERS[script](options)


def test_lines_are_not_too_long() -> None:
    folders = (".", "datasets", "imgs", "models", "robust", "tests")
    files = [path for folder in folders for path in (ROOT / folder).iterdir()
             if path.suffix in (".py", ".sh")]
    assert len(files) > 40
    long = [f"{path}:{number}" for path in files
            for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > WIDTH]
    assert long == []
