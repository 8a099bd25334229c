"""Files: replaced in one step, read without running what they hold."""
import binascii
import contextlib
import errno
import fcntl
import hashlib
import io
import logging
import os
import pickle
import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore.train.checkpoint_pb2 import Checkpoint

RESUME = "resume."  # begins the names of what a checkpoint holds beside the network's own parameters
CRC_MARK, CRC_BYTES = b"crc_num", 10  # end a MindSpore checkpoint: the mark, then the CRC-32 of all before it

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
    # A name that the next run uses again: a kill leaves one at most.
    temporary = path.with_name(f".{path.name}.tmp")
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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder for results and keep other runs out of it until the end of the block, or of the process.

    What was made and is still empty at the end is removed.

    Raises:
        BadInput: another run is in it, or it cannot be written to.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BadInput(f"{folder}: another run is writing to this folder; wait for its end or name "
                               "another folder") from error
            # else a file system without locks: go on without
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


class BlockFile:
    """Arrays appended one by one to a file, so that the successor of a stopped run goes on where that was.

    A line with the key, then for each array its length in bytes, its CRC-32 and its bytes in numpy's format.
    What a kill or a power cut has spoilt at the end is cut off; a file with another key is begun anew.

    Args:
        key: of what the arrays were computed from; one line.

    Raises:
        BadInput: the file cannot be opened.
    """
    head = struct.Struct("<QI")

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key.encode() + b"\n"
        self.found = 0  # bytes that an earlier run has left
        try:
            self.file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> "BlockFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self) -> Iterator[np.ndarray]:
        """The arrays that are whole, in order; the next append goes behind them."""
        self.file.seek(0)
        if self.file.readline(len(self.key)) == self.key:
            end = len(self.key)
            while len(head := self.file.read(self.head.size)) == self.head.size:
                size, crc = self.head.unpack(head)
                content = self.file.read(min(size, os.path.getsize(self.path)))
                if len(content) < size or binascii.crc32(content) != crc:
                    break
                end += len(head) + size
                yield np.load(io.BytesIO(content), allow_pickle=False)
            self.file.truncate(end)
            self.file.seek(end)
            self.found = end
        else:
            self.file.seek(0)
            self.file.truncate()
            self._write(self.key)

    def append(self, array: np.ndarray) -> None:
        """Add an array after read() has come to its end.

        Raises:
            BadInput: the disk is full; what this run has added is removed.
        """
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        content = content.getvalue()
        self._write(self.head.pack(len(content), binascii.crc32(content)) + content)

    def _write(self, content: bytes) -> None:
        try:
            left = memoryview(content)
            while left:
                left = left[self.file.write(left):]
        except OSError as error:
            self.file.truncate(self.found)
            if not self.found:
                self.path.unlink(missing_ok=True)
            raise BadInput(f"{self.path}: cannot be written: {error.strerror}; make room or name another "
                           "folder") from error


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
        raise BadInput(f"{path}: not a pickle of plain arrays ({one_line(error)}); make or download it "
                       "again") from error


def one_line(error: Exception) -> str:
    """An error's first line, or its kind where it says nothing; at most 200 characters, all printable."""
    text = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def save_checkpoint(network: ms.nn.Cell, path: Path, resume: dict[str, ms.Tensor] | None = None) -> None:
    """Write a network's parameters in MindSpore's checkpoint format, under any name.

    Args:
        resume: what else the file shall hold, by name, as load_resumable gives it back.

    Raises:
        BadInput: the file cannot be written.
    """
    extra = {RESUME + name: value for name, value in (resume or {}).items()}
    with replacing(path) as temporary:
        # mindspore.save_checkpoint insists on the suffix.
        named = temporary.with_name(temporary.name + ".ckpt")
        logging.disable()  # MindSpore logs what it raises
        try:
            ms.save_checkpoint(network, str(named), crc_check=True, append_dict=extra)
            os.chmod(named, 0o644)
            os.replace(named, temporary)
        except RuntimeError as error:
            raise BadInput(f"{path}: cannot be written ({one_line(error)})") from error
        finally:
            logging.disable(logging.NOTSET)
            for left in (named, named.with_suffix(".tmp")):
                left.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The network's parameters in a checkpoint of MindSpore's format, by name; read-only arrays.

    Raises:
        BadInput: it is missing, damaged, or in another format.
    """
    return load_resumable(path)[0]


def load_resumable(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """As load_checkpoint, and what else save_checkpoint put into the file.

    Not mindspore.load_checkpoint: where a file gives a tensor more bytes than its shape has room for, it
    writes beyond the tensor's memory.

    Raises:
        BadInput: it is missing, damaged, or in another format.
    """
    content = read_bytes(path)
    if content.startswith(TORCH_STARTS):
        raise BadInput(f"{path}: a PyTorch checkpoint; turn it into one of this project with "
                       f"python -m models.convert_torch {path} NEW.pth --arch ARCH --dataset DATASET")
    try:
        mark = len(content) - len(CRC_MARK) - CRC_BYTES
        if content[mark:-CRC_BYTES] == CRC_MARK:
            crc = int.from_bytes(content[-CRC_BYTES:], "big")
            content = content[:mark]
            if binascii.crc32(content) != crc:
                raise ValueError("the checksum differs")
        parts, forms = {}, {}
        # A large tensor comes in several values of one name.
        for value in Checkpoint.FromString(content).value:
            parts.setdefault(value.tag, []).append(value.tensor.tensor_content)
            forms[value.tag] = value.tensor.tensor_type.lower(), list(value.tensor.dims)
        if not parts:
            raise ValueError("it holds no parameters")
        values = {name: _tensor(b"".join(parts[name]), *form) for name, form in forms.items()}
    except Exception as error:
        raise BadInput(f"{path}: not a whole MindSpore checkpoint ({one_line(error)}); train it again or "
                       "name another") from error
    weights = {name: value for name, value in values.items() if not name.startswith(RESUME)}
    return weights, {name.removeprefix(RESUME): value
                     for name, value in values.items() if name not in weights}


def _tensor(content: bytes, dtype: str, shape: list[int]) -> np.ndarray:
    """An array from a checkpoint's fields; MindSpore writes the shape of a scalar as [] or [0]."""
    if not re.fullmatch("bool|u?int(8|16|32|64)|float(16|32|64)", dtype):
        raise ValueError(f"tensors of type {dtype!r} are not allowed")
    return np.frombuffer(content, dtype).reshape([] if shape == [0] else shape)
