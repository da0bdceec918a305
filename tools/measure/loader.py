"""How many images a second one core loads for training, against reading image and labels alone.

    python tools/measure/loader.py --root R --images 24 --output docs/results/loader.json

The data are drawn street scenes of 1024x2048 in the layout of Cityscapes, converted before
(`python -m seamless_pr.street_scenes.dataset --root R --train 24 --size 1024x2048`, then
`python pipelines/prepare.py cityscapes --root R --splits train`). Times are processor times of one
thread, so that other programs on the machine disturb them little; each image is taken `--rounds`
times, and the median over the rounds counts. The conversion to COCO panoptic files is timed too.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import torch

from seamless_pr.datasets.cityscapes import open_cityscapes
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.image_files import list_image_files
from seamless_pr.datasets.images import read_image
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.datasets.loader import PanopticImages
from seamless_pr.datasets.transforms import TrainTransform
from seamless_pr.files import write_json
from seamless_pr.id_maps.id_png_files import read_id_png

SHORTEST_SIDE = 1024
SCALE_RANGE = (0.5, 2.0)
CITYSCAPES_TRAIN_IMAGES = 2975
CORES = 2
# As in the recipes of PointRend for Cityscapes: a crop of the scaled image.
CROP = (512, 1024)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with gtFine/")
    parser.add_argument("--images", type=int, default=24, help="how many images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    images_dir = options.root / "leftImg8bit" / "train"
    json_path = options.root / "gtFine" / "cityscapes_panoptic_train.json"
    space = load_label_space("cityscapes")

    def loader(crop: tuple[int, int] | None) -> PanopticImages:
        transform = TrainTransform(
            SHORTEST_SIDE, scale_range=SCALE_RANGE, flip_probability=0.5, crop_size_pixels=crop
        )
        return PanopticImages.from_files(json_path, images_dir, space, transform)

    whole, cropped = loader(None), loader(CROP)
    count = min(options.images, len(whole))
    files = list_image_files(images_dir)[:count]
    pngs = sorted(json_path.with_suffix("").glob("*.png"))[:count]

    def decode(index: int, _: int) -> None:
        read_image(files[index])
        read_id_png(pngs[index])

    tasks: dict[str, Callable[[int, int], Any]] = {
        "decode": decode,
        "train": lambda index, turn: whole[index, turn],
        "train_cropped": lambda index, turn: cropped[index, turn],
    }
    rates = {name: _rate(task, count, options.rounds) for name, task in tasks.items()}
    conversion = _conversion_rate(options.root)
    result = {
        "machine": {"processor": _processor(), "torch": torch.__version__},
        "images": {"count": count, "size": "1024x2048", "rounds": options.rounds},
        "setting": {"shortest_side": SHORTEST_SIDE, "scale_range": SCALE_RANGE, "crop": CROP},
        "images_per_second_per_core": rates,
        "share_of_decode": {name: rates[name] / rates["decode"] for name in rates},
        "conversion": {
            "images_per_second_per_core": conversion,
            "minutes_for_cityscapes_train_on_2_cores": CITYSCAPES_TRAIN_IMAGES
            / (CORES * conversion)
            / 60,
        },
    }
    write_json(options.output, result)
    for name, rate in rates.items():
        print(f"{name:>14}: {rate:6.2f} images/s per core, {rate / rates['decode']:.2f} of decode")
    print(f"    conversion: {conversion:6.2f} images/s per core")


def _rate(task: Callable[[int, int], Any], count: int, rounds: int) -> float:
    """Images per second of processor time; the median over the rounds."""
    task(0, 0)
    seconds = []
    for turn in range(rounds):
        start = time.process_time()
        for index in range(count):
            task(index, turn)
        seconds.append(time.process_time() - start)
    return count / median(seconds)


def _conversion_rate(root: Path) -> float:
    """Of the whole conversion in one process, with the checks of the pictures."""
    split = open_cityscapes(root, "train")
    with tempfile.TemporaryDirectory() as folder:
        # The first image compiles what is compiled.
        convert_split(split, Path(folder) / "first", num_workers=0, show_progress=False)
        start = time.process_time()
        convert_split(split, Path(folder) / "timed", num_workers=0, show_progress=False)
        seconds = time.process_time() - start
    return len(split.images) / seconds


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
