#!/usr/bin/env bash
# Train on 3,000 letters, 20 % of which carry wrong labels; select a fifth by three methods; train on each.
#   bash demo.sh [SEED]     3 to 12 minutes on two cores; writes to demo/
set -euo pipefail
[[ ${1:-42} =~ ^[0-9]+$ ]] || { echo "demo.sh: error: seed $1: not a whole number from 0 on" >&2; exit 2; }
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"
source utils/environment.sh
environment requirements.txt

best=aum  # the method that README recommends
options=(--dataset toy --arch resnet6 --batch_size 32 --model_dir demo/ckpt --seed "${1:-42}")
whole=(--epoch 20 --eval_freq 10)
coreset=(--epoch 120 --eval_freq 40)  # enough to fit the wrong labels, too
run=demo/ckpt/toy/resnet6
rm -rf demo
"$PYTHON" train.py "${options[@]}" "${whole[@]}"
for method in random moderate $best; do
    "$PYTHON" selection.py --dataset toy --ckpt $run/best.pth --method $method --rate 0.2 \
        --save demo/index/$method --seed "${1:-42}"
    "$PYTHON" train.py "${options[@]}" "${coreset[@]}" --prune demo/index/$method/*.bin
done

"$PYTHON" - $run $best <<'TABLE'
import csv, json, pathlib, sys
run, best = pathlib.Path(sys.argv[1]), sys.argv[2]
print(f"\n{'images':12}{'number':>8}{'wrong labels %':>16}{'epochs':>8}{'steps':>7}"
      f"{'accuracy %':>12}{'seconds':>9}")
folders = {"whole set": run}
folders |= {name: next(run.glob(f"coreset-{name}-*")) for name in ("random", "moderate", best)}
known = {name: json.load(open(folder / "args.json")) for name, folder in folders.items()}
for name, folder in folders.items():
    rows, args = list(csv.DictReader(open(folder / "log.csv"))), known[name]
    index = args["index"] or {"kept_perturbed_percent": known[best]["index"]["perturbed_percent"]}
    steps = len(rows) * -(-args["images"] // args["batch_size"])
    seconds = sum(float(row["train_seconds"]) for row in rows)
    print(f"{name:12}{args['images']:8}{index['kept_perturbed_percent']:16.1f}{len(rows):8}{steps:7}"
          f"{float(rows[-1]['test_acc']):12.2f}{seconds:9.1f}")
TABLE
echo "
Accuracy is that of the last epoch, on letters with right labels. A random fifth holds as many wrong labels as
the whole set, and a network that is trained long enough fits them. The images in the middle of the distances
to their class centers have right labels: see demo/index/moderate/toy.png, where the farthest letters are
others than their labels say."
