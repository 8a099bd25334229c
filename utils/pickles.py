"""A pickle reader that allows numbers, strings, lists, tuples, dicts and arrays, and runs no code.

Python's pickle runs code from the file, and indices and data sets come from strangers. NumPy's functions for
pickles are not called either: they take flags, sizes and shapes from the file, which can crash them.
"""
import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import BadInput, one_line


class _Dtype:
    """Stands for numpy.dtype: numbers and bools only; a file can set nothing but the byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch("b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"arrays of type {code[:9]} are not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for numpy.ndarray; `value` is the array once its state is known."""
    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _from_buffer(content, dtype, shape, "F" if fortran else "C")


def _from_buffer(content: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Any = "C") -> np.ndarray:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


class _Unpickler(pickle.Unpickler):
    """Finds the names in pickled NumPy arrays and nothing else; they are functions, so no object is made."""
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): "", ("numpy", "dtype"): lambda code, *_: _Dtype(code),
        ("_codecs", "encode"): lambda text, *_: text.encode("latin1")}
    for _core in ("core", "_core"):  # NumPy 1 and 2
        allowed[f"numpy.{_core}.multiarray", "_reconstruct"] = lambda *_: _Array()
        allowed[f"numpy.{_core}.multiarray", "scalar"] = lambda dtype, text: _from_buffer(text, dtype, ())[()]
        allowed[f"numpy.{_core}.numeric", "_frombuffer"] = _from_buffer

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return self.allowed[module, name]


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


def unpickle(content: bytes, path: Path) -> Any:
    """The content of a pickle: numbers, strings, lists, tuples, dicts and NumPy arrays of numbers.

    Raises:
        BadInput: it is cut off, not a pickle, or asks for anything else. Nothing in it is run.
    """
    try:
        # The C reader allocates all memo entries up to the highest: a few bytes could ask for 64 GB.
        if any(opcode.name in ("PUT", "LONG_BINPUT") and number > len(content)  # type: ignore[operator]
               for opcode, number, _ in pickletools.genops(content)):
            raise pickle.UnpicklingError("it asks for more memory than it has bytes")
        value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a broken pickle can raise anything
        raise BadInput(f"{path}: not a pickle of plain arrays ({one_line(error)}); replace it with an "
                       "intact copy") from error
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else _plain(value)
