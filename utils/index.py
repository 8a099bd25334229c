"""index/<data set>.bin, the ids to drop, and index/<data set>.json, its manifest."""
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np

from utils.errors import BadInput
from utils.files import read_json, replacing, to_json
from utils.pickles import unpickle

NAME = re.compile(r"[\w.-]+")  # of a coreset: a part of a folder's name


def write_index(path: Path, drop: np.ndarray, manifest: dict) -> None:
    """Write the ids to drop as a pickled int64 array and, with that file's sha256, the manifest beside it.

    Raises:
        BadInput: they cannot be written.
    """
    content = pickle.dumps(drop.astype(np.int64), protocol=4)
    manifest = {**manifest, "index_sha256": hashlib.sha256(content).hexdigest()}
    # The manifest first: a stop between the two leaves a pair that read_index refuses, or no index.
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(to_json(manifest))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_index(path: Path, dataset: str, ids: np.ndarray, images_sha256: str) -> tuple[np.ndarray, dict]:
    """The ids to drop, int64, ascending, and the manifest; {} for a plain index of the PyTorch release.

    Raises:
        BadInput: it does not fit a data set of that name with images of these ids, ascending, and, by their
            sha256, the very images and labels.
    """
    images = len(ids)
    content = path.read_bytes()
    drop = unpickle(content, path)
    if isinstance(drop, list) and all(type(i) is int for i in drop):
        drop = np.array(drop, np.int64 if all(abs(i) < 2 ** 63 for i in drop) else object)
    if not isinstance(drop, np.ndarray) or drop.ndim != 1 or drop.dtype.kind not in "iu":
        raise BadInput(f"{path}: not an array of image ids; make it with selection.py")
    if not np.isin(drop, ids).all():
        raise BadInput(f"{path}: ids reach from {drop.min()} to {drop.max()}, {dataset} has {images} from "
                       f"{ids[0]} to {ids[-1]}; make an index for this data set")
    unique = np.unique(drop)
    if len(unique) < len(drop):
        raise BadInput(f"{path}: {len(drop) - len(unique)} ids are repeated; make it again with selection.py")
    if len(unique) == images:
        raise BadInput(f"{path}: drops all {images} images; make it again with a larger --rate")
    manifest = read_manifest(path.with_suffix(".json"))
    if manifest:
        if manifest.get("dataset") != dataset or manifest.get("images") != images:
            raise BadInput(f"{path}: made for {manifest.get('dataset')} with {manifest.get('images')} "
                           f"images, not for {dataset} with {images}; make an index for this data set")
        if manifest.get("images_sha256", images_sha256) != images_sha256:
            raise BadInput(f"{path}: made for other images or labels of {dataset} than those in --data; make "
                           "it again with selection.py")
        if manifest.get("index_sha256") != hashlib.sha256(content).hexdigest():
            raise BadInput(f"{path}: its manifest {path.stem}.json belongs to another index; make both again "
                           "with selection.py, or delete the manifest of a plain index")
    return unique.astype(np.int64), manifest


def read_manifest(path: Path) -> dict:
    """A manifest's content, {} where there is none.

    Raises:
        BadInput: the file is no manifest.
    """
    manifest = read_json(path, "make it again with selection.py")
    if path.exists() and not (isinstance(manifest.get("method"), str)
                              and isinstance(manifest.get("rate"), (int, float))
                              and isinstance(manifest.get("not_default", []), list)
                              and isinstance(manifest.get("arch") or "", str)
                              and isinstance(manifest.get("image_size") or 0, int)
                              and isinstance(manifest.get("classes") or 0, int)
                              and NAME.fullmatch(coreset_name(path, manifest, 0))):
        raise BadInput(f"{path}: not a manifest; make it again with selection.py")
    return manifest


def coreset_name(index: Path, manifest: dict, kept: int) -> str:
    """A coreset run's folder.

    coreset-<method>-<rate>, followed by what is not the default, such as -center-mean or -seed-1;
    coreset-<file>-<images> for a plain index, which has no manifest.
    """
    if not manifest:
        return f"coreset-{index.stem}-{kept}"
    return "-".join(["coreset", manifest["method"], f"{manifest['rate']:g}",
                     *map(str, manifest.get("not_default", []))])
