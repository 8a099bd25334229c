"""convert-tiny.sh on small folders in the official layout."""
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import ROOT
from datasets.tiny import images_in


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


def convert(*arguments: str | Path, cwd: Path = ROOT, script: Path = ROOT / "convert-tiny.sh"
            ) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", script, *arguments], capture_output=True, text=True, cwd=cwd)


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


def test_an_images_folder_within_a_class_counts(tiny: Path) -> None:
    before = contents(tiny)
    (tiny / "val/n00000001/images").mkdir(parents=True)
    (tiny / "val/images/val_4.JPEG").rename(tiny / "val/n00000001/images/val_4.JPEG")
    result = convert(tiny)
    assert result.returncode == 0 and "12 images, 0 missing" in result.stdout and contents(tiny) == before
    assert (tiny / "val/n00000001/images/val_4.JPEG").exists()
    read = images_in(tiny / "val/n00000001", tiny)
    assert [Path(path).name for path in read] == ["val_1.JPEG", "val_10.JPEG", "val_4.JPEG", "val_7.JPEG"]


def test_test_is_deleted_when_asked(tiny: Path) -> None:
    result = convert("--delete-test", tiny)
    assert result.returncode == 0 and "test: deleted" in result.stdout and not (tiny / "test").exists()
    result = convert("--delete", tiny)
    assert result.returncode == 2 and "--delete: unknown" in result.stderr


def test_default_and_relative_folders(tiny: Path) -> None:
    (tiny.parent / "a b").mkdir()
    (tiny.parent / "a b/data").mkdir()
    script = shutil.copy(ROOT / "convert-tiny.sh", tiny.parent / "a b")
    moved = tiny.rename(tiny.parent / "a b/data/tiny-imagenet-200")
    assert "12 images" in convert(cwd=Path("/"), script=script).stdout
    assert "12 images" in convert(moved.name, cwd=moved.parent).stdout


def test_the_last_line_needs_no_newline(tiny: Path) -> None:
    table = tiny / "val/val_annotations.txt"
    table.write_text(table.read_text().rstrip("\n"))
    assert convert(tiny).returncode == 0 and not (tiny / "val/images").exists()


def test_ten_thousand_images_take_seconds(tiny: Path) -> None:
    lines = []
    for i in range(10_000):
        (tiny / f"val/images/val_{i}.JPEG").touch()
        lines.append(f"val_{i}.JPEG\tn{i % 200:08}\t0\t0\t9\t9\n")
    (tiny / "val/val_annotations.txt").write_text("".join(lines))
    start = time.perf_counter()
    assert "200 classes, 10000 images, 0 missing" in convert(tiny).stdout
    assert time.perf_counter() - start < 20  # under one second on a quiet machine


@pytest.mark.parametrize("line", ["../../x.JPEG\tn00000001\n", "val_1.JPEG\t../train\n", "nonsense\n",
                                  "val_1.JPEG\tn00000002\n"])
def test_hostile_lines_are_refused_before_anything_moves(tiny: Path, line: str) -> None:
    with (tiny / "val/val_annotations.txt").open("a") as file:
        file.write(line)
    result = convert(tiny)
    assert result.returncode == 2 and "line 13" in result.stderr and result.stderr.count("\n") == 1
    assert len(list((tiny / "val/images").iterdir())) == 12


def test_missing_folder(tmp_path: Path) -> None:
    result = convert(tmp_path / "nowhere")
    assert result.returncode == 2 and "nowhere/train: missing" in result.stderr
