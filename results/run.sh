#!/usr/bin/env bash
# The comparisons of docs/results.md, in the order in which they are most useful. May be stopped and started
# again: finished runs are not run again, unfinished ones are resumed.
set -uo pipefail
trap 'exit 130' INT  # compare.py ends by itself after Ctrl-C, and the next one would begin
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source utils/environment.sh
environment requirements.txt || exit
# A finished record has the SHA-256 of the images. Data of other settings are refused by compare.py.
finished() { grep -qs images_sha256 "$1"; }
finished data/noisy/cifar.json || "$PYTHON" robust/noisy-cifar.py --classes 20
mkdir -p data/all && ln -sfn ../cifar-100-python data/all/cifar-100-python  # wrong labels in all 100 classes
finished data/all/noisy/cifar.json || "$PYTHON" robust/noisy-cifar.py --data data/all
finished data/cifar-100-corrupt/corrupt.json || "$PYTHON" robust/corrupt-cifar.py --rate 0.04

first="random moderate herding ccs"
others="el2n grand dyn-unc"
again="gm dual forgetting"

common="--image_size 16 --batch_size 64 --epoch 100 --device CPU --jobs 2 --rates 0.2 --paper"

compare() {  # a data set, then what differs; of an option given twice the last one counts
    "$PYTHON" compare.py --dataset "$1" --out "results/$1" --classes 20 --arch resnet6 --base_epoch 30 \
        $common "${@:2}"
}

all_classes() {  # the same of all 100 classes
    "$PYTHON" compare.py --dataset "$1" --data data/all --out "results/$1-all" --base_arch resnet20 \
        --base_epoch 40 --arch resnet7 $common "${@:2}"
}

lists() {  # what in results/ has the base runs, their network, the lists' folder, then what differs
    "$PYTHON" -m comparison.lists --dataset "${1%-all}" --data data/all --out "$3" "${@:4}" \
        --ckpt results/"$1"/seed-*/"${1%-all}/$2"/best.pth
}

compare CIFAR100N --methods $first --seeds 1 2 3 4 5                                             # A
compare CIFAR100 --methods $first --seeds 1 2 3 4 5                                              # B
compare CIFAR100N --methods random moderate ccs --seeds 1 2 3 --equal steps                      # C
compare CIFAR100 --methods random moderate ccs --seeds 1 2 3 --equal steps                       # C
compare CIFAR100C --methods $first --seeds 1 2 3                                                 # D
compare CIFAR100N --methods $again --seeds 1 2 3 4 5                                             # E
compare CIFAR100 --methods $again --seeds 1 2 3 4 5                                              # E
compare CIFAR100C --methods $again --seeds 1 2 3                                                 # E
compare CIFAR100N --methods $others --seeds 1 2 3                                                # E
compare CIFAR100 --methods $others --seeds 1 2 3                                                 # E
compare CIFAR100N --methods $first --rates 0.3 --seeds 1 2 3 4                                   # E

# G: where is the best interval of a score, and does a rule find it by itself?
together=":per_class=False"  # all classes in one order
intervals="aum:keep=middle$together aum:keep=0.9$together aum:keep=0.7$together aum:keep=0.4$together
    aum$together aum:keep=0.2$together aum:keep=0.1$together
    moderate:keep=0.1 moderate:keep=0.3 moderate:keep=0.7 moderate:keep=0.9"
by_itself="aum:keep=best$together forgetting:keep=best aum:keep=middle$together:hard_cutoff=0.2
    moderate:hard_cutoff=0.2"
# F: the middle of other methods' scores (the paper's Figure 4), beside their own rules
middle="aum:keep=hardest$together entropy entropy:keep=middle el2n:keep=middle forgetting:keep=middle
    grand:keep=middle
    dyn-unc:keep=middle"
# H: other parts of the distance (Figure 3); each class on its own
parts="moderate:keep=hardest moderate:keep=ends moderate:per_class herding:per_class aum:keep=middle
    dual:per_class ccs:per_class"
# I: a better network selects
better="random moderate aum:keep=middle$together gm ccs"
scenes="CIFAR100N CIFAR100 CIFAR100C"
medians="random moderate aum:keep=middle$together"
scores="moderate herding selfsup forgetting d2 el2n aum ccs dual dyn-unc grand entropy least-confidence"
for data in $scenes; do
    compare $data --methods aum:keep=middle$together aum$together --seeds 1 2 3 4 5          # G
done
compare CIFAR100C --methods random moderate dual --seeds 4 5                                     # D, E
compare CIFAR100N --methods selfsup forgetting:never_learned=max --seeds 1 2 3                  # E
compare CIFAR100 --methods selfsup forgetting:never_learned=max --seeds 1 2 3                   # E

both="CIFAR100N CIFAR100"
for data in $both; do
    compare $data --methods random d2 kcenter least-confidence --seeds 1                         # P
done
for data in $both; do compare $data --methods random aum --seeds 1 2 3; done                    # K
# L: the score from the first epochs of the base run, and from shorter base runs
for data in $both; do
    compare $data --seeds 1 --methods random aum:first_epochs=5 aum:first_epochs=10 aum:first_epochs=15 \
        aum:first_epochs=20 dual:first_epochs=5 dual:first_epochs=10 dual:first_epochs=15 dual:first_epochs=20
    for epochs in 5 10 15; do
        compare $data --out results/$data-base-$epochs --base_epoch $epochs --methods random aum dual --seeds 1
    done
done
# K: which window at which rate; windows that would stick out are the same one and are left out
windows() {
    case $1 in
        0.7) echo aum aum:keep=0.4 aum:keep=middle ;;
        0.5) echo aum:keep=0.2 aum aum:keep=0.4 aum:keep=middle ;;
        *) echo aum:keep=0.1 aum:keep=0.2 aum aum:keep=0.4 aum:keep=middle ;;
    esac
}
rates() {  # seeds
    for data in $both; do
        compare $data --methods $(windows 0.2) --seeds "$@"
        for rate in 0.5 0.1 0.3 0.7; do
            compare $data --rates $rate --methods random moderate $(windows $rate) dual ccs gm --seeds "$@"
        done
    done
}
whole() {  # a data set, its folder, results' folder, epochs, seed, then other options: train on the whole set
    local folder="results/$3/epochs-$4/seed-$5"
    [ "$(cat "$folder/$1"/*/log.csv 2> /dev/null | grep -c ^)" = $(($4 + 1)) ] ||
        "$PYTHON" train.py --dataset "$1" --data "$2" --image_size 16 --batch_size 64 --epoch "$4" --seed "$5" \
            --device CPU --dynamics False --model_dir "$folder" --resume "${@:6}"
}
whole_sets() {  # seeds: as many steps as coreset runs of 50 and 70 % (30 %: the base runs), and as many epochs
    for seed in "$@"; do for data in $both; do for epochs in 50 70 100; do
        whole $data data whole-set $epochs $seed --classes 20 --arch resnet6
    done; done; done
}
rates 1
whole_sets 1

# N: another data set, every tenth class of Tiny ImageNet, 200 images of each; as many steps as with CIFAR-100
tiny=data/tiny-part/tiny-imagenet-200
if [ ! -d $tiny ]; then
    for class in n01443537 n01784675 n02002724 n02123045 n02231487 n02410509 n02669723 n02814533 n02909870 \
        n03026506 n03255030 n03584254 n03770439 n03937543 n04070727 n04259630 n04398044 n04532670 n07615774 \
        n07871810
    do
        mkdir -p $tiny/train/$class $tiny/val
        ln -s "$PWD"/data/tiny-imagenet-200/train/$class/images/${class}_{?,??,1??}.JPEG $tiny/train/$class
        ln -s "$PWD/data/tiny-imagenet-200/val/$class" $tiny/val  # there after convert-tiny.sh
    done
    cp data/tiny-imagenet-200/words.txt $tiny
fi
finished data/tiny-part/noisy/tiny.json || "$PYTHON" robust/noisy-tiny.py --data data/tiny-part
for data in tinyN tiny; do
    compare $data --data $tiny --base_epoch 75 --epoch 250 --seeds 1 2 3 \
        --methods random moderate aum aum:keep=middle dual gm
done

# O: the rest of 100 classes
all_classes CIFAR100N --methods random moderate aum aum:per_class=False --seeds 3
for data in $both; do all_classes $data --methods aum --seeds 2 3; done
for data in $both; do all_classes $data --methods gm ccs dual --seeds 1; done
for data in $both; do whole $data data/all whole-set-all 20 1 --arch resnet7; done  # steps of a coreset run

rates 1 2 3
whole_sets 1 2 3

for seeds in "1" "1 2" "1 2 3"; do  # every question is asked once before any is asked twice
    for methods in "$intervals" "$by_itself"; do
        for data in $scenes; do compare $data --methods $methods --seeds $seeds; done            # G
    done
    for data in $scenes; do compare $data --methods $others $middle --seeds $seeds; done         # F
    for data in CIFAR100N CIFAR100; do
        compare $data --out results/$data-resnet20 --base_arch resnet20 --base_epoch 40 \
            --methods $better --seeds $seeds                                                     # I
    done
    # R: base runs of 150 epochs fit their wrong labels, as the paper's probably do
    compare CIFAR100N --out results/CIFAR100N-150 --base_epoch 150 --seeds $seeds --methods random \
        moderate herding forgetting forgetting:never_learned=max el2n grand aum:keep=middle$together gm ccs \
        dual aum$together aum:keep=middle$together:hard_cutoff=0.2 dyn-unc
    for data in CIFAR100N CIFAR100; do compare $data --methods $parts --seeds $seeds; done       # H
    # J: attacked images, of 32x32 pixels, by a network that has finished its 30 epochs
    network=results/attack/CIFAR100/resnet6
    [ "$(grep -cs ^ $network/log.csv)" = 31 ] || "$PYTHON" train.py --dataset CIFAR100 --data data --classes 20 \
        --arch resnet6 --batch_size 64 --epoch 30 --device CPU --model_dir results/attack --resume
    finished data/attack/cifar.json || "$PYTHON" robust/attack-cifar.py --classes 20 --ckpt $network/best.pth
    compare CIFAR100A --image_size 32 --methods random moderate aum:keep=middle$together ccs --seeds $seeds
    for methods in "$medians" "aum$together aum gm ccs dual"; do
        for data in CIFAR100N CIFAR100; do all_classes $data --methods $methods --seeds $seeds; done
    done
done
for data in CIFAR100N CIFAR100; do
    all_classes $data --rates 0.4 --methods $medians --seeds 1 2 3
    lists $data resnet6 results/$data/lists --data data --methods $scores --rates 0.2
done
lists CIFAR100-all resnet20 results/lists/CIFAR100 --methods $scores random gm kcenter \
    aum:keep=middle$together aum$together aum
