"""convert-tiny.sh on small folders in the official layout."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import check_one_line
from datasets.tiny import jpeg_files
from forks import ROOT

OF_CLASS_1 = ["val_1.JPEG", "val_10.JPEG", "val_4.JPEG", "val_7.JPEG"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Twelve validation images of three classes."""
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


def convert(*arguments: str | Path, cwd: Path = ROOT, script: Path = ROOT / "convert-tiny.sh",
            path: str = os.environ["PATH"]) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", script, *arguments], capture_output=True, text=True, cwd=cwd,
                          env={**os.environ, "PATH": path})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "val").rglob("*.JPEG")}


def test_regroups_and_a_second_run_changes_nothing(tiny: Path) -> None:
    before = contents(tiny)
    for _ in range(2):
        result = convert(tiny)
        assert result.returncode == 0, result.stderr
        assert "3 classes, 12 images, 0 missing, 0 left" in result.stdout
        assert sorted(path.name for path in (tiny / "val/n00000001").iterdir()) == OF_CLASS_1
        assert contents(tiny) == before and not (tiny / "val/images").exists()
    assert (tiny / "test/images").is_dir()


@pytest.mark.parametrize("part", ["n00000001", "n00000001/images", "images/n00000001"])
def test_resumes_after_a_stop_and_an_images_folder_within_a_class_counts(tiny: Path, part: str) -> None:
    before = contents(tiny)
    (tiny / "val" / part).mkdir(parents=True)
    (tiny / "val/images/val_4.JPEG").rename(tiny / "val" / part / "val_4.JPEG")
    result = convert(tiny)
    assert result.returncode == 0 and "12 images, 0 missing" in result.stdout and contents(tiny) == before
    assert not (tiny / "val/images").exists()
    assert {Path(path).name for path in jpeg_files(tiny / "val/n00000001")} == set(OF_CLASS_1)


def test_never_overwrites(tiny: Path) -> None:
    (tiny / "val/n00000001").mkdir()
    (tiny / "val/n00000001/val_4.JPEG").write_text("another image")
    result = convert(tiny)
    assert result.returncode == 1 and "0 missing, 1 left" in result.stdout
    assert (tiny / "val/n00000001/val_4.JPEG").read_text() == "another image"
    assert (tiny / "val/images/val_4.JPEG").read_text() == "image 4"


def test_a_missing_image_is_named(tiny: Path) -> None:
    (tiny / "val/images/val_5.JPEG").unlink()
    result = convert(tiny)
    assert result.returncode == 1 and "11 images, 1 missing, 0 left" in result.stdout
    assert "n00000002/val_5.JPEG" in result.stderr


@pytest.mark.parametrize("part", ["val/images", "val"])
def test_links_are_followed(tiny: Path, tmp_path: Path, part: str) -> None:
    before = contents(tiny)
    shutil.move(tiny / part, tmp_path / "elsewhere")
    (tiny / part).symlink_to(tmp_path / "elsewhere")
    result = convert(tiny)
    assert result.returncode == 0 and "3 classes, 12 images, 0 missing, 0 left" in result.stdout
    assert (tiny / part).is_symlink() and contents(tiny) == before
    assert sorted(os.listdir(tiny / "val/n00000001")) == OF_CLASS_1


def test_test_is_deleted_when_asked(tiny: Path) -> None:
    result = convert("--delete", tiny)
    assert result.returncode == 2 and "--delete: unknown" in result.stderr and (tiny / "test").exists()
    result = convert("--delete-test", tiny)
    assert result.returncode == 0 and "test: deleted" in result.stdout and not (tiny / "test").exists()


def test_the_default_folder_lies_beside_the_script(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a b/data").mkdir(parents=True)
    script = shutil.copy(ROOT / "convert-tiny.sh", tmp_path / "a b")
    tiny.rename(tmp_path / "a b/data/tiny-imagenet-200")
    assert "12 images" in convert(cwd=Path("/"), script=script).stdout
    assert "12 images" in convert("tiny-imagenet-200", cwd=tmp_path / "a b/data").stdout  # a relative one


def test_lines_may_end_as_on_windows_and_the_last_one_needs_no_newline(tiny: Path) -> None:
    lines = "\r\n".join(f"val_{i}.JPEG\tn0000000{i % 3}" for i in range(12))
    (tiny / "val/val_annotations.txt").write_bytes(lines.encode())
    result = convert(tiny)
    assert result.returncode == 0 and "3 classes, 12 images, 0 missing" in result.stdout


def test_images_are_moved_a_class_at_a_time(tiny: Path, tmp_path: Path) -> None:
    """10,000 calls of mv would take minutes."""
    (tmp_path / "bin").mkdir()
    counter = tmp_path / "bin/mv"
    counter.write_text(f'#!/bin/sh\necho >>"{tmp_path}/calls"\nexec {shutil.which("mv")} "$@"\n')
    counter.chmod(0o755)
    assert convert(tiny, path=f"{tmp_path}/bin:{os.environ['PATH']}").returncode == 0
    assert (tmp_path / "calls").read_text().count("\n") == 3


def test_the_tools_of_macos_do(tiny: Path, tmp_path: Path) -> None:
    """Their mv has no -t, and their wc begins with spaces."""
    (tmp_path / "bin").mkdir()
    for name, text in (("mv", f'[ "$2" != -t ] && exec {shutil.which("mv")} "$@"'),
                       ("wc", f'printf "%8d\\n" "$({shutil.which("wc")} "$@")"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    result = convert(tiny, path=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr
    assert ": 3 classes, 12 images, 0 missing, 0 left in val/images" in result.stdout


@pytest.mark.parametrize("line", ["../../x.JPEG\tn00000001\n", "val_1.JPEG\t../train\n", "nonsense\n",
                                  "val_1.JPEG\tn00000002\n"])
def test_hostile_lines_are_refused_before_anything_moves(tiny: Path, line: str) -> None:
    with (tiny / "val/val_annotations.txt").open("a") as file:
        file.write(line)
    result = convert(tiny)
    assert result.stderr.startswith("convert-tiny.sh: error: ")
    check_one_line(result, "line 13")
    assert len(list((tiny / "val/images").iterdir())) == 12


def test_a_file_in_a_classs_place_is_refused_before_anything_moves(tiny: Path) -> None:
    (tiny / "val/n00000001").write_text("a file")
    result = convert(tiny)
    check_one_line(result, "n00000001: a file, not a folder")
    assert len(list((tiny / "val/images").iterdir())) == 12


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    check_one_line(convert(tmp_path / "nowhere"), "nowhere/train: missing")
