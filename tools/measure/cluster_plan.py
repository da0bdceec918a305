"""What 8 x 8 GPUs would do: sizes from the real network, costs measured here, speeds assumed.

`measure_costs` takes what this machine can tell (bytes, and milliseconds of one core); `training`,
`prediction` and `evaluation` are the arithmetic from there; `plan_section` writes it down. Called
by tools/measure/benchmark_ray.py.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.runs import build_images, build_label_space
from seamless_pr.datasets.images import read_image
from seamless_pr.datasets.loader import PanopticImages
from seamless_pr.inference.folders import LabelledImage, LoadedImage
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.layers.abn import ABN
from seamless_pr.models.instances.mask_rcnn import ConvMasks
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.pipelines import prepare
from seamless_pr.pipelines.ray_stages import packed, unpacked
from seamless_pr.street_scenes.dataset import write_street_scenes
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.panoptic_target import PanopticTarget
from tools.measure.benchmark_inference import (
    CONFIG,
    NETWORK_GIGA,
    random_network,
    two_branches,
)

NODES, GPUS_PER_NODE = 8, 8
NUM_GPUS = NODES * GPUS_PER_NODE
FULL_SIZE = (1024, 2048)
# Assumed: sustained multiplications and additions a second of one GPU, in 10^12. The first is what
# 54 ms an image of Mask R-CNN R-50 on one V100 (0.26 T multiply-adds; detectron2's zoo) comes to.
GPU_TERAFLOPS = (10, 30, 60)
TYPICAL_TERAFLOPS = 30
# Assumed: network of a node, in Gbit/s, and the share of it that an all-reduce reaches.
NETWORKS = (10, 25, 100)
NETWORK_SHARE = 0.8
# Assumed: one small exchange between all GPUs.
EXCHANGE_SECONDS = 100e-6
# Of Cityscapes: 11 GB of leftImg8bit_trainvaltest.zip, 5000 images.
PHOTO_BYTES = 2.2e6
NUM_TRAIN_PHOTOS = 2975
# Assumed: a request to shared storage (stat, open, rename).
ROUND_TRIP_SECONDS = 1e-3
# 48000 steps of 8 images.
PUBLISHED_IMAGES = 384_000
# Forward, and backward to inputs and to weights.
PASSES = 3
FLOAT_BYTES, DOUBLE_BYTES = 4, 8
TIMED_ROUNDS, NUM_LOADED = 7, 24


# Measured


def norm_calls(net: TwoBranchNet) -> list[int]:
    """Channels of each norm that a training step runs, once for each time that it runs."""
    channels: list[int] = []
    handles = [
        module.register_forward_pre_hook(lambda module, _: channels.append(module.num_features))
        for module in net.modules()
        if isinstance(module, ABN)
    ]
    branch, semantics = two_branches(net)
    assert isinstance(branch.masks, ConvMasks)
    with torch.inference_mode():
        batch = ImageBatch.from_images([torch.zeros(3, 128, 128, dtype=torch.uint8)])
        levels = net.trunk(batch).levels
        branch.rpn_head(levels)
        semantics.head(levels)
        rois = torch.zeros(1, levels[0].shape[1], branch.roi.size, branch.roi.size)
        branch.box_head(rois)
        branch.masks.head(rois)
    for handle in handles:
        handle.remove()
    return channels


def measure_costs(folder: Path) -> dict[str, Any]:
    """Bytes, and milliseconds of one core, of the work around the network at 1024x2048."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    net = random_network()
    channels = norm_calls(net)
    images, files = write_full_size_scenes(folder / "full_size")
    samples = drawn_samples(images, is_training=True)
    loading = [
        seconds(partial(samples.__getitem__, (draw % len(samples), draw)), 1)
        for draw in range(NUM_LOADED)
    ]
    _, target = drawn_samples(images, is_training=False)[0]
    return {
        "num_parameters": sum(p.numel() for p in net.parameters()),
        "num_trained": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "num_buffer_values": sum(b.numel() for b in net.buffers()),
        "num_norm_calls": len(channels),
        "num_norm_channels": sum(channels),
        "scale_range": list(load_config(CONFIG).data.scale_range),
        "drawn_image_bytes": round(statistics.mean(path.stat().st_size for path in files)),
        "read_ms": milliseconds(lambda: read_image(files[0])),
        "pack_ms": packing_cost(files[0], as_prediction(target)),
        "load_ms": round(1000 * statistics.mean(loading), 2),
        **writing_costs(folder / "writing", as_prediction(target)),
    }


def write_full_size_scenes(root: Path) -> tuple[Path, list[Path]]:
    """Draws a few scenes; returns `root` and the photos in it."""
    write_street_scenes(root, num_images={"val": 4}, size=FULL_SIZE, seed=0, progress=False)
    return root, sorted(root.rglob("*_leftImg8bit.png"))


def drawn_samples(root: Path, is_training: bool) -> PanopticImages:
    """Drawn scenes as training or validation reads them."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepare.main(["cityscapes", "--root", str(root), "--splits", "val"])
    part = "train" if is_training else "val"
    overrides = [
        f"data.{part}.json={root / 'gtFine' / 'cityscapes_panoptic_val.json'}",
        f"data.{part}.images={root / 'leftImg8bit' / 'val'}",
    ]
    config = load_config(CONFIG, overrides)
    return build_images(config, build_label_space(config), is_training=is_training)


def as_prediction(target: PanopticTarget) -> PanopticSegmentation:
    """Ground truth as a network that knows everything would predict it."""
    areas = torch.bincount(target.id_map.flatten(), minlength=len(target.train_ids) + 1)[1:]
    segments = [
        Segment(index + 1, int(train_id), int(area))
        for index, (train_id, area) in enumerate(zip(target.train_ids, areas))
    ]
    return PanopticSegmentation(target.id_map, tuple(segments), target.label_space)


def packing_cost(file: Path, segmentation: PanopticSegmentation) -> float:
    """Milliseconds of an image's way between stages: pixels and map, packed and unpacked."""
    item, image = ImageItem(file, 0, "0"), read_image(file)
    loaded = LoadedImage(item, image, segmentation.image_size, None)
    labelled = LabelledImage(item, segmentation, None, None)
    return milliseconds(lambda: list(unpacked(packed([loaded, labelled]))))


def writing_costs(folder: Path, segmentation: PanopticSegmentation) -> dict[str, Any]:
    """Cost of the files of one prediction, and of the driver's two passes over them."""
    predictions = PredictionFolder(folder, instances=False, overlays=False)
    items = [ImageItem(Path(f"{n}.png"), n, f"{n}") for n in range(200)]

    def per_item(run: Callable[[], object]) -> float:
        return round(1000 * seconds(run) / len(items), 4)

    write_ms = milliseconds(lambda: predictions.write(items[0], segmentation))
    for item in items:
        predictions.write(item, segmentation)
    png, record = folder / "panoptic" / "0.png", folder / "records" / "0.json"
    space = segmentation.label_space
    return {
        "write_ms": write_ms,
        "png_bytes": png.stat().st_size,
        "record_bytes": record.stat().st_size,
        "finished_ms": per_item(lambda: [predictions.is_finished(item) for item in items]),
        "join_ms": per_item(lambda: predictions.join(items, space)),
    }


def seconds(run: Callable[[], object], rounds: int = TIMED_ROUNDS) -> float:
    """Median processor time of a call; the first of several is not counted."""
    times = []
    for _ in range(rounds + (rounds > 1)):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times[-rounds:])


def milliseconds(run: Callable[[], object]) -> float:
    return round(1000 * seconds(run), 2)


# Arithmetic


def mean_area(scale_range: Sequence[float]) -> float:
    """Expected area of an image whose sides are scaled uniformly in the range; unscaled: 1."""
    return largest_area(scale_range, 1)


def largest_area(scale_range: Sequence[float], num_images: int) -> float:
    """Expected area of the largest of several independently scaled images.

    With s = low + width * u, the largest u of n has E[u] = n / (n + 1) and E[u^2] = n / (n + 2).
    """
    low, high = scale_range
    width, n = high - low, num_images
    return low**2 + 2 * low * width * n / (n + 1) + width**2 * n / (n + 2)


@dataclass(frozen=True)
class TrainingPlan:
    """One step of training with one image per GPU.

    Attributes:
        compute_seconds: of the GPU with the largest image, to which all are padded.
        even_seconds: the same if all images had the mean area.
        norm_seconds: waiting for shared norm statistics.
        reduce_seconds: all-reduce of the gradients, whether or not it hides behind the computing.
        step_seconds: all together; the all-reduce runs beside the backward pass.
        images_per_second: of all GPUs.
    """

    compute_seconds: float
    even_seconds: float
    norm_seconds: float
    reduce_seconds: float
    step_seconds: float
    images_per_second: float


def ring_bytes(num_values: int, num_gpus: int) -> float:
    """What each GPU sends, and a node on the ring sends to the next, in one ring all-reduce."""
    return 2 * (num_gpus - 1) / num_gpus * FLOAT_BYTES * num_values


def training(
    costs: dict[str, Any], num_gpus: int, teraflops: float, network_gigabits: float | None
) -> TrainingPlan:
    """Expected speed.

    Args:
        costs: of `measure_costs`.
        num_gpus: in the run.
        teraflops: sustained by one GPU.
        network_gigabits: a second, between nodes; None: one node, where exchanges cost nothing.
    """
    flops = PASSES * 2 * NETWORK_GIGA * 1e9
    compute = flops * largest_area(costs["scale_range"], num_gpus) / (teraflops * 1e12)
    reduce = norm = 0.0
    if network_gigabits is not None:
        bytes_per_second = network_gigabits * 1e9 / 8 * NETWORK_SHARE
        reduce = ring_bytes(costs["num_trained"], num_gpus) / bytes_per_second
        # Forward and backward.
        norm = 2 * costs["num_norm_calls"] * EXCHANGE_SECONDS
    backward = compute * (PASSES - 1) / PASSES
    step = compute + norm + max(0.0, reduce - backward)
    even = flops * mean_area(costs["scale_range"]) / (teraflops * 1e12)
    return TrainingPlan(compute, even, norm, reduce, step, num_gpus / step)


def norm_bytes(costs: dict[str, Any], num_gpus: int) -> float:
    """What each GPU receives for shared norms in a step.

    Forward every worker's means, variances and count in double precision, backward a ring
    all-reduce of two sums per channel.
    """
    channels, calls = costs["num_norm_channels"], costs["num_norm_calls"]
    gathered = DOUBLE_BYTES * (2 * channels + calls) * (num_gpus - 1)
    return gathered + ring_bytes(2 * channels, num_gpus)


def checkpoint_bytes(costs: dict[str, Any]) -> int:
    """Weights, running statistics and the momentum of what is trained."""
    values = costs["num_parameters"] + costs["num_buffer_values"] + costs["num_trained"]
    return FLOAT_BYTES * int(values)


def prediction_rate(teraflops: float) -> float:
    """Images a second of one GPU at 1024x2048."""
    return teraflops * 1e12 / (2 * NETWORK_GIGA * 1e9)


# Words


def plan_section(costs: dict[str, Any], evaluation: Sequence[dict[str, Any]]) -> str:
    """The plan in Markdown.

    Args:
        costs: of `measure_costs`.
        evaluation: rounds of the evaluation benchmark; may be empty.
    """
    parts = [
        f"## Plan for {NODES} x {GPUS_PER_NODE} GPUs",
        "Computed, not run. **Measured**: sizes and bytes of the real network and of files written "
        "here, milliseconds of one core of this machine. **Assumed**: what a GPU sustains in "
        f"10^12 operations a second ({', '.join(map(str, GPU_TERAFLOPS))}; 54 ms an image of Mask "
        "R-CNN R-50 on one V100 in detectron2's zoo come to about 10), networks of "
        f"{', '.join(map(str, NETWORKS))} Gbit/s per node used to {100 * NETWORK_SHARE:.0f} %, "
        f"{1e6 * EXCHANGE_SECONDS:.0f} µs for a small exchange between GPUs of several nodes "
        f"(within one node nothing), {1e3 * ROUND_TRIP_SECONDS:.0f} ms for a request to shared "
        f"storage, photos of {PHOTO_BYTES / 1e6:.1f} MB (Cityscapes: 11 GB, 5000 images).",
        training_text(costs),
        prediction_text(costs),
        evaluation_text(evaluation),
    ]
    return "\n\n".join(part for part in parts if part)


def training_text(costs: dict[str, Any]) -> str:
    lines = [
        "**Training**, `configs/cityscapes/seamless_r50.yaml`, one image per GPU, images a second:",
        "",
        "| operations a second of a GPU | 1 GPU | 8 GPUs, one node "
        + "".join(f"| 64 GPUs, {gigabits} Gbit/s " for gigabits in NETWORKS)
        + "| cores for loading, per GPU |",
        "|---:|" + "---:|" * (3 + len(NETWORKS)),
    ]
    for teraflops in GPU_TERAFLOPS:
        single = training(costs, 1, teraflops, None)
        node = training(costs, GPUS_PER_NODE, teraflops, None)
        rates = [single.images_per_second, node.images_per_second]
        rates += [
            training(costs, NUM_GPUS, teraflops, gigabits).images_per_second
            for gigabits in NETWORKS
        ]
        cores = node.images_per_second / GPUS_PER_NODE * costs["load_ms"] / 1000
        cells = [f"{rate:.0f}" if rate >= 20 else f"{rate:.1f}" for rate in rates]
        lines.append(f"| {teraflops} T | {' | '.join(cells)} | {cores:.1f} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in training_notes(costs))])


def training_notes(costs: dict[str, Any]) -> list[str]:
    """Bytes of a step, and where training over 64 GPUs saturates."""
    plan = training(costs, NUM_GPUS, TYPICAL_TERAFLOPS, NETWORKS[-1])
    backward = plan.compute_seconds * (PASSES - 1) / PASSES
    needed = plan.reduce_seconds * NETWORKS[-1] / backward
    area, scale = mean_area(costs["scale_range"]), costs["scale_range"]
    shares = [area / largest_area(scale, n) for n in (GPUS_PER_NODE, NUM_GPUS)]
    reading = plan.images_per_second * PHOTO_BYTES
    checkpoint = checkpoint_bytes(costs)
    node = training(costs, GPUS_PER_NODE, TYPICAL_TERAFLOPS, None)
    hours = [PUBLISHED_IMAGES / each.images_per_second / 3600 for each in (node, plan)]
    return [
        f"The images of the published {PUBLISHED_IMAGES // GPUS_PER_NODE} steps of {GPUS_PER_NODE} "
        f"take {hours[0]:.1f} hours on {GPUS_PER_NODE} GPUs of {TYPICAL_TERAFLOPS} T and "
        f"{hours[1]:.1f} on {NUM_GPUS}.",
        f"Gradients: {costs['num_trained'] / 1e6:.2f} M of {costs['num_parameters'] / 1e6:.2f} M "
        f"parameters are trained, {FLOAT_BYTES * costs['num_trained'] / 1e6:.0f} MB a step; in a "
        f"ring each node sends {ring_bytes(costs['num_trained'], NUM_GPUS) / 1e6:.0f} MB a step. "
        f"The backward pass ({backward:.2f} s at {TYPICAL_TERAFLOPS} T) hides that from "
        f"{needed:.0f} Gbit/s per node on; faster GPUs need proportionally more.",
        f"Shared iABN statistics: {costs['num_norm_calls']} exchanges forward and as many "
        f"backward, {norm_bytes(costs, NUM_GPUS) / 1e6:.0f} MB a step and GPU ({NUM_GPUS} workers "
        "send double-precision means and variances to each other). They cannot hide: "
        f"{1000 * plan.norm_seconds:.0f} ms of waiting a step, "
        f"{100 * plan.norm_seconds / plan.step_seconds:.0f} % of it at {TYPICAL_TERAFLOPS} T.",
        f"**It saturates first on the scale augmentation**: all workers of a step wait for the "
        f"largest image. Sides scaled by {scale[0]:g} to {scale[1]:g} mean an area of {area:.2f} "
        f"on average and of {largest_area(scale, GPUS_PER_NODE):.2f} for the largest of "
        f"{GPUS_PER_NODE}, {largest_area(scale, NUM_GPUS):.2f} for the largest of {NUM_GPUS}: "
        f"{100 * shares[0]:.0f} % and {100 * shares[1]:.0f} % of the GPUs' time is useful. A fixed "
        "`data.crop_size_pixels` removes this; the published recipe has none.",
        f"Storage: {plan.images_per_second:.0f} images a second are {reading / 1e6:.0f} MB/s of "
        f"PNG ({8 * reading / 1e9:.1f} Gbit/s over all nodes); all of Cityscapes' training images "
        f"({NUM_TRAIN_PHOTOS * PHOTO_BYTES / 1e9:.1f} GB) stay in the page cache of each "
        "node after the first epoch. Loading takes "
        f"{costs['load_ms']:.0f} ms of a core to read, scale and convert an image and its map "
        f"(drawn scenes of {costs['drawn_image_bytes'] / 1e6:.1f} MB).",
        f"A checkpoint has {checkpoint / 1e6:.0f} MB and is written twice, into the run folder and "
        "to Ray's storage, while all GPUs wait: "
        f"{2 * checkpoint / 1e6:.0f} MB, {2 * checkpoint / 500e6:.1f} s at 500 MB/s.",
        "A step of 64 images instead of 8 is another recipe: the learning rate and its warm-up "
        "have to grow with it, and what PQ comes of it is not measured.",
    ]


def prediction_text(costs: dict[str, Any]) -> str:
    lines = [
        f"**Prediction** at {FULL_SIZE[0]}x{FULL_SIZE[1]}, one network per GPU:",
        "",
        "| operations a second of a GPU | images a second, 1 GPU | 64 GPUs | photos read "
        "| PNGs and records written | files written a second | cores per GPU |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    written = costs["png_bytes"] + costs["record_bytes"]
    core_ms = costs["read_ms"] + costs["pack_ms"] + costs["write_ms"]
    for teraflops in GPU_TERAFLOPS:
        rate = prediction_rate(teraflops)
        together = NUM_GPUS * rate
        lines.append(
            f"| {teraflops} T | {rate:.1f} | {together:.0f} "
            f"| {together * PHOTO_BYTES / 1e9:.1f} GB/s | {together * written / 1e6:.0f} MB/s "
            f"| {2 * together:.0f} | {rate * core_ms / 1000:.1f} |"
        )
    rate = NUM_GPUS * prediction_rate(TYPICAL_TERAFLOPS)
    driver = costs["finished_ms"] + costs["join_ms"] + 2000 * ROUND_TRIP_SECONDS
    million = 1e6 / rate / 60
    pixels = 3 * FULL_SIZE[0] * FULL_SIZE[1]
    lines += [
        "",
        f"- It saturates first on **storage**: {rate:.0f} images a second at {TYPICAL_TERAFLOPS} T "
        f"read {8 * rate * PHOTO_BYTES / 1e9:.0f} Gbit/s; one file server on 10 Gbit/s feeds "
        f"{10e9 / 8 / PHOTO_BYTES:.0f} images a second, "
        f"{10e9 / 8 / PHOTO_BYTES / prediction_rate(TYPICAL_TERAFLOPS):.0f} such GPUs. Object "
        "storage or a file system over several servers goes on from there.",
        f"- Then on **cores**: decoding ({costs['read_ms']:.0f} ms), moving "
        f"between stages ({costs['pack_ms']:.0f} ms) and writing "
        f"({costs['write_ms']:.0f} ms, a PNG of {costs['png_bytes'] / 1e3:.0f} kB) share the CPUs "
        "of the cluster; `--threads` tasks read for each GPU and as many write.",
        f"- The driver looks at every record before the run and joins them after it: "
        f"{costs['finished_ms'] + costs['join_ms']:.2f} ms here and two round trips, one image "
        f"after the other: {1e6 * driver / 1000 / 60:.0f} minutes for a million images, which the "
        f"GPUs label in {million:.0f}. Beyond some 100,000 images give several folders to several "
        "runs.",
        f"- Between machines travel names, and where a photo is read on another one than it is "
        f"labelled on, its {pixels / 1e6:.1f} MB of pixels; photos are labelled where they were "
        "read while a network there is free, and maps are written where they are.",
    ]
    return "\n".join(lines)


def evaluation_text(rounds: Sequence[dict[str, Any]]) -> str:
    """Where evaluation saturates; empty without measured rounds."""
    if not rounds:
        return ""
    rate, driver_ms = (
        statistics.median(found["Ray"][key] for found in rounds)
        for key in ("rate", "driver_ms_per_pair")
    )
    cores = rounds[0]["cores"]
    limit = 1000 / driver_ms
    return (
        f"**Evaluation** needs no GPU: {rate / cores:.0f} pairs a second and core measured above. "
        f"The driver spends {driver_ms:.2f} ms on each pair, so it saturates at {limit:.0f} pairs "
        f"a second, with {limit * cores / rate:.0f} such cores; the 500 pairs of Cityscapes' "
        "validation set are done long before the nodes have started."
    )
