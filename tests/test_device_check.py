"""device_check.py, on a CPU."""
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import device_check
from forks import ROOT


@pytest.mark.ranks
def test_all_agrees_on_a_cpu(tmp_path: Path) -> None:
    """Run from another folder; two workers under msrun among the checks."""
    command = [sys.executable, str(ROOT / "tests/device_check.py"), "--device", "CPU", "--arch", "resnet20"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "All of it agrees." in done.stdout, done.stdout + done.stderr
    table = done.stdout.splitlines()[2:-1]
    assert len(table) == 7 and all(0 <= float(line[34:44]) < float(line[44:54]) for line in table)
    assert [line[54:].strip() != "-" for line in table] == [False, False, True, True, False, False, True]


def fail() -> device_check.Found:
    device_check.run("python", "train.py", "--data", "nowhere")
    return 0, None


@pytest.mark.parametrize("check, said", [
    (fail, "FAILED: train.py: error: nowhere/cifar-100-python/train: missing"),
    (lambda: (0.2, 80.0), "0.2       0.1        80  DIFFERS"),
    (lambda: (float("nan"), None), "nan       0.1         -  DIFFERS")])
def test_what_does_not_agree_is_said_and_the_rest_goes_on(
        capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, check: Callable, said: str) -> None:
    found = [("first", 0.1, check), ("second", 0.1, lambda: (0, 1))]
    monkeypatch.setattr(device_check, "checks", lambda *_: found)
    monkeypatch.setattr(device_check, "set_up", lambda *_: "CPU")  # which can be called once in a process
    with pytest.raises(SystemExit, match="1"):
        device_check.main(["--device", "CPU"])
    lines = capsys.readouterr().out.splitlines()
    assert said in lines[2] and lines[3].split() == ["second", "0", "0.1", "1"]
    assert lines[4].startswith("1 of these checks failed. Please open an issue")
