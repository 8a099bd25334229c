#!/usr/bin/env bash
# Regroup Tiny ImageNet's val/ by class, as its train/ is: val/<wnid>/*.JPEG.
#   bash convert-tiny.sh [--delete-test] [FOLDER]     default: data/tiny-imagenet-200 beside this script
# May be stopped and run again. Never overwrites an image. Leaves the unlabelled test/ without --delete-test.
set -euo pipefail
unset CDPATH
fail() { echo "convert-tiny.sh: error: $1" >&2; exit 2; }

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/data/tiny-imagenet-200
delete_test=0
for argument in "$@"; do
    case $argument in
    --delete-test) delete_test=1 ;;
    -*) fail "$argument: unknown; usage: bash convert-tiny.sh [--delete-test] [FOLDER]" ;;
    *) folder=$argument ;;
    esac
done
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
export VAL=$folder/val  # in the environment: awk -v would read a backslash in it as an escape
table=$VAL/val_annotations.txt

[ -d "$folder/train" ] || fail "$folder/train: missing; \
python -m datasets.download tiny --data ${folder%/*} makes it, or name the folder"
[ -s "$table" ] || fail "$table: missing or empty; put it there"

# Sane names only, each image once, so that no line can lead out of val/.
bad=$(awk -F'\t' 'NF && ($1 !~ /^[A-Za-z0-9_]+\.JPEG$/ || $2 !~ /^n[0-9]+\r?$/ || seen[$1]++) {
                      print NR; exit }' "$table")
[ -z "$bad" ] || fail "$table: line $bad is not an image name, a tab and a class, or repeats an image; \
correct it"
pairs=$(awk -F'\t' 'NF { sub(/\r$/, "", $2); print $2, $1 }' "$table" | sort)  # class and image
for wnid in $(cut -d ' ' -f 1 <<<"$pairs" | uniq); do
    [ ! -e "$VAL/$wnid" ] || [ -d "$VAL/$wnid" ] || fail "$VAL/$wnid: a file, not a folder; move it elsewhere"
done

# One mv a class, not one an image.
move() { [ ${#waiting[@]} = 0 ] || { mkdir -p "$VAL/$1" && mv -n -- "${waiting[@]}" "$VAL/$1/"; }; }
waiting=() class=
while read -r wnid image; do
    if [ "$wnid" != "$class" ]; then
        move "$class"
        waiting=() class=$wnid
    fi
    for from in "$VAL/images/$image" "$VAL/images/$wnid/$image"; do
        if [ -f "$from" ] && [ ! -e "$VAL/$wnid/$image" ] && [ ! -e "$VAL/$wnid/images/$image" ]; then
            waiting+=("$from")
        fi
    done
done <<<"$pairs"
move "$class"
# A link, to a folder elsewhere, stays.
if [ -d "$VAL/images" ] && [ ! -L "$VAL/images" ]; then find "$VAL/images" -type d -empty -delete; fi

images=0 missing=0
while read -r wnid image; do
    if [ -f "$VAL/$wnid/$image" ] || [ -f "$VAL/$wnid/images/$image" ]; then
        images=$((images + 1))
    else
        missing=$((missing + 1))
        echo "missing: $VAL/$wnid/$image" >&2
    fi
done <<<"$pairs"
classes=$(find "$VAL/" -mindepth 1 -maxdepth 1 -type d -name 'n*' | wc -l)
left=0
if [ -d "$VAL/images" ]; then left=$(find "$VAL/images/" -type f | wc -l); fi
classes=$((classes)) left=$((left))  # without the spaces that wc of macOS begins with
echo "$VAL: $classes classes, $images images, $missing missing, $left left in val/images"
[ "$missing" = 0 ] && [ "$left" = 0 ] || exit 1
if [ "$delete_test" = 1 ] && [ -d "$folder/test" ]; then
    rm -r -- "$folder/test"
    echo "$folder/test: deleted"
fi
