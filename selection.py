"""Choose a coreset: keep the training images whose distances to their class centers lie nearest the median.

    python selection.py --dataset CIFAR100 --ckpt ckpt/CIFAR100/resnet50/best.pth --rate 0.2

Other methods by --method, other rules for their scores by --keep. Writes <save>/<dataset>.bin (ids to drop),
.kept.npy (ids to keep), .json (manifest), .scores.npy and .png; for other methods than moderate
<save>/<dataset>-<method>.*; followed by what is not the method's default, such as -keep-middle; of a folder
of images also .txt, the files kept.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import options, ranks  # first: utils sets what MindSpore reads when it is loaded

# isort: split
import numpy as np

from datasets import SOURCES, DataSet, open_dataset
from datasets.folder import FileSplit
from methods import METHODS, RULES, WINDOWS, Choice, Setting, choose, find_rule
from methods.choice import coreset_size
from models import NETWORKS
from models.checkpoint import find_arch, finished_epochs
from models.evidence import features_and_logits, read_dynamics, read_embeddings, read_labels
from utils.device import random_stream, set_up, versions
from utils.errors import BadInput
from utils.files import locked, replacing, sha256, writable, write_array
from utils.index import write_index
from utils.picture import draw_selection
from utils.runs import read_args, trained_on

REPLACE = "keep", "per_class", "hard_cutoff"  # options that replace what a method's row of METHODS says
ANY_SCORE = [name for name, rule in RULES.items() if rule.any_score]


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Choose a coreset.")
    data = parser.add_argument_group("data and network")
    options.add_data_options(data, SOURCES)
    data.add_argument("--arch", choices=NETWORKS, help="network of --ckpt; None: as args.json beside --ckpt "
                      "says, else resnet50")
    data.add_argument("--ckpt", type=Path, help="checkpoint of a network trained on the whole data set")
    data.add_argument("--dynamics", type=Path, help="training dynamics; None: dynamics.npy beside --ckpt")
    data.add_argument("--features", type=Path, help="your own embeddings, .npy (n, d), instead of --ckpt")
    data.add_argument("--labels", type=Path, help="labels for --features, .npy (n,); None: the data set's")
    options.add_device_option(data)
    choice = parser.add_argument_group("selection")
    choice.add_argument("--rate", default=1.0, type=options.rate,
                        help="fraction of the images to keep, above 0, at most 1, at which none is dropped")
    choice.add_argument("--method", default="moderate", choices=METHODS, help="selection method")
    choice.add_argument("--keep", type=rule_name, metavar="RULE", help="rule that replaces the method's own: "
                        f"{', '.join(ANY_SCORE)}, or the quantile of the ranks around which images are kept, "
                        "from 0 (lowest) to 1 (highest); None: the method's own")
    options.add_boolean_option(choice, "--per_class", None, "let the rule work inside each class and keep "
                               "the same fraction of each; None: the method's own")
    choice.add_argument("--hard_cutoff", type=options.fraction, help="fraction of the images that is dropped "
                        "first, at the hard end of the score; None: the method's own")
    options.add_seed_option(choice, "what a method draws, also to break ties; moderate by itself "
                            "draws nothing")
    choice.add_argument("--save", default="index", type=Path, help="folder of the index")
    settings = parser.add_argument_group("settings of methods")
    owned = settings_by_name()
    for name, (setting, owners) in owned.items():
        number = options.Number(setting.low, setting.high, isinstance(setting.default, int))
        settings.add_argument(f"--{name}", type=str if setting.choices else number, default=argparse.SUPPRESS,
                              choices=setting.choices or None,
                              help=f"for {', '.join(owners)}: {setting.help} (default: {setting.default})")
    args = parser.parse_args(argv)
    method = METHODS[args.method]
    for name in REPLACE:
        if getattr(args, name) is None:
            setattr(args, name, getattr(method, name))
        elif name != "per_class" and not method.score:
            parser.error(f"--{name}: --method {args.method} has no score; those that have one: "
                         f"{', '.join(other for other, row in METHODS.items() if row.score)}")
    args.hard_cutoff = float(f"{args.hard_cutoff:g}")  # as names of files have it
    args.rule = rule = find_rule(args.keep)
    # Whether --seed matters: for ties of the score, the rounding between classes or the rule's draws.
    args.draws = bool(method.score and method.seeded) or args.per_class or rule.draws
    args.needs = needs = tuple(dict.fromkeys((*method.needs, *rule.needs)))
    args.defaults = {name: setting.default for name, setting in (method.settings | rule.settings).items()}
    args.settings = {name: getattr(args, name, default) for name, default in args.defaults.items()}
    for name, (_, owners) in owned.items():
        if name in args and args.method not in owners:
            parser.error(f"--{name}: not a setting of --method {args.method}; it belongs to "
                         f"{', '.join(owners)}")
        if name in args and name not in args.defaults:
            parser.error(f"--{name}: a setting of the rule that --keep {args.keep} replaces; leave one of "
                         "the two out")
    if args.labels and not args.features:
        parser.error("--labels: belong to --features; name both")
    for name in ("dataset", "classes", "image_size", "arch", "name", "workers"):
        if args.labels and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name}: says nothing of --features with --labels; leave it out")
    if args.dynamics and "dynamics" not in needs:
        parser.error(f"--dynamics: --method {args.method} does not need them; leave it out")
    if args.features and set(needs) - {"features"}:
        parser.error(f"--features: --method {args.method} needs {' and '.join(needs)}; name --ckpt")
    if args.features and args.ckpt:
        parser.error("--features: replaces --ckpt; name one of the two")
    if "dynamics" in needs and not (args.ckpt or args.dynamics):
        parser.error("--ckpt: missing; name the best.pth that train.py wrote, with dynamics.npy beside it")
    if {"features", "logits"} & set(needs) and not (args.ckpt or args.features):
        parser.error("--ckpt: missing; name the best.pth that train.py wrote")
    return args


def rule_name(text: str) -> str:
    """Parses --keep: a rule for any score, or a quantile of the ranks."""
    if text in ANY_SCORE:
        return text
    try:
        quantile = options.fraction(text)
        return next((name for name, named in WINDOWS.items() if named == quantile), f"{quantile:g}")
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(ANY_SCORE)} nor a number "
                                         "from 0 to 1") from None


def settings_by_name() -> dict[str, tuple[Setting, list[str]]]:
    """Each setting of a score or a rule and the methods that have it."""
    found: dict[str, tuple[Setting, list[str]]] = {}
    for name, method in METHODS.items():
        for key, setting in (method.settings | RULES[method.keep].settings).items():
            found.setdefault(key, (setting, []))[1].append(name)
    return found


@dataclass(frozen=True)
class Task:
    """What is chosen from, and what it comes from.

    Args:
        name: of the data set, or of the file of embeddings.
        data: None for embeddings with labels of their own.
        origin: for the manifest.
    """
    name: str
    labels: np.ndarray
    data: DataSet | None
    origin: dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    set_up(args.device, args.seed)
    task = open_task(args)
    n = len(task.labels)
    size = coreset_size(n, args.rate)
    if not size:
        raise BadInput(f"--rate {args.rate:g}: keeps none of {n} images; name a larger one")
    index = args.save / index_name(args, task.name)
    with writable(args.save):  # found out before a long pass
        evidence, sources = read_evidence(args, task)
        ranks.end_others()
    choice = choose(METHODS[args.method], args.rule, task.labels, size, random_stream(args.seed, args.method),
                    evidence, args.per_class, args.hard_cutoff, **args.settings)
    ids = (task.data.train.ids if task.data else np.arange(n)).astype(np.int64)
    drop = np.delete(ids, choice.kept)
    captions = [str(label) if task.data is None else task.data.classes[label] for label in task.labels]
    _, first, class_of = np.unique(task.labels, return_index=True, return_inverse=True)
    counts = np.bincount(class_of[choice.kept], minlength=len(first))  # by class
    manifest = {"dataset": task.name, "method": args.method, "rate": args.rate, "keep": args.keep,
                "per_class": args.per_class, "hard_cutoff": args.hard_cutoff, **args.settings,
                **({"seed": args.seed} if args.draws else {}), **task.origin, **sources,
                "not_default": not_default(args), "images": n, "kept": size, "dropped": len(drop),
                "kept_by_class": counts.tolist(), "versions": versions()}
    if args.draws and args.seed != options.SEED:
        manifest["not_default"] += [f"seed-{args.seed}"]
    if choice.score is not None:
        kept = choice.score[choice.kept]
        manifest["kept_band"] = [float(kept.min()), float(kept.max())]
    if task.data and (perturbed := task.data.perturbed) is not None:
        manifest |= {"perturbed_percent": 100 * perturbed.mean(),
                     "kept_perturbed_percent": 100 * perturbed[choice.kept].mean()}
        print(f"{manifest['kept_perturbed_percent']:.1f} % of the coreset are mislabelled or corrupted, "
              f"{manifest['perturbed_percent']:.1f} % of all images")
    with locked(args.save):
        write_results(index, task, choice, captions, ids[choice.kept], drop, manifest)
    low, high = (f"{counts[i]} ({captions[first[i]]})" for i in (counts.argmin(), counts.argmax()))
    print(f"kept {size} of {n} images, {low} to {high} per class; ids to drop in {index}")
    if size == n:
        options.warn(f"nothing is dropped at --rate {args.rate:g}; name the fraction to keep, such as 0.2")


def open_task(args: argparse.Namespace) -> Task:
    """The labels to choose from, of a data set or of your own embeddings."""
    if args.labels:
        origin: dict[str, Any] = {"labels_sha256": sha256(args.labels)}
        return Task(args.features.stem, read_labels(args.labels), None, origin)
    if args.ckpt and not args.ckpt.is_file():
        raise BadInput(f"--ckpt {args.ckpt}: no such file; name the best.pth that train.py wrote")
    beside = args.ckpt or args.dynamics
    of_run = read_args(beside.parent) if beside else {}
    data = open_dataset(args.dataset, args.data, args.image_size or of_run.get("image_size"),
                        args.classes or of_run.get("classes"), args.name)
    origin = {"images_sha256": data.images_sha256, "classes": args.classes or of_run.get("classes"),
              "arch": args.arch or of_run.get("arch"),
              "image_size": data.image_size if of_run else args.image_size}
    if of_run:
        check_run(args, beside, of_run, data)
        if of_run.get("damaged") and of_run.get("images_sha256") == data.images_sha256:
            data = data.without(of_run["damaged"], ())
        origin["trained_on"] = trained_on(of_run)
    elif args.ckpt:
        print(f"{args.ckpt}: no args.json beside it; taken as trained on {len(data.classes)} classes with "
              f"{data.image_size}x{data.image_size} pixels")
    return Task(data.name, data.train.labels, data, origin)


def check_run(args: argparse.Namespace, beside: Path, of_run: dict[str, Any], data: DataSet) -> None:
    """Warn where the run was not on the whole of this data set, or was stopped before its last epoch.

    Args:
        beside: its checkpoint or dynamics, beside which args.json has the options `of_run`.

    Raises:
        BadInput: options contradict those of the run.
    """
    not_recorded = {"arch": args.arch, "image_size": SOURCES[args.dataset].side,
                    "classes": args.classes if data.train.subset is None else "all"}
    for name, otherwise in not_recorded.items():
        given, trained = getattr(args, name), of_run.get(name) or otherwise
        if given not in (None, trained):
            raise BadInput(f"--{name} {given}: the run of {beside} has {trained}, args.json beside it says; "
                           "leave the option out")
    others = of_run.get("images_sha256", data.images_sha256) != data.images_sha256
    if others and trained_on(of_run) == data.name:
        options.warn(f"{beside}: trained on other images or labels of {data.name} than those in --data; used "
                     "all the same")
    elif others or of_run.get("prune"):
        options.warn(f"{beside}: trained on {trained_on(of_run)}, not on all of the {data.name} in "
                     "--data; used all the same")
    finished = finished_epochs(beside.parent)
    if finished not in (None, of_run.get("epoch", finished)):
        options.warn(f"{beside}: its run has finished {finished} of {of_run['epoch']} epochs; used all the "
                     "same")


def read_evidence(args: argparse.Namespace, task: Task) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What score and rule need, by name, and where that comes from, for the manifest."""
    sources: dict[str, Any] = {}
    evidence: dict[str, np.ndarray] = {}
    if args.features:
        evidence["features"] = read_embeddings(args.features, len(task.labels))
        sources = {"features": str(args.features), "features_sha256": sha256(args.features)}
        return evidence, sources if args.needs else {}
    assert task.data is not None  # --labels come with --features
    if args.needs and args.ckpt:
        sources = {"checkpoint": str(args.ckpt), "checkpoint_sha256": sha256(args.ckpt)}
    if "dynamics" in args.needs:
        path = args.dynamics or args.ckpt.parent / "dynamics.npy"
        evidence["dynamics"] = read_dynamics(path, args.ckpt, task.data)
        sources |= {"dynamics": str(path), "dynamics_sha256": sha256(path),
                    "epochs": len(evidence["dynamics"])}
    if "features" in args.needs or "logits" in args.needs:
        arch = find_arch(args.arch, args.ckpt)
        evidence |= features_and_logits(task.data, arch, args.ckpt, args.save, args.workers, args.needs)
        sources |= {"arch": arch, "image_size": task.data.image_size}
    return evidence, sources


def not_default(args: argparse.Namespace, equals: str = "-") -> list[str]:
    """What is not the method's default, as names of files have it; with "=" as names of compare.py's rows."""
    defaults = {name: getattr(METHODS[args.method], name) for name in REPLACE} | args.defaults
    return [name if value is True else f"{name}{equals}{value}" for name, default in defaults.items()
            if (value := getattr(args, name, default)) != default]


def index_name(args: argparse.Namespace, dataset: str) -> str:
    """The index's file: <dataset>[-<method>][-<what is not the method's default>...].bin."""
    method = [] if args.method == "moderate" else [args.method]
    return "-".join([dataset, *method, *not_default(args)]) + ".bin"


def write_results(index: Path, task: Task, choice: Choice, captions: list[str], keep: np.ndarray,
                  drop: np.ndarray, manifest: dict[str, Any]) -> None:
    """Write the scores, the picture, the ids and the names of files kept, then index and manifest."""
    data, n = task.data, len(captions)
    name = " ".join([manifest["method"], *manifest["not_default"]])
    title = f"{task.name}, {name}: {len(choice.kept)} of {n} training images kept (rate {manifest['rate']:g})"
    picture = draw_selection(title, choice.score, METHODS[manifest["method"]].measure, choice.kept, n,
                             data.pictures if data else None, captions)
    with replacing(index.with_suffix(".png")) as temporary:
        picture.save(temporary, format="PNG")
    for earlier in (index, index.with_suffix(".json")):  # a stop leaves no index beside ids of another
        earlier.unlink(missing_ok=True)
    scores = index.with_suffix(".scores.npy")
    if choice.score is None:
        scores.unlink(missing_ok=True)
    else:
        write_array(scores, choice.score)
    # int32: were it named to --prune under another name, read_index would not take it for ids to drop.
    write_array(index.with_suffix(".kept.npy"), keep.astype(np.int32))
    if data and isinstance(data.train, FileSplit):
        with replacing(index.with_suffix(".txt")) as temporary, open(temporary, "wb") as file:
            file.writelines(b"train/%b\n" % data.train.paths[i] for i in choice.kept)
    write_index(index, drop, manifest)


if __name__ == "__main__":
    options.run_script(main)
