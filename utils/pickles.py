"""A pickle reader that admits numbers, strings, lists, tuples, dicts and arrays, and runs nothing.

pickle itself runs what a file asks for, and indices and data sets come from strangers. NumPy's own functions
for pickles are not called: they take flags, sizes and shapes from the file, and can crash by them.
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
    """What numpy.dtype becomes: numbers and bools only, of which a file sets the byte order alone."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch("b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"arrays of type {code[:9]} are not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """What numpy.ndarray becomes; `value` is the array once its state is known."""
    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _from_buffer(content, dtype, shape, "F" if fortran else "C")


def _from_buffer(content: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Any = "C") -> np.ndarray:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


class _Unpickler(pickle.Unpickler):
    """Finds what pickled NumPy arrays name, and nothing else; functions, so that no class can be made."""
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
    """What a pickle at `path` holds: numbers, strings, lists, tuples, dicts and NumPy arrays of numbers.

    Raises:
        BadInput: it is cut off, not a pickle, or asks for anything else. Nothing in it is run.
    """
    try:
        # The C reader makes room for every memo entry up to the highest: a few bytes could ask for 64 GB.
        if any(opcode.name in ("PUT", "LONG_BINPUT") and number > len(content)  # type: ignore[operator]
               for opcode, number, _ in pickletools.genops(content)):
            raise pickle.UnpicklingError("it asks for more memory than it has bytes")
        value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a broken pickle can raise anything
        raise BadInput(f"{path}: not a pickle of plain arrays ({one_line(error)}); put a whole file in its "
                       "place") from error
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else _plain(value)
