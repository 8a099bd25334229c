"""Mutated files for the readers of strangers' files: `bash tests/run.sh -m fuzz`, some minutes.

Each input must be read or refused with BadInput, soon. Anything else, a hang among it, fails.
"""
import pickle
import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import npy
from datasets.tiny import read_annotations
from models import create_model
from models.checkpoint import load_checkpoint, save_checkpoint
from utils.arrays import read_array
from utils.errors import BadInput
from utils.index import read_index
from utils.pickles import unpickle

INPUTS = 100_000
SECONDS = 10  # that one input may take
OPCODES = bytes(value[0] for name, value in vars(pickle).items()
                if name.isupper() and isinstance(value, bytes) and len(value) == 1)


def pickles() -> list[bytes]:
    """Whole files of the kinds that the scripts read."""
    values = [{"data": np.zeros((2, 12), np.uint8), "fine_labels": [3, 4], b"filenames": [b"a.png"]},
              np.arange(7), [3, 2, 1], {"fine_label_names": ["a", "b"]}]
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def mutate(content: bytes, generator: random.Random, tokens: bytes, others: list[bytes]) -> bytes:
    """One to four changes: a bit, a byte, a token, a cut, a part of another input, a part twice."""
    content = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at, end = sorted((generator.randint(0, len(content)), generator.randint(0, len(content))))
        kind = generator.randrange(6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << generator.randrange(8)
        elif kind == 1 and at < len(content):
            content[at] = generator.randrange(256)
        elif kind == 2:
            content[at:at] = bytes(generator.choices(tokens, k=generator.randint(1, 4)))
        elif kind == 3:
            del content[at:min(end, at + 8)]
        elif kind == 4:
            other = generator.choice(others)
            start = generator.randint(0, len(other))
            content[at:end] = other[start:start + 16]
        else:
            content[at:at] = content[at:end][:64]
    return bytes(content)


def survive(read: Callable[[bytes], object], seeds: list[bytes], tokens: bytes, inputs: int = INPUTS) -> None:
    """Feed mutated inputs to a reader; some must be read and some refused, or the mutations test nothing."""
    generator = random.Random(0)
    outcomes = {"read": 0, "refused": 0}

    def too_slow(*_: object) -> None:
        raise TimeoutError

    earlier = signal.signal(signal.SIGALRM, too_slow)
    try:
        for _ in range(inputs):
            content = mutate(generator.choice(seeds), generator, tokens, seeds)
            signal.alarm(SECONDS)
            try:
                read(content)
                outcomes["read"] += 1
            except BadInput as error:
                assert str(error).isprintable() and len(str(error)) < 1000
                outcomes["refused"] += 1
            except BaseException as error:
                raise AssertionError(f"{content!r}: {error!r}") from error
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, earlier)
    assert min(outcomes.values()) > inputs // 100, outcomes


def in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def write_and_read(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)
    return write_and_read


def test_flags_of_a_dtype_are_not_taken_from_the_file() -> None:
    """With them NumPy would take numbers for addresses of objects."""
    content = pickle.dumps(np.array([5, 1, 7]), protocol=2)
    flagged = content.replace(b"\xffK\x00t", b"\xffK\x3ft")
    assert flagged != content and unpickle(flagged, Path("x")).tolist() == [5, 1, 7]


@pytest.mark.fuzz
def test_the_restricted_reader() -> None:
    survive(lambda content: unpickle(content, Path("x")), pickles(), OPCODES)


@pytest.mark.fuzz
def test_the_index_reader(tmp_path: Path) -> None:
    seeds = [pickle.dumps(np.array([5, 1, 7, 30], dtype), protocol) for dtype in (np.int64, np.int32)
             for protocol in range(6)]
    survive(in_file(tmp_path / "toy.bin", lambda path: read_index(path, "toy", np.arange(100), "0")), seeds,
            OPCODES)


@pytest.mark.fuzz
def test_the_annotation_reader(tmp_path: Path) -> None:
    lines = "".join(f"val_{i}.JPEG\tn0{i}443527\t0\t32\t44\t62\n" for i in range(4)).encode()
    survive(in_file(tmp_path / "val_annotations.txt", read_annotations),
            [lines, lines.replace(b"\n", b"\r\n")], b"\t\n\r./\\n0_\x00\xff")


@pytest.mark.fuzz
def test_the_array_reader(tmp_path: Path) -> None:
    seeds = [npy(np.zeros((3, 3, 5), np.float16)), npy(np.arange(7)), npy(np.eye(4, dtype=np.float32).T)]
    survive(in_file(tmp_path / "x.npy", lambda path: read_array(path, "remedy").tobytes()), seeds,
            b"(),'{}: <>|fiuOVU0123456789")


@pytest.mark.fuzz
def test_the_checkpoint_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save_checkpoint(create_model("resnet20", 2, True).classifier, path)
    whole = path.read_bytes()
    survive(in_file(path, load_checkpoint), [whole, whole[:-17]], bytes(range(256)), INPUTS // 10)
