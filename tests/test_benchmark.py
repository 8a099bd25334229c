"""The benchmarks of ImageNet's size, on small files."""
import re
from pathlib import Path

import numpy as np
import pytest

import benchmark
import methods


@pytest.mark.parametrize("order", ["class", "mixed"])
def test_evidence_is_of_one_size_and_of_the_order(order: str, tmp_path: Path) -> None:
    benchmark.write_evidence(tmp_path, 3000, order)
    labels, features, logits, dynamics = (np.load(tmp_path / f"{name}.npy", mmap_mode="r")
                                          for name in ("labels", "features", "logits", "dynamics"))
    assert np.bincount(labels).tolist() == [1000] * 3
    assert (np.diff(labels) >= 0).all() == (order == "class")
    assert (features.shape, logits.shape, dynamics.shape) == ((3000, 2048), (3000, 3), (90, 3, 3000))
    assert (features.dtype, logits.dtype, dynamics.dtype) == (np.float32, np.float32, np.float16)
    centers = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    assert np.abs(features - centers[labels]).max() < 7 and np.abs(centers[0] - centers[1]).max() > 2


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
