#!/usr/bin/env bash
# Regroup Tiny ImageNet's val/ by class, as its train/ is: val/<wnid>/*.JPEG.
#   bash convert-tiny.sh [FOLDER]       default: data/tiny-imagenet-200 beside this script
# May be stopped and run again. Never overwrites an image; test/ stays as it is.
set -euo pipefail
folder=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/data/tiny-imagenet-200}
val=$folder/val
table=$val/val_annotations.txt

fail() { echo "convert-tiny.sh: error: $1" >&2; exit 2; }
[ -d "$folder/train" ] || fail "$folder/train: missing; download http://cs231n.stanford.edu/tiny-imagenet-200.zip \
and unpack it there, or name the folder"
[ -f "$table" ] || fail "$table: missing; unpack tiny-imagenet-200.zip again"

# One pass over the table: sane names only, so that no line can lead out of val/.
bad=$(awk -F'\t' '$1 !~ /^[A-Za-z0-9_]+\.JPEG$/ || $2 !~ /^n[0-9]+\r?$/ { print NR; exit }' "$table")
[ -z "$bad" ] || fail "$table: line $bad is not an image name, a tab and a class; unpack tiny-imagenet-200.zip again"

# One mv a class, not one an image.
while IFS= read -r wnid; do
    [ ! -L "$val/$wnid" ] || fail "$val/$wnid: a link, not a folder; remove it"
    mkdir -p "$val/$wnid"
    awk -F'\t' -v class="$wnid" -v val="$val" '{ sub(/\r$/, "", $2) } $2 == class { print val "/images/" $1 }' "$table" |
        while IFS= read -r image; do
            if [ -e "$image" ] && [ ! -e "$val/$wnid/${image##*/}" ]; then printf '%s\0' "$image"; fi
        done | xargs -0 -r mv -n -t "$val/$wnid" --
done < <(awk -F'\t' '{ sub(/\r$/, "", $2); print $2 }' "$table" | sort -u)
if [ -d "$val/images" ]; then rmdir --ignore-fail-on-non-empty "$val/images"; fi

awk -F'\t' -v val="$val" '{ sub(/\r$/, "", $2); print val "/" $2 "/" $1 }' "$table" | {
    images=0 missing=0
    while IFS= read -r image; do
        if [ -f "$image" ]; then images=$((images + 1)); else missing=$((missing + 1)); echo "missing: $image" >&2; fi
    done
    classes=$(find "$val" -mindepth 1 -maxdepth 1 -type d -name 'n*' | wc -l)
    left=0
    if [ -d "$val/images" ]; then left=$(find "$val/images" -type f | wc -l); fi
    echo "$val: $classes classes, $images images, $missing missing, $left left in val/images"
    [ "$missing" = 0 ] && [ "$left" = 0 ]
} || exit 1
