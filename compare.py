"""Compare selection methods: base runs, selections and coreset runs for several seeds, then a table.

    python compare.py --dataset CIFAR100N --methods random moderate aum:keep=middle --rates 0.2 0.3 \
        --seeds 1 2 3 --arch resnet20 --image_size 16 --base_epoch 40 --epoch 150 --batch_size 64 --out out

A method with options of selection.py is written NAME:option=value:... and has its own row. The comparison can
be interrupted and rerun at any time: finished runs are skipped. Methods, rates and seeds can be added later.
Writes runs.csv, table.md and table.csv to --out. If matplotlib is installed, it also writes plot.png and .svg
and, if a method has three windows of its score or more, intervals.png and .svg.
"""
import argparse
import csv
import math
import platform
import re
import shlex
import sys
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from utils import options  # first: utils sets what MindSpore reads when it is loaded

# isort: split
from comparison.jobs import Jobs
from comparison.tables import COLUMNS, SUMMARY, WHOLE, Row, published_rows, read_runs, summary, tables
from comparison.variants import choose_selections, data_options, selection_options, variant
from datasets import SOURCES, DataSet, open_dataset
from methods import METHODS, Selection
from methods.select import COMMON, settings_by_name
from models import NETWORKS, check_image_size
from utils.device import versions
from utils.errors import BadInput
from utils.files import locked, read_json, replacing, sha256, write_csv, write_json
from utils.index import coreset_name, read_manifest
from utils.progress import ProgressBar
from utils.runs import read_args

ROOT = Path(__file__).resolve().parent
# Settings that all runs of a folder share.
FIXED = ("dataset", "name", "image_size", "classes", "arch", "base_arch", "epoch", "base_epoch", "batch_size",
         "lr", "amp_level", "skip_damaged")


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser("Compare selection methods over rates and seeds.")
    parser.hints = {f"--{name}": f"an option of a method follows its name: aum:{name}=..."
                    for name in (*COMMON, *settings_by_name())}
    data = parser.add_argument_group("data and training, as in train.py")
    options.add_data_options(data, SOURCES)
    data.add_argument("--check", action="store_true", help="decode every image before base runs start and "
                      "list the damaged ones")
    options.add_boolean_option(data, "--skip_damaged", False, "check all images and exclude damaged ones")
    data.add_argument("--arch", default="resnet50", choices=NETWORKS, help="network of a coreset run")
    data.add_argument("--base_arch", choices=NETWORKS, help="network of a base run, from which methods "
                      "select (default: as --arch)")
    data.add_argument("--epoch", default=200, type=options.positive, help="epochs of a coreset run")
    data.add_argument("--base_epoch", type=options.positive, help="epochs of a base run (default: as "
                      "--epoch)")
    options.add_training_options(data)
    options.add_device_option(data)
    compared = parser.add_argument_group("what is compared")
    compared.add_argument("--methods", nargs="+", default=["random", "moderate"], type=variant,
                          metavar="METHOD", help=f"any of {', '.join(METHODS)}; with options of selection.py "
                          "as NAME:option=value:..., such as aum:keep=middle or moderate:per_class")
    compared.add_argument("--rates", nargs="+", default=[0.2], type=options.rate, metavar="RATE",
                          help="fractions of the images to keep")
    compared.add_argument("--seeds", nargs="+", default=[1, 2, 3, 4, 5], type=options.seed_number,
                          metavar="SEED", help="each has its own base network")
    compared.add_argument("--equal", default="epochs", choices=("epochs", "steps"), help="epochs: a coreset "
                          "run has --epoch epochs (in the paper those of a base run); steps: it has as many "
                          "steps as a base run")
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, type=Path, help="folder of the results")
    output.add_argument("--jobs", default=1, type=options.positive, help="number of parallel runs, each on "
                        "its part of the CPU's cores")
    output.add_argument("--devices", nargs="+", default=[], type=options.Number(0, whole=True), metavar="N",
                        help="numbers of GPUs or NPUs; each does one run at a time, instead of --jobs")
    output.add_argument("--dry_run", action="store_true", help="only print the commands")
    output.add_argument("--paper", action="store_true", help="add the published figures to table.md")
    args = parser.parse_args(argv)
    for name in ("methods", "rates", "seeds", "devices"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    args.base_epoch = args.base_epoch or args.epoch
    args.base_arch = args.base_arch or args.arch
    args.dataset, args.data = args.dataset or options.DATASET, args.data or options.DATA
    args.lr = args.lr or SOURCES[args.dataset].recipe.start(args.batch_size)
    return args


@dataclass(frozen=True)
class Run:
    """A base run (method WHOLE, rate 1), or a selection and its coreset run."""
    method: str
    rate: float
    seed: int
    equal: str
    commands: tuple[tuple[str, ...], ...]  # scripts with their options, in order
    folder: Path  # that of the base run, or the parent of the coreset run's
    index: Path | None = None  # of the coreset; None for a base run
    base: "Run | None" = None
    needs: tuple[str, ...] = ()  # files of the base run

    @property
    def key(self) -> tuple[str, float, int, str]:
        return self.method, self.rate, self.seed, self.equal

    def __str__(self) -> str:
        return f"{self.method} {self.rate:g}, seed {self.seed}, equal {self.equal}"


def main(argv: list[str] | None = None) -> None:
    args = parse_options(argv)
    data = open_dataset(args.dataset, args.data, args.image_size, args.classes, args.name)
    check_image_size(args.arch, data.image_size)
    check_image_size(args.base_arch, data.image_size, "--base_arch")
    runs, settings = plan(args, len(data.train.labels)), check_settings(args, data.images_sha256)
    title = (f"# {data.name}: {len(data.train.labels)} images of {len(data.classes)} classes, "
             f"{data.image_size}x{data.image_size} pixels\n\nBase runs: {args.base_arch}. "
             f"Coreset runs: {args.arch}. Batches of {args.batch_size}.\n\n")
    paper = published_figures(data, args.dataset) if args.paper else []
    del data  # the runs need the memory
    if args.dry_run:
        for run in runs:
            print(*(shlex.join(["python", *command]) for command in run.commands), sep="\n")
        return
    with locked(args.out):
        failures = execute(runs, args, settings)
        write_results(args, title, paper, failures)
    print((args.out / "table.md").read_text(encoding="utf8"))
    for run, error in failures.items():
        print(f"compare.py: failed: {run}: {error}", file=sys.stderr)
    sys.exit(1 if failures else 0)


def published_figures(data: DataSet, dataset: str) -> list[list[str]]:
    """The published table for a data set, with its share of perturbed images; a warning if there is none."""
    perturbed = 0.0 if data.perturbed is None else float(data.perturbed.mean())
    table = published_rows(ROOT / "imgs/published.csv", dataset, perturbed)
    if not table:
        options.warn(f"--paper: imgs/published.csv has no figures of {data.name} with {100 * perturbed:.0f} "
                     "% of the images changed")
    return table


def write_results(args: argparse.Namespace, title: str, paper: list[list[str]], failures: dict[Run, str]
                  ) -> None:
    """Write table.md, table.csv and the figures."""
    rows = in_order(read_runs(args.out / "runs.csv"))
    failed = [{"method": run.method, "rate": f"{run.rate:g}", "seed": str(run.seed), "equal": run.equal,
               "failed": error} for run, error in failures.items()]
    with replacing(args.out / "table.md") as temporary:
        temporary.write_text(title + tables(rows, args.base_arch, paper, failed), encoding="utf8")
    write_csv(args.out / "table.csv", summary(rows), SUMMARY)
    if any(row["method"] != WHOLE for row in rows):
        draw(args.out, rows, args.name or args.dataset, args.base_arch)


def draw(out: Path, rows: list[Row], name: str, base_arch: str) -> None:
    """Write the figures; a warning if matplotlib is not installed."""
    try:
        from comparison import charts
    except ImportError as error:
        options.warn(f"no figures: {error}; install it by python -m pip install matplotlib")
        return
    charts.save_figure(charts.draw_plot(rows, name, base_arch), out / "plot")
    if drawn := charts.draw_intervals({name: rows}):
        charts.save_figure(drawn[0], out / "intervals")


def plan(args: argparse.Namespace, n: int) -> list[Run]:
    """All runs on n training images: for each seed the base run, then its coreset runs."""
    selections, runs = choose_selections(args.methods, args.rates, n), []
    for seed in args.seeds:
        folder = args.out / f"seed-{seed}"
        check = [f"--{name}" for name in ("check", "skip_damaged") if getattr(args, name)]
        command = train_command(args, seed, args.base_arch, args.base_epoch, folder, *check)
        runs.append(Run(WHOLE, 1.0, seed, "epochs", (command,),
                        folder / (args.name or args.dataset) / args.base_arch))
        runs += [coreset_run(args, runs[-1], folder, method, selection, n)
                 for method, selection in selections]
    return runs


def train_command(args: argparse.Namespace, seed: int, arch: str, epochs: int, folder: Path, *more: str
                  ) -> tuple[str, ...]:
    return ("train.py", *data_options(args), "--seed", str(seed), "--arch", arch, "--epoch", str(epochs),
            "--batch_size", str(args.batch_size), "--lr", repr(args.lr), "--amp_level", args.amp_level,
            "--model_dir", str(folder), "--resume", *more)


def coreset_run(args: argparse.Namespace, base: Run, folder: Path, method: str, selection: Selection, n: int
                ) -> Run:
    """A selection of n images by a base run, whose --model_dir is `folder`, and the training on it."""
    name, rate, seed, epochs = args.name or args.dataset, f"{selection.rate:g}", base.seed, args.epoch
    if args.equal == "steps":
        folder /= "equal-steps"
        base_steps, coreset_steps = (math.ceil(images / args.batch_size) for images in (n, selection.size(n)))
        epochs = round(args.base_epoch * base_steps / coreset_steps)
    save = args.out / "index" / f"seed-{seed}" / f"rate-{rate}"
    index = save / selection.index_name(name)
    select = ("selection.py", *data_options(args), "--seed", str(seed), "--ckpt",
              str(base.folder / "best.pth"), *selection_options(method), "--rate", rate, "--save", str(save))
    train = train_command(args, seed, args.arch, epochs, folder, "--prune", str(index))
    needs = ("best.pth", "dynamics.npy") if "dynamics" in selection.needs else ("best.pth",)
    return Run(method, selection.rate, seed, args.equal, (select, train), folder / name / args.arch, index,
               base, needs)


def check_settings(args: argparse.Namespace, images_sha256: str) -> dict[str, object]:
    """The settings that all runs of the folder share; BadInput if earlier runs had other ones."""
    path = args.out / "settings.json"
    settings = {**{name: getattr(args, name) for name in FIXED}, "keep_scale": "difficulty"}
    earlier = read_json(path, "choose another --out")
    if earlier and "keep_scale" not in earlier:
        raise BadInput(f"--out {args.out}: its rules count the score, not the difficulty; choose another "
                       "--out")
    if not earlier and (args.out / "runs.csv").exists():
        raise BadInput(f"{path}: missing, so the settings of the runs in runs.csv are not known; restore it "
                       "or choose another --out")
    for name, value in settings.items():
        if earlier and earlier.get(name, False) != value:  # earlier versions had no skip_damaged
            raise BadInput(f"--{name}: {value}, but {earlier.get(name)} in {path}; pass that or choose "
                           "another --out")
    if earlier and earlier.get("images_sha256") != images_sha256:
        raise BadInput(f"--data {args.data}: other images or labels of {args.dataset} than those of {path}; "
                       "pass these, or choose another --out")
    return {**settings, "images_sha256": images_sha256}


def execute(runs: list[Run], args: argparse.Namespace, settings: dict[str, object]) -> dict[Run, str]:
    """Do the runs that are not in runs.csv yet; return the errors of those that failed."""
    path = args.out / "runs.csv"
    rows = read_runs(path)
    left = runs_left(runs, rows, path)
    jobs, lock = Jobs(args.jobs, list(map(str, args.devices))), threading.Lock()
    # Base runs begin as many seeds early as there are threads, so that few coreset runs wait for one.
    left.sort(key=lambda run: args.seeds.index(run.seed) - jobs.threads * (run.index is None))
    futures: dict[Run | None, Future[None]] = {}
    # One selection by a base run at a time: the first writes the features that the others read.
    selecting = {seed: threading.Lock() for seed in args.seeds}

    def do(run: Run, base: Future[None] | None) -> None:
        if base and base.exception():
            raise ChildProcessError("its base run failed")
        run_commands(run, jobs, args.out / "output", selecting[run.seed])
        with lock:
            if not rows:  # a comparison without a finished run keeps no settings
                write_json(args.out / "settings.json", settings)
            rows.append(describe(run))
            write_csv(path, rows, COLUMNS)

    failures = {}
    with jobs, ProgressBar("runs", len(runs), "run", len(runs) - len(left)) as bar:
        try:
            for run in left:  # in this order no thread waits for a base run that has not begun
                futures[run] = jobs.submit(do, run, futures.get(run.base))
                futures[run].add_done_callback(lambda _: bar.update())
            for run in left:
                try:
                    futures[run].result()
                except (BadInput, OSError) as error:  # the other runs can still succeed
                    failures[run] = str(error)
        except KeyboardInterrupt:
            jobs.stop()
            raise KeyboardInterrupt("to resume, repeat the command") from None
    return failures


def runs_left(runs: list[Run], rows: list[Row], path: Path) -> list[Run]:
    """The runs without a row, and base runs whose files they need and do not find; these lose their row."""
    done = {(row["method"], float(row["rate"]), int(row["seed"]), row["equal"]) for row in rows}
    left = [run for run in runs if run.key not in done]
    for base in [run for run in runs if not run.index and run.key in done]:
        needed = {name for run in left if run.base == base for name in run.needs}
        if missing := sorted(name for name in needed if not (base.folder / name).exists()):
            print(f"{base.folder / missing[0]}: missing, so the base run of seed {base.seed} is run again")
            rows[:] = [row for row in rows if (row["method"], int(row["seed"])) != (WHOLE, base.seed)]
            write_csv(path, rows, COLUMNS)
            (base.folder / "last.pth").unlink(missing_ok=True)  # otherwise it would be resumed as finished
            left.append(base)
    return left


def run_commands(run: Run, jobs: Jobs, folder: Path, selecting: threading.Lock) -> None:
    """Run the commands of a run, with output to a file in `folder`; ChildProcessError if one fails."""
    output = folder / f"{run.method}-{run.rate:g}-seed-{run.seed}-{run.equal}.log"
    output.parent.mkdir(exist_ok=True)
    for command in run.commands:
        with selecting if command[0] == "selection.py" else nullcontext():
            print(shlex.join(["python", *command]) + "\n", end="", flush=True)  # one write: threads print too
            status = jobs.run([sys.executable, str(ROOT / command[0]), *command[1:]], output)
        if status:
            lines = output.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise ChildProcessError(lines[-1] if status > 0 else f"ended by signal {-status}")


def in_order(rows: list[Row]) -> list[Row]:
    """Rows of runs.csv sorted by method, in the order of METHODS, rate and seed."""
    order = {name: position for position, name in enumerate((WHOLE, *METHODS))}
    return sorted(rows, key=lambda row: (order.get(row["method"].partition(":")[0], len(order)),
                                         row["method"], float(row["rate"]), int(row["seed"])))


def describe(run: Run) -> Row:
    """The row of runs.csv for a finished run."""
    folder, manifest = run.folder, {}
    if run.index:
        manifest = read_manifest(run.index)
        folder /= coreset_name(run.index, manifest, 0)
    described = read_args(folder)
    log = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    last = log[-1]
    steps = len(log) * math.ceil(described["images"] / described["batch_size"])
    seconds = sum(float(row[name]) for row in log for name in ("train_seconds", "test_seconds"))
    return {"method": run.method, "rate": f"{run.rate:g}", "seed": str(run.seed),
            "images": str(described["images"]), "epochs": str(len(log)), "steps": str(steps),
            "equal": run.equal, "train_accuracy": last["train_acc"],
            "best_accuracy": f"{max(float(row['test_acc']) for row in log):.6g}",
            "last_accuracy": last["test_acc"],
            "worst_class_accuracy": last.get("test_worst_class_acc", ""),
            "worst_tenth_accuracy": last.get("test_worst_tenth_acc", ""),
            "kept_perturbed_percent": str(manifest.get("kept_perturbed_percent", "")),
            "fitted_wrong_labels_percent": str(described.get("fitted_wrong_labels_percent", "")),
            "seconds": f"{seconds:.1f}",
            "cpu": cpu_model() if described["device"] == "CPU" else described["device"],
            "command": " && ".join(shlex.join(["python", *command]) for command in run.commands),
            "versions": " ".join(f"{name} {version}" for name, version in versions().items()),
            "index_sha256": sha256(run.index) if run.index else "",
            "checkpoint_sha256": sha256(folder / "last.pth")}


def cpu_model() -> str:
    """The name of the CPU on Linux, otherwise of its architecture."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)", info.read_text() if info.exists() else "", re.MULTILINE)
    return model[1] if model else platform.machine()


if __name__ == "__main__":
    options.run_script(main)
