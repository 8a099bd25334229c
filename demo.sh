#!/usr/bin/env bash
# Train, select 20 %, train again on the moderate coreset and on a random one: a few minutes on two cores.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"
source utils/environment.sh
environment requirements.txt

options=(--dataset toy --arch resnet20 --batch_size 32 --model_dir demo/ckpt)
whole=(--epoch 15 --eval_freq 5)
coreset=(--epoch 40 --eval_freq 10)  # of a fifth of the images: about half as many steps
run=demo/ckpt/toy/resnet20
rm -rf demo
"$PYTHON" train.py "${options[@]}" "${whole[@]}"
"$PYTHON" selection.py --dataset toy --ckpt $run/best.pth --rate 0.2 --save demo/index
"$PYTHON" selection.py --dataset toy --method random --rate 0.2 --save demo/index
"$PYTHON" train.py "${options[@]}" "${coreset[@]}" --prune demo/index/toy.bin
"$PYTHON" train.py "${options[@]}" "${coreset[@]}" --prune demo/index/toy-random.bin

"$PYTHON" - $run <<'TABLE'
import csv, json, pathlib, sys
run = pathlib.Path(sys.argv[1])
print(f"\n{'training images':20}{'number':>8}{'epochs':>8}{'steps':>8}{'accuracy %':>12}{'seconds':>9}")
for title, folder in (("whole", "."), ("moderate coreset", "coreset-moderate-0.2"),
                      ("random coreset", "coreset-random-0.2")):
    rows = list(csv.DictReader(open(run / folder / "log.csv")))
    accuracy = max(float(row["test_acc"]) for row in rows if row["test_acc"])
    seconds = sum(float(row["train_seconds"]) for row in rows)
    args = json.load(open(run / folder / "args.json"))
    steps = len(rows) * -(-args["images"] // args["batch_size"])
    print(f"{title:20}{args['images']:8}{len(rows):8}{steps:8}{accuracy:12.2f}{seconds:9.1f}")
TABLE
echo "the selection as a picture: demo/index/toy.png"
