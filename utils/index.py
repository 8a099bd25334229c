"""Files that list the images to drop or to keep: an index with its manifest, the files beside it, lists."""
import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.arrays import read_array
from utils.errors import BadInput
from utils.files import read_json, read_json_or_nothing, replacing, sha256, write_json
from utils.pickles import unpickle

NAME = re.compile(r"\w[\w.-]*")  # of a folder: a data set or a coreset
LISTS = "manifest.json"  # of a folder of lists written by comparison/lists.py
KINDS = {"method": str, "rate": int | float, "not_default": list | None, "dataset": str | None,
         "checkpoint": str | None, "arch": str | None, "image_size": int | None, "classes": int | None}


def write_index(path: Path, drop: np.ndarray, manifest: dict) -> None:
    """Write the ids to drop as a pickled int64 array, and the manifest with the sha256 of ids and file."""
    content = pickle.dumps(drop.astype(np.int64), protocol=4)
    manifest = {**manifest, "index_sha256": hashlib.sha256(content).hexdigest(),
                "dropped_sha256": ids_sha256(drop)}
    # The manifest first: after a stop between the two, read_index refuses the pair, or there is no index.
    write_json(path.with_suffix(".json"), manifest)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def ids_sha256(ids: np.ndarray) -> str:
    """The SHA-256 of ids as int64, ascending, little-endian, in hexadecimal."""
    return hashlib.sha256(np.sort(ids).astype("<i8").data).hexdigest()


def read_index(path: Path, dataset: str, ids: np.ndarray, images_sha256: str, kept: bool = False,
               files: Sequence[bytes] = ()) -> tuple[np.ndarray, dict]:
    """The ids to drop, int64, ascending, and the manifest; {} for a file without one.

    Args:
        ids: of all images of the data set, ascending.
        kept: the file holds the ids to keep (`--kept`), not those to drop (`--prune`).
        files: paths of the images, which a .txt holds instead of ids.

    Raises:
        BadInput: it is known to hold the opposite, or does not fit the data set.
    """
    if path.name.endswith((".json", ".scores.npy")):
        raise BadInput(f"{path}: not a list of images; specify the .bin or .kept.npy beside it")
    images, manifest = len(ids), read_manifest(path)
    of_list = manifest.get("holds") == "kept"
    if not kept and (of_list or path.name.endswith((".kept.npy", ".txt"))):
        raise BadInput(f"--prune {path}: holds the images to keep; use --kept {path}")
    if kept and path.suffix == ".bin" and manifest:
        raise BadInput(f"--kept {path}: holds the images to drop; use --prune {path}")
    listed = read_files(path, files, ids) if path.suffix == ".txt" else read_ids(path)
    if manifest and manifest.get("dataset") != dataset:
        raise BadInput(f"{path}: made for {manifest.get('dataset')}, not for {dataset}; make an index for "
                       "this data set")
    if manifest and manifest.get("images") != images:
        raise BadInput(f"{path}: made for {manifest.get('images')} images of {dataset}, not for {images}; "
                       "pass the --classes and --skip_damaged that it was made with, or make it again "
                       "with --ckpt")
    if not np.isin(listed, ids).all():
        raise BadInput(f"{path}: ids reach from {listed.min()} to {listed.max()}, {dataset} has {images} "
                       f"from {ids[0]} to {ids[-1]}; make an index for this data set, with the same "
                       "--classes")
    unique = np.unique(listed)
    if len(unique) < len(listed):
        raise BadInput(f"{path}: {len(listed) - len(unique)} ids are repeated; make it again")
    if kept:
        unique = np.setdiff1d(ids, unique)
    if len(unique) == images:
        raise BadInput(f"{path}: drops all {images} images; make it again with a larger --rate")
    if manifest:
        if manifest.get("images_sha256", images_sha256) != images_sha256:
            raise BadInput(f"{path}: made for other images or labels of {dataset} than those in --data; make "
                           "it again")
        name, own = "index_sha256", sha256(path)
        if kept and not of_list:  # the manifest of an index has the ids, but not this file beside it
            name, own = "dropped_sha256", ids_sha256(unique)
        if manifest.get(name) != own:
            raise BadInput(f"{path}: its manifest {manifest_path(path).name} belongs to another index; make "
                           "both again with selection.py, or delete the manifest of a plain index")
    return unique.astype(np.int64), manifest


def read_ids(path: Path) -> np.ndarray:
    """The ids in a file, a .npy array or a pickled array or list of whole numbers; else BadInput."""
    remedy = "make it with selection.py"
    ids = read_array(path, remedy) if path.suffix == ".npy" else unpickle(path.read_bytes(), path)
    if isinstance(ids, list):
        with contextlib.suppress(ValueError):  # it has lists of unequal length
            ids = np.array(ids)
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or not (
            ids.dtype.kind in "iu" or ids.dtype.kind == "f" and (ids % 1 == 0).all()):
        what = f"{ids.dtype} {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
        raise BadInput(f"{path}: {what}, not an array of image ids; {remedy}")
    return ids.astype(np.int64)


def read_files(path: Path, files: Sequence[bytes], ids: np.ndarray) -> np.ndarray:
    """The ids of the images whose paths a text file lists, one per line; BadInput if one is unknown."""
    id_of = dict(zip(files, ids, strict=False))
    listed = [line for line in path.read_bytes().splitlines() if line]
    if unknown := [line for line in listed if line not in id_of]:
        raise BadInput(f"{path}: {os.fsdecode(unknown[0])!r} is not the file of a training image; list paths "
                       "such as train/bee/3.jpg, or ids where a data set has no such files")
    return np.array([id_of[line] for line in listed], np.int64)


def manifest_path(index: Path) -> Path:
    """<index>.json, also for <index>.kept.npy; if there is none, the manifest of a folder of lists."""
    own = Path(os.path.splitext(re.sub(r"\.kept\.npy$", ".npy", str(index)))[0] + ".json")
    return own if own.exists() else index.parent / LISTS


def read_manifest(index: Path) -> dict:
    """The manifest of an index, or a list's part of its folder's; {} if there is none; or BadInput."""
    path = manifest_path(index)
    if path.name != LISTS:
        manifest = read_json(path, "make it again with selection.py")
    else:
        manifest = read_json_or_nothing(path)
        lists = manifest.pop("lists", None)
        if not isinstance(lists, dict) or index.name not in lists:
            return {}
        manifest = manifest | lists[index.name] if isinstance(lists[index.name], dict) else {}
    if not (all(isinstance(manifest.get(name), kind) for name, kind in KINDS.items())
            and NAME.fullmatch(coreset_name(index, manifest, 0))):
        raise BadInput(f"{path}: not a manifest; make it again with selection.py")
    return manifest


def coreset_name(index: Path, manifest: dict, kept: int) -> str:
    """The folder of a coreset run: coreset-<method>-<rate> and settings that differ from the defaults.

    Without a manifest it is coreset-<file>-<images>.
    """
    if not manifest:
        return f"coreset-{index.stem}-{kept}"
    return "-".join(["coreset", manifest["method"], f"{manifest['rate']:g}",
                     *map(str, manifest.get("not_default") or [])])
