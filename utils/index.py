"""index/<data set>.bin, the ids to drop, and index/<data set>.json, its manifest; lists of ids kept."""
import contextlib
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np

from utils.arrays import read_array
from utils.errors import BadInput
from utils.files import read_json, read_json_or_nothing, replacing, sha256, write_json
from utils.pickles import unpickle

NAME = re.compile(r"[\w.-]+")  # of a coreset: a part of a folder's name
LISTS = "manifest.json"  # of a folder of lists that comparison/lists.py wrote


def write_index(path: Path, drop: np.ndarray, manifest: dict) -> None:
    """Write the ids to drop as a pickled int64 array and, with that file's sha256, the manifest beside it."""
    content = pickle.dumps(drop.astype(np.int64), protocol=4)
    manifest = {**manifest, "index_sha256": hashlib.sha256(content).hexdigest()}
    # The manifest first: a stop between the two leaves a pair that read_index refuses, or no index.
    write_json(path.with_suffix(".json"), manifest)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_index(path: Path, dataset: str, ids: np.ndarray, images_sha256: str) -> tuple[np.ndarray, dict]:
    """The ids to drop, int64, ascending, and the manifest; {} for a plain index of the PyTorch release.

    The ids in a list of comparison/lists.py, which its manifest names, are kept: the others are dropped.

    Raises:
        BadInput: it does not fit a data set of that name with images of these ids, ascending, and, by their
            sha256, the very images and labels.
    """
    images = len(ids)
    listed, manifest = read_ids(path), read_manifest(path)
    kept = manifest.get("holds") == "kept"
    if path.suffix == ".npy" and listed.dtype == np.int32 and not kept:
        raise BadInput(f"{path}: its int32 ids may be images to keep, but no {LISTS} beside it names this "
                       "file; put its own there, or save ids to drop as int64")
    if manifest and manifest.get("dataset") != dataset:
        raise BadInput(f"{path}: made for {manifest.get('dataset')}, not for {dataset}; make an index for "
                       "this data set")
    if manifest and manifest.get("images") != images:
        raise BadInput(f"{path}: made for {manifest.get('images')} images of {dataset}, not for {images}; "
                       "give the --classes and --skip_damaged that it was made with, or make it again "
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
        if manifest.get("index_sha256") != sha256(path):
            raise BadInput(f"{path}: its manifest {manifest_path(path).name} belongs to another index; make "
                           "both again with selection.py, or delete the manifest of a plain index")
    return unique.astype(np.int64), manifest


def read_ids(path: Path) -> np.ndarray:
    """The ids that a file holds: whole numbers in a pickled or saved array, or in a pickled list.

    Raises:
        BadInput: it is another one of the files beside an index, or holds something else.
    """
    if path.suffix == ".json" or path.name.endswith((".kept.npy", ".scores.npy")):
        stem = path.name.removesuffix(path.suffix).removesuffix(".kept").removesuffix(".scores")
        raise BadInput(f"{path}: not the list of images to drop; name {path.with_name(stem + '.bin')}")
    remedy = "make it with selection.py"
    ids = read_array(path, remedy) if path.suffix == ".npy" else unpickle(path.read_bytes(), path)
    if isinstance(ids, list):
        with contextlib.suppress(ValueError):  # lists of unequal length in it
            ids = np.array(ids)
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or not (
            ids.dtype.kind in "iu" or ids.dtype.kind == "f" and (ids % 1 == 0).all()):
        what = f"{ids.dtype} {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
        raise BadInput(f"{path}: {what}, not an array of image ids; {remedy}")
    return ids.astype(np.int64) if ids.dtype.kind == "f" else ids


def manifest_path(index: Path) -> Path:
    """<index>.json or, where there is none, the manifest of a folder of lists."""
    own = index.with_suffix(".json")
    return own if own.exists() else index.with_name(LISTS)


def read_manifest(index: Path) -> dict:
    """The manifest of an index, or a list's part of its folder's; {} where there is none.

    Raises:
        BadInput: the file is no manifest.
    """
    path, own = manifest_path(index), index.with_suffix(".json")
    if path == own:
        manifest = read_json(path, "make it again with selection.py")
    else:
        manifest = read_json_or_nothing(path)
        lists = manifest.pop("lists", None)
        if not isinstance(lists, dict) or index.name not in lists:
            return {}
        manifest = manifest | lists[index.name] if isinstance(lists[index.name], dict) else {}
    if path.exists() and not (isinstance(manifest.get("method"), str)
                              and isinstance(manifest.get("rate"), (int, float))
                              and isinstance(manifest.get("not_default", []), list)
                              and isinstance(manifest.get("arch") or "", str)
                              and isinstance(manifest.get("image_size") or 0, int)
                              and isinstance(manifest.get("classes") or 0, int)
                              and NAME.fullmatch(coreset_name(index, manifest, 0))):
        raise BadInput(f"{path}: not a manifest; make it again with selection.py")
    return manifest


def coreset_name(index: Path, manifest: dict, kept: int) -> str:
    """A coreset run's folder: coreset-<method>-<rate> and what is not the default, such as -center-mean.

    It is coreset-<file>-<images> for a plain index, which has no manifest.
    """
    if not manifest:
        return f"coreset-{index.stem}-{kept}"
    return "-".join(["coreset", manifest["method"], f"{manifest['rate']:g}",
                     *map(str, manifest.get("not_default", []))])
