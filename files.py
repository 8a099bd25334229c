"""Files: replaced in one step, read without running what they hold."""
import contextlib
import hashlib
import io
import logging
import os
import pickle
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

# How files of torch.save begin: a zip, or, before PyTorch 1.6, a pickle of its magic number.
TORCH_STARTS = (b"PK", b"\x80\x02\x8a\x0a" + 0x1950a86a20f9469cfc6c.to_bytes(10, "little"))


class BadInput(Exception):
    """What the user gave cannot be used; the message names it, what is wrong and what to do, in one line."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place on success, remove it on failure.

    Raises:
        BadInput: the folder cannot be made or written to.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder for results and make sure that files can be written to it.

    Raises:
        BadInput: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written to ({error.strerror}); name another folder") from error


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        BadInput: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        BadInput: it is missing or unreadable.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


class _Dtype:
    """Stands for numpy.dtype while a pickle is read: numbers and bools only."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not re.fullmatch("[biuf][1248]", code):
            raise pickle.UnpicklingError(f"arrays of type {code!r} are not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for numpy.ndarray while a pickle is read; `value` is the array once its state is known."""
    value: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content.encode("latin1") if isinstance(content, str) else content, dtype, shape,
                  "F" if fortran else "C")

    def fill(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.value = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.fill(content, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, content: bytes | str) -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.dtype, count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


class _Reader(pickle._Unpickler):  # pylint: disable=protected-access
    """Unpickler of numbers, strings, lists, tuples, dicts and numpy arrays of numbers, and of nothing else.

    The pure Python class on purpose: the C one allocates whatever memory a few bytes of input ask for.
    """
    known = {("numpy", "ndarray"): "numpy.ndarray", ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encode}
    for _core in ("core", "_core"):  # numpy 1 and 2
        known[f"numpy.{_core}.multiarray", "_reconstruct"] = _reconstruct
        known[f"numpy.{_core}.multiarray", "scalar"] = _scalar
        known[f"numpy.{_core}.numeric", "_frombuffer"] = _from_buffer

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return self.known[module, name]


def _finished(value: Any) -> Any:
    """Replace the arrays' stand-ins in what a pickle held."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_finished(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.generic)):
        return value
    raise pickle.UnpicklingError(f"{type(value).__name__} is not allowed")


def unpickle(content: bytes, path: Path) -> Any:
    """What a pickle holds: numbers, strings, lists, tuples, dicts and numpy arrays of numbers (read-only).

    Args:
        path: named in the error.

    Raises:
        BadInput: it is truncated, no pickle, or holds or calls anything else. Nothing in it is run.
    """
    try:
        return _finished(_Reader(io.BytesIO(content), encoding="latin1").load())
    except Exception as error:  # a broken pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: not a pickle of plain arrays ({reason}); make or download it again") from error


def save_checkpoint(network: ms.nn.Cell, path: Path) -> None:
    """Write a network's parameters in MindSpore's checkpoint format, under any name.

    Raises:
        BadInput: the file cannot be written.
    """
    with replacing(path) as temporary:
        named = temporary.with_name(temporary.name + ".ckpt")  # mindspore.save_checkpoint insists on the suffix
        try:
            ms.save_checkpoint(network, str(named), crc_check=True)
            os.chmod(named, 0o644)
            os.replace(named, temporary)
        except RuntimeError as error:
            raise BadInput(f"{path}: cannot be written ({error})") from error
        finally:
            for left in (named, named.with_suffix(".tmp")):
                left.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint in MindSpore's format, by name.

    Raises:
        BadInput: it is missing, damaged, or in another format.
    """
    if read_bytes(path).startswith(TORCH_STARTS):
        raise BadInput(f"{path}: a PyTorch checkpoint; turn it into one of this project with "
                       f"python -m models.convert_torch {path} NEW.pth --arch ARCH --dataset DATASET")
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "link.ckpt")  # mindspore.load_checkpoint insists on the suffix
        link.symlink_to(path.resolve())
        logging.disable()  # MindSpore logs what it raises
        try:
            loaded = ms.load_checkpoint(str(link), crc_check=True)
            return {name: value.asnumpy() for name, value in loaded.items() if isinstance(value, ms.Parameter)}
        except Exception as error:
            raise BadInput(f"{path}: not a whole MindSpore checkpoint; train it again or name another") from error
        finally:
            logging.disable(logging.NOTSET)
