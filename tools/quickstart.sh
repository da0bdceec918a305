#!/usr/bin/env bash
# The main job from nothing: draws street scenes, prepares them, trains a small network for some minutes,
# labels the validation scenes and scores the labels; then the same with the checkpoint that is shipped.
# Everything lands in runs/quickstart; what is finished is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

SHIPPED=checkpoints/street_scenes_256x512.safetensors
CONFIG=configs/debug/street_scenes_quick.yaml
OUT=runs/quickstart
DATA=$OUT/data
IMAGES=$DATA/leftImg8bit/val
TRUTH=$DATA/gtFine/cityscapes_panoptic_val.json

SECONDS=0
WORKERS=$(nproc)

heading() {
    printf '\n== %s  [%d:%02d]\n' "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

run() {
    "$VENV/bin/python" "$@"
}

# label_and_score NAME WEIGHTS: predictions/ and evaluation.json under $OUT/NAME.
label_and_score() {
    heading "Labelling the validation scenes: $1"
    run pipelines/predict.py --weights "$2" --images "$IMAGES" --image-ids "$TRUTH" \
        --output "$OUT/$1/predictions" --overlays
    heading "Scoring: $1"
    run pipelines/evaluate.py --ground-truth "$TRUTH" --predictions "$OUT/$1/predictions" \
        --output "$OUT/$1" --workers "$WORKERS"
}

heading "Installing"
install_package

heading "Drawing street scenes"
run -m seamless_pr.street_scenes.dataset --root "$DATA" --size 256x512 \
    --train 400 --val 60 --workers "$WORKERS"

heading "Preparing them: Cityscapes files to COCO panoptic"
run pipelines/prepare.py cityscapes --root "$DATA" --workers "$WORKERS"

heading "Training a small network from scratch"
# 1.7 times as many images where the processor computes in bf16; very slow where it does not.
AMP=none
if grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then AMP=bf16; fi
run pipelines/train.py --config "$CONFIG" --output "$OUT/trained" training.amp=$AMP

label_and_score trained "$OUT/trained/weights.safetensors"
label_and_score shipped "$SHIPPED"

heading "Results on validation scenes that neither training saw"
run tools/measure/results_table.py "trained here, a few minutes=$OUT/trained/evaluation.json" \
    "shipped checkpoint=$OUT/shipped/evaluation.json" | tee "$OUT/results.md"
printf '\nPictures: %s\n          %s\nTable:    %s\n' "$OUT/trained/predictions/overlays" \
    "$OUT/shipped/predictions/overlays" "$OUT/results.md"
