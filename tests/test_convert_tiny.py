"""convert-tiny.sh on small folders in the official layout."""
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "train").mkdir(parents=True)
    (folder / "test/images").mkdir(parents=True)
    (folder / "val/images").mkdir(parents=True)
    lines = []
    for i in range(12):
        (folder / f"val/images/val_{i}.JPEG").write_text(f"image {i}")
        lines.append(f"val_{i}.JPEG\tn0000000{i % 3}\t0\t0\t9\t9\n")
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    return folder


def convert(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", ROOT / "convert-tiny.sh", folder], capture_output=True, text=True)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "val").rglob("*.JPEG")}


def test_regroups_and_runs_twice(tiny: Path) -> None:
    before = contents(tiny)
    for _ in range(2):
        result = convert(tiny)
        assert result.returncode == 0, result.stderr
        assert "3 classes, 12 images, 0 missing, 0 left" in result.stdout
        assert contents(tiny) == before
        assert sorted(path.name for path in (tiny / "val/n00000001").iterdir()) == [
            "val_1.JPEG", "val_10.JPEG", "val_4.JPEG", "val_7.JPEG"]
    assert (tiny / "test/images").is_dir() and not (tiny / "val/images").exists()


def test_goes_on_after_a_stop(tiny: Path) -> None:
    before = contents(tiny)
    (tiny / "val/n00000001").mkdir()
    (tiny / "val/images/val_4.JPEG").rename(tiny / "val/n00000001/val_4.JPEG")
    assert convert(tiny).returncode == 0 and contents(tiny) == before


def test_never_overwrites_and_names_what_is_missing(tiny: Path) -> None:
    (tiny / "val/n00000001").mkdir()
    (tiny / "val/n00000001/val_4.JPEG").write_text("another image")
    (tiny / "val/images/val_5.JPEG").unlink()
    result = convert(tiny)
    assert result.returncode == 1 and "11 images, 1 missing, 1 left" in result.stdout
    assert "n00000002/val_5.JPEG" in result.stderr
    assert (tiny / "val/n00000001/val_4.JPEG").read_text() == "another image"
    assert (tiny / "val/images/val_4.JPEG").read_text() == "image 4"


@pytest.mark.parametrize("line", ["../../x.JPEG\tn00000001\n", "val_1.JPEG\t../train\n", "nonsense\n"])
def test_hostile_lines_are_refused_before_anything_moves(tiny: Path, line: str) -> None:
    with (tiny / "val/val_annotations.txt").open("a") as file:
        file.write(line)
    result = convert(tiny)
    assert result.returncode == 2 and "line 13" in result.stderr and result.stderr.count("\n") == 1
    assert len(list((tiny / "val/images").iterdir())) == 12


def test_missing_folder(tmp_path: Path) -> None:
    result = convert(tmp_path / "nowhere")
    assert result.returncode == 2 and "nowhere/train: missing" in result.stderr
