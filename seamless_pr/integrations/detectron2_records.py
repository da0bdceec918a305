"""Records of detectron2 in plain tensors and containers; detectron2 itself is not needed here.

detectron2 numbers classes twice: things from 0 for boxes and masks, and all outputs of the semantic
branch from 0, where its own COCO tables put things first. Our train ids put stuff first.

Letters: K outputs of the semantic branch, R boxes, H, W size of the image file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.datasets.image_files import find_image_files
from seamless_pr.datasets.panoptic_records import PanopticDataset, SegmentRecord
from seamless_pr.datasets.verification import with_sizes_put_right
from seamless_pr.ops.masks import mask_boxes
from seamless_pr.structures.faults import FaultyDataError
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.settings import FusionSettings

INPUT_FORMATS = ("BGR", "RGB")
# All things as one class of the semantic branch.
MERGED_NAME, MERGED_COLOR = "things", (82, 18, 128)


@dataclass(frozen=True)
class ContiguousIds:
    """detectron2's numbers of our classes.

    Things are 0..T-1 in our order. Semantic ids are things, then stuff, all in our order; with
    merged things (Panoptic FPN) 0 means any thing, and stuff starts at 1.

    Attributes:
        label_space: our classes.
        merged_things: the semantic branch has one output for all things together.
    """

    label_space: LabelSpace
    merged_things: bool = False

    @property
    def first_stuff(self) -> int:
        """Semantic id of the first stuff class."""
        return 1 if self.merged_things else self.label_space.num_things

    @property
    def ignore_label(self) -> int:
        """Value of void pixels in files of semantic ids: the largest of 8 bits, or of 16."""
        return 255 if self.label_space.num_classes <= 255 else 65535

    def semantic_id(self, train_id: int) -> int:
        """Semantic id of a class."""
        if not self.label_space.is_thing(train_id):
            return self.first_stuff + train_id
        return 0 if self.merged_things else self.label_space.thing_index(train_id)

    def segment_id(self, train_id: int) -> int:
        """The class of a panoptic segment: of things their own number, of stuff the semantic id."""
        if self.label_space.is_thing(train_id):
            return self.label_space.thing_index(train_id)
        return self.first_stuff + train_id

    def things_first(self, outputs: Tensor) -> Tensor:
        """[K, ...] outputs of our semantic branch in the order of semantic ids."""
        num_stuff = self.label_space.num_stuff
        expected = num_stuff + (1 if self.merged_things else self.label_space.num_things)
        if len(outputs) != expected:
            raise ValueError(
                f"expected {expected} semantic outputs for '{self.label_space.name}' with "
                f"merged_things={self.merged_things}; got {len(outputs)}"
            )
        return torch.cat([outputs[num_stuff:], outputs[:num_stuff]])

    def metadata(self) -> dict[str, Any]:
        """Names, colours and id tables as detectron2's MetadataCatalog knows them."""
        things = self.label_space.thing_categories
        stuff = self.label_space.categories[: self.label_space.num_stuff]
        dataset_ids = {category.category_id for category in self.label_space.categories}
        if self.merged_things:
            names, colors = [MERGED_NAME], [MERGED_COLOR]
            unused = min(set(range(len(dataset_ids) + 1)) - dataset_ids)
            semantic_ids = {unused: 0}
        else:
            names = [category.name for category in things]
            colors = [category.color for category in things]
            semantic_ids = {category.category_id: i for i, category in enumerate(things)}
        names += [category.name for category in stuff]
        colors += [category.color for category in stuff]
        semantic_ids |= {
            category.category_id: self.first_stuff + i for i, category in enumerate(stuff)
        }
        return {
            "thing_classes": [category.name for category in things],
            "thing_colors": [category.color for category in things],
            "thing_dataset_id_to_contiguous_id": {
                category.category_id: index for index, category in enumerate(things)
            },
            "stuff_classes": names,
            "stuff_colors": colors,
            "stuff_dataset_id_to_contiguous_id": semantic_ids,
            "ignore_label": self.ignore_label,
        }


# What goes into a network


def image_batch(records: Sequence[Mapping[str, Any]], input_format: str) -> ImageBatch:
    """The images of detectron2's input records, padded to one size.

    Args:
        records: each with "image": [3, h, w] of any dtype, values 0..255 at network size.
        input_format: order of their channels, "BGR" or "RGB".

    Raises:
        ValueError: no record, another format, or an image of another shape.
    """
    if input_format not in INPUT_FORMATS:
        raise ValueError(
            f"INPUT.FORMAT must be one of {', '.join(INPUT_FORMATS)}; got '{input_format}'"
        )
    if not records:
        raise ValueError("expected at least one input record; got none")
    images = []
    for record in records:
        image: Tensor = record["image"]
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"'image' must be [3, h, w]; got {tuple(image.shape)}")
        if image.dtype != torch.uint8:
            # Predictors hand over whole numbers as floats.
            image = image.round().clamp(0, 255).to(torch.uint8)
        images.append(image.flip(0) if input_format == "BGR" else image)
    return ImageBatch.from_images(images)


def output_sizes(records: Sequence[Mapping[str, Any]], batch: ImageBatch) -> list[tuple[int, int]]:
    """(height, width) that each record asks for; that of its image where it does not."""
    return [
        (int(record.get("height", height)), int(record.get("width", width)))
        for record, (height, width) in zip(records, batch.image_sizes, strict=True)
    ]


# What comes out of a network


def panoptic_record(
    segmentation: PanopticSegmentation, ids: ContiguousIds
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The value of "panoptic_seg".

    Returns:
        [H, W] int32 ids, 0 = void, and one dict a segment: id, isthing, category_id, area, and of
        objects their score. A segment without a pixel is left out: official evaluators refuse
        ids that are not in the map.
    """
    segmentation = segmentation.without_crowd()
    segments_info = []
    for segment in segmentation.segments:
        if segment.area == 0:
            continue
        is_thing = ids.label_space.is_thing(segment.train_id)
        info: dict[str, Any] = {
            "id": segment.segment_id,
            "isthing": is_thing,
            "category_id": ids.segment_id(segment.train_id),
            "area": segment.area,
        }
        if is_thing and segment.score is not None:
            info["score"] = segment.score
        segments_info.append(info)
    return segmentation.id_map, segments_info


def semantic_record(
    logits: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    ids: ContiguousIds,
) -> Tensor:
    """The value of "sem_seg": logits at the size of the image file.

    Args:
        logits: [K, h, w] of the padded image, in our order.
        padded_size, image_size: (height, width) of the network input and its valid part.
        output_size: (H, W).
        ids: the order of the result.

    Returns:
        [K, H, W] in the order of semantic ids.
    """
    upsampled = logits[None].float()
    if tuple(logits.shape[-2:]) != padded_size:
        upsampled = F.interpolate(upsampled, padded_size, mode="bilinear", align_corners=False)
    valid = upsampled[:, :, : image_size[0], : image_size[1]]
    resized = F.interpolate(valid, output_size, mode="bilinear", align_corners=False)[0]
    return ids.things_first(resized)


@dataclass(frozen=True)
class InstanceFields:
    """The fields of detectron2's Instances, best score first.

    Attributes:
        boxes: [R, 4] float32 xyxy, inside the image and with an area.
        scores: [R] float32.
        classes: [R] int64 thing ids.
        masks: [R, H, W] bool.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor


def instance_fields(
    instances: Instances, image_size: tuple[int, int], settings: FusionSettings
) -> InstanceFields:
    """Objects of one image with their masks at the size of the file.

    Args:
        instances: with masks, in pixels of the file.
        image_size: (H, W).
        settings: the threshold of masks.
    """
    height, width = image_size
    kept = instances.best_first()
    masks = kept.require_masks()
    device = kept.scores.device
    pixels = torch.zeros(len(kept), height, width, dtype=torch.bool, device=device)
    for index, mask in enumerate(pixels):
        crop = masks.crop(
            index,
            image_size,
            settings.mask_threshold,
            includes_threshold=settings.mask_threshold_included,
        )
        mask[crop.window] = crop.mask
    boxes = mask_boxes(pixels) if kept.boxes is None else kept.boxes
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return InstanceFields(
        boxes[has_area], kept.scores[has_area], kept.thing_indices[has_area], pixels[has_area]
    )


# Datasets


def dataset_records(
    dataset: PanopticDataset,
    image_dir: Path,
    png_dir: Path,
    ids: ContiguousIds,
    semantic_dir: Path | None = None,
) -> list[dict[str, Any]]:
    """A COCO panoptic dataset as detectron2's list of standard records.

    Args:
        dataset: of `read_panoptic_json`.
        image_dir: folder of the images.
        png_dir: folder of the id PNGs.
        ids: class numbers of the records.
        semantic_dir: folder of grey PNGs of semantic ids, named like the id PNGs; None: the
            records name none.

    Raises:
        FileNotFoundError: no such folder of images.
        FaultyDataError: lists the images that have no file of their own.
    """
    train_id_of = ids.label_space.train_id_of
    files, faults = find_image_files(dataset.images, image_dir)
    if faults:
        raise FaultyDataError(f"images of the dataset are not in {image_dir}", faults)
    image_of = {image.image_id: image for image in with_sizes_put_right(dataset, png_dir)[0]}
    records = []
    for annotation in dataset.annotations:
        image = image_of[annotation.image_id]
        record = {
            "file_name": str(files[image.image_id]),
            "image_id": image.image_id,
            "height": image.height,
            "width": image.width,
            "pan_seg_file_name": str(png_dir / annotation.file_name),
            "segments_info": [
                _segment_record(segment, train_id_of[segment.category_id], ids)
                for segment in annotation.segments
            ],
        }
        if semantic_dir is not None:
            record["sem_seg_file_name"] = str(semantic_dir / annotation.file_name)
        records.append(record)
    return records


def _segment_record(segment: SegmentRecord, train_id: int, ids: ContiguousIds) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": segment.segment_id,
        "category_id": ids.segment_id(train_id),
        "isthing": ids.label_space.is_thing(train_id),
        "iscrowd": int(segment.is_crowd),
    }
    if segment.area is not None:
        record["area"] = segment.area
    if segment.bbox is not None:
        record["bbox"] = list(segment.bbox)
    return record
