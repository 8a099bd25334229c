"""The benchmarks of ImageNet's size, on small files."""
import re
from pathlib import Path

import pytest

import benchmark
import methods


def test_each_method_has_a_line_and_no_files_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(methods, "METHODS", {name: methods.METHODS[name] for name in ("random", "grand")})
    benchmark.scale(1500, "mixed", tmp_path)
    _, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"grand: [\d.]+ s, [\d.]+ s, [\d.]+ x [\d.]+ s, \d+ MiB", line)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: list[Path]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "read_plainly", stop)
    with pytest.raises(KeyboardInterrupt):
        benchmark.scale(1500, "class", tmp_path)
    assert not list(tmp_path.iterdir())


def test_listing_goes_to_the_first_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.listing(1500, tmp_path)
    *_, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"1500 images: listed in [\d.]+ s, [\d.]+ s from there to the first batch", line)
    assert not list(tmp_path.iterdir())
