"""A pickle reader that admits numbers, strings, lists, tuples, dicts and arrays, and runs nothing.

Written by hand because pickle itself runs what a file asks for: indices and data sets come from strangers.
"""
import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import BadInput, one_line


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
    known = {("numpy", "ndarray"): "numpy.ndarray", ("numpy", "dtype"): _Dtype,
             ("_codecs", "encode"): _encode}
    for _core in ("core", "_core"):  # numpy 1 and 2
        known[f"numpy.{_core}.multiarray", "_reconstruct"] = _reconstruct
        known[f"numpy.{_core}.multiarray", "scalar"] = _scalar
        known[f"numpy.{_core}.numeric", "_frombuffer"] = _from_buffer

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return self.known[module, name]

    def load_build(self) -> None:
        """Set the state of an array or its dtype; of anything else it would change our own functions."""
        if type(self.stack[-2]) not in (_Array, _Dtype):
            raise pickle.UnpicklingError("it sets the state of something else than an array, which is not "
                                         "allowed")
        super().load_build()

    def load_setitem(self) -> None:
        self.check_keys(self.stack[-2:])
        super().load_setitem()

    def load_setitems(self) -> None:
        self.check_keys(self.stack)
        super().load_setitems()

    def load_dict(self) -> None:
        self.check_keys(self.stack)
        super().load_dict()

    @staticmethod
    def check_keys(items: list) -> None:
        """Numbers and strings only: the hash of tuples that hold one tuple twice takes for ever."""
        if not all(isinstance(key, (str, bytes, int, float)) for key in items[::2]):
            raise pickle.UnpicklingError("a dict has keys that are neither numbers nor strings")

    def load_bytearray8(self) -> None:
        """Read what there is; the original first allocates as much memory as it is told to."""
        size, = struct.unpack("<Q", self.read(8))
        content = self.read(size)
        if len(content) < size:
            raise pickle.UnpicklingError("it ends within a byte array")
        self.append(bytearray(content))

    def refuse(self) -> None:
        raise pickle.UnpicklingError("sets and objects are not allowed")

    dispatch = {**pickle._Unpickler.dispatch,  # pylint: disable=protected-access
                pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem,
                pickle.SETITEMS[0]: load_setitems, pickle.DICT[0]: load_dict,
                pickle.BYTEARRAY8[0]: load_bytearray8,
                **dict.fromkeys((code[0] for code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET,
                                                      pickle.INST, pickle.OBJ, pickle.NEWOBJ,
                                                      pickle.NEWOBJ_EX)),
                                refuse)}


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """Replace the arrays' stand-ins in what a pickle held.

    Args:
        done: results by id, so that a list which many others hold is walked once.
    """
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        result = value.value
    elif isinstance(value, dict):
        result = {key: _finished(item, done) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        result = type(value)([_finished(item, done) for item in value])
    elif value is None or isinstance(value, (bool, int, float, str, bytes, np.generic)):
        return value
    else:
        raise pickle.UnpicklingError(f"{type(value).__name__} is not allowed")
    done[id(value)] = result
    return result


def unpickle(content: bytes, path: Path) -> Any:
    """What a pickle holds: numbers, strings, lists, tuples, dicts and numpy arrays of numbers (read-only).

    Args:
        path: named in the error.

    Raises:
        BadInput: it is truncated, no pickle, or holds or calls anything else. Nothing in it is run.
    """
    try:
        return _finished(_Reader(io.BytesIO(content), encoding="latin1").load(), {})
    except Exception as error:  # a broken pickle can raise anything
        raise BadInput(f"{path}: not a pickle of plain arrays ({one_line(error)}); put a whole file in "
                       "its place") from error
