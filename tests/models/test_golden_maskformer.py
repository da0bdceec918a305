"""MaskFormer and its baselines against numbers that the original itself computed, in float64."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.necks.pixel_decoder import PixelEmbedding, TransformerPixelDecoder
from seamless_pr.models.networks.maskformer import MaskFormer, QueryLogits
from seamless_pr.models.networks.per_pixel import PerPixelNet
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.views import View
from tests.support.maskformer_golden import drawn_image, load_arrays
from tests.support.maskformer_networks import golden_network, reference_order, trunk_weights

FEATURE_TOLERANCE = 1e-6
CONTENT_TOLERANCE = 5e-6
LOGIT_TOLERANCE = 3e-5
SCORE_TOLERANCE = 1e-5

QUERY_CASES = (
    "sem_r50_ade150_s6_120x175",
    "sem_r50_ade150_s9_batch_96x161_130x99",
    "sem_swint_ade150_s0_97x130",
    "sem_r50_small_prenorm_7cls_s40_70x91",
    "pan_r50enc_coco133_s17_149x203",
    "pan_swint_coco133_s36_109x158",
)
PIXEL_CASES = ("ppb_r50_ade150_s50_97x130", "ppbplus_r50_ade150_s51_97x130")


@dataclass(frozen=True)
class Golden:
    """A golden network and what it says about the images of its case."""

    name: str
    arrays: Mapping[str, NDArray]

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads(str(self.arrays["meta_json"]))

    @cached_property
    def network(self) -> Any:
        return golden_network(self.meta)

    @cached_property
    def batch(self) -> ImageBatch:
        sizes = [self.arrays[key] for key in sorted(self.arrays) if re.match(r"image\d_size", key)]
        images = [
            drawn_image(10 * self.meta["seed"] + index, *size.tolist())
            for index, size in enumerate(sizes)
        ]
        return ImageBatch.from_images(images).padded_to(self.network.size_divisor)

    @cached_property
    def stages(self) -> tuple[Tensor, ...]:
        return self.network.trunk(self.batch).levels

    @cached_property
    def pixels(self) -> PixelEmbedding:
        return self.network.pixel_decoder(self.stages)

    @cached_property
    def logits(self) -> QueryLogits:
        return self.network(self.batch)

    @cached_property
    def outputs(self) -> Any:
        return self.network.outputs(self.batch)

    def frame(self, index: int) -> FrameSizes:
        size = tuple(self.arrays[f"img{index}_output_size"].tolist())
        return FrameSizes(self.batch.padded_size, self.batch.image_sizes[index], size)

    def as_reference(self, per_class: Tensor, dim: int) -> Tensor:
        """Our classes, stuff first, in the order of the reference; "no object" stays last."""
        order = reference_order(self.network.label_space)
        places = torch.tensor([*order, *range(len(order), per_class.shape[dim])])
        return torch.empty_like(per_class).index_copy_(dim, places, per_class)

    def check(self, key: str, found: Tensor, tolerance: float) -> None:
        """Compares with an array of the file, unless this file was made smaller without it."""
        if key in self.arrays:
            expected = torch.from_numpy(self.arrays[key]).double()
            assert found.shape == expected.shape, key
            difference = float((found.double() - expected).abs().max())
            assert difference <= tolerance, f"{key}: {difference}"

    def check_moments(self, key: str, found: Tensor, tolerance: float) -> None:
        values = found.double()
        moments = torch.stack([values.mean(), values.abs().mean(), values.square().mean()])
        scale = max(1.0, float(values.abs().max()))
        self.check(f"{key}_stat", moments, tolerance * scale)


@pytest.fixture(scope="module")
def golden(request):
    """One network at a time: pytest runs all tests of a case before the next one."""
    with torch.no_grad():
        yield Golden(request.param, load_arrays(request.param))


def on_cases(*cases: str):
    return pytest.mark.parametrize("golden", cases, indirect=True, scope="module")


@pytest.mark.slow
@on_cases(*QUERY_CASES, *PIXEL_CASES)
def test_features_are_those_of_the_original(golden):
    assert golden.batch.padded_size == tuple(golden.arrays["padded_size"].tolist())
    images = golden.network.trunk.normalization(golden.batch)
    values = torch.stack([images.mean(), images.abs().mean(), images.square().mean()])
    golden.check("input_stat", values, 1e-6)
    for index, stage in enumerate(golden.stages, start=2):
        golden.check(f"feat_res{index}", stage[:, :: stage.shape[1] // 8], FEATURE_TOLERANCE)
        golden.check_moments(f"feat_res{index}", stage, FEATURE_TOLERANCE)


@pytest.mark.slow
@on_cases(*QUERY_CASES, *PIXEL_CASES)
def test_pixel_embeddings_are_those_of_the_original(golden):
    decoder = golden.network.pixel_decoder
    coarsest = golden.stages[-1]
    if isinstance(decoder, TransformerPixelDecoder):
        coarsest = golden.pixels.memory
        golden.check("encoder_out", coarsest, CONTENT_TOLERANCE)
        golden.check_moments("encoder_out", coarsest, CONTENT_TOLERANCE)
    for index, level in enumerate(decoder.levels((*golden.stages[:-1], coarsest)), start=1):
        golden.check(f"fpn_layer_{index}", level[:, ::64], FEATURE_TOLERANCE)
        golden.check_moments(f"fpn_layer_{index}", level, FEATURE_TOLERANCE)
    golden.check("mask_features", golden.pixels.mask_features[:, ::32], FEATURE_TOLERANCE)
    golden.check_moments("mask_features", golden.pixels.mask_features, FEATURE_TOLERANCE)


@pytest.mark.slow
@on_cases(*QUERY_CASES, PIXEL_CASES[1])
def test_queries_are_those_of_the_original(golden):
    head = golden.network if isinstance(golden.network, MaskFormer) else golden.network.head
    memory = head.query_decoder.input_proj(golden.pixels.memory)
    golden.check("memory", memory, CONTENT_TOLERANCE)
    golden.check_moments("memory", memory, CONTENT_TOLERANCE)
    contents = head.query_decoder(golden.pixels.memory)
    golden.check("hs", contents[:, :, ::10], CONTENT_TOLERANCE)
    golden.check_moments("hs", contents, CONTENT_TOLERANCE)
    golden.check("mask_embed", head.mask_embed(contents[-1])[:, ::10], CONTENT_TOLERANCE)


@pytest.mark.slow
@on_cases(*QUERY_CASES)
def test_logits_of_all_layers_are_those_of_the_original(golden):
    classes = golden.as_reference(golden.logits.classes, 3)
    golden.check("class_logits", classes[-1], LOGIT_TOLERANCE)
    golden.check("class_logits_aux", classes[:-1, :, ::10], LOGIT_TOLERANCE)
    golden.check_moments("class_logits", classes, LOGIT_TOLERANCE)
    masks = golden.logits.masks
    golden.check("mask_logits", masks[-1, :, ::10], LOGIT_TOLERANCE)
    golden.check("mask_logits_sub", masks[-1, :, :, 1::4, 1::4], LOGIT_TOLERANCE)
    golden.check("mask_logits_aux_sub", masks[:-1, :, :, 3::8, 3::8], LOGIT_TOLERANCE)
    golden.check_moments("mask_logits", masks, LOGIT_TOLERANCE)


@pytest.mark.slow
@on_cases(*QUERY_CASES)
def test_the_last_layer_alone_gives_the_same_outputs(golden):
    torch.testing.assert_close(golden.outputs.class_logits, golden.logits.classes[-1])
    torch.testing.assert_close(golden.outputs.mask_logits, golden.logits.masks[-1])


@pytest.mark.slow
@on_cases(*QUERY_CASES)
def test_maps_are_those_of_the_original(golden):
    outputs, fusion = golden.outputs, golden.network.fusion
    sizes = [golden.frame(index).original for index in range(len(golden.batch))]
    predictions = golden.network.finish(outputs, sizes)
    for index, prediction in enumerate(predictions):
        logits = (outputs.class_logits[index], outputs.mask_logits[index])
        scores = fusion.semantic_scores(*logits, golden.frame(index))
        scores = golden.as_reference(scores, 0)
        golden.check(f"img{index}_sem_scores_sub", scores[::10, 3::8, 3::8], SCORE_TOLERANCE)
        golden.check_moments(f"img{index}_sem", scores, SCORE_TOLERANCE)
        order = torch.tensor(reference_order(golden.network.label_space))
        golden.check(f"img{index}_sem_argmax", order[prediction.semantic_map], 0)
        if "general" in golden.meta:
            segmentation = fusion.panoptic(*logits, golden.frame(index))
            check_segments(golden, f"img{index}_general", segmentation)
        else:
            check_segments(golden, f"img{index}_panoptic", prediction.panoptic)


def check_segments(golden: Golden, key: str, found: PanopticSegmentation) -> None:
    golden.check(f"{key}_seg", found.id_map, 0)
    things = golden.meta.get("thing_classes", []) if key.endswith("panoptic") else []
    categories = found.label_space.categories
    listed = [
        {
            "id": segment.segment_id,
            "isthing": categories[segment.train_id].category_id in things,
            "category_id": categories[segment.train_id].category_id,
        }
        for segment in found.segments
    ]
    assert listed == json.loads(str(golden.arrays[f"{key}_info_json"]))
    areas = torch.bincount(found.id_map.flatten(), minlength=len(listed) + 1)
    assert [segment.area for segment in found.segments] == areas[1:].tolist()


@pytest.mark.slow
@on_cases(*PIXEL_CASES)
def test_per_pixel_logits_are_those_of_the_original(golden):
    assert isinstance(golden.network, PerPixelNet)
    layers = golden.as_reference(golden.logits, 2)
    golden.check("logits_stride4", layers[-1, :, ::10], LOGIT_TOLERANCE)
    golden.check("logits_stride4_sub", layers[-1, :, :, 1::4, 1::4], LOGIT_TOLERANCE)
    golden.check("logits_stride4_aux_sub", layers[:-1, :, :, 3::8, 3::8], LOGIT_TOLERANCE)
    size = golden.frame(0).original
    logits = golden.as_reference(golden.outputs.in_file(0, size), 0)
    golden.check("img0_sem_scores_sub", logits[::10, 3::8, 3::8], LOGIT_TOLERANCE)
    golden.check_moments("img0_sem", logits, LOGIT_TOLERANCE)
    (prediction,) = golden.network.finish(golden.outputs, [size])
    order = torch.tensor(reference_order(golden.network.label_space))
    golden.check("img0_sem_argmax", order[prediction.semantic_map], 0)
    assert torch.equal(prediction.panoptic.semantic_map(), prediction.semantic_map)


@pytest.mark.slow
def test_features_of_the_backbone_with_three_convolutions_in_its_stem_are_those_of_the_original():
    golden = Golden("backbone_r101c_s60_97x130", load_arrays("backbone_r101c_s60_97x130"))
    trunk = trunk_weights("r101c", golden.meta["seed"], golden.meta["state_dict"])
    batch = ImageBatch.from_images([drawn_image(600, *golden.arrays["image0_size"].tolist())])
    with torch.no_grad():
        stages = trunk(batch).levels
    for index, stage in enumerate(stages, start=2):
        golden.check(f"feat_res{index}", stage[:, :: stage.shape[1] // 8], FEATURE_TOLERANCE)
        golden.check_moments(f"feat_res{index}", stage, FEATURE_TOLERANCE)


@pytest.mark.slow
def test_scores_over_sizes_and_mirror_images_are_those_of_the_original():
    golden = Golden("tta_r50_ade150_s6_80x113", load_arrays("tta_r50_ade150_s6_80x113"))
    sides, longest = golden.arrays["min_sizes"].tolist(), int(golden.arrays["max_size"])
    views = [View(1.0, flip, side, longest) for side in sides for flip in (False, True)]
    network = ViewedNet(golden.network, views)
    size = tuple(golden.arrays["img0_output_size"].tolist())
    batch = ImageBatch.from_images([drawn_image(60, *golden.arrays["image0_size"].tolist())])
    with torch.no_grad():
        seen = network.outputs(batch)
        (prediction,) = network.finish(seen, [size])
        scores = golden.as_reference(golden.network.mean_scores(seen, 0, size, (0, size[0])), 0)
    shown = [(*outputs.image_sizes[0], *size) for outputs in seen.outputs]
    assert shown == [tuple(row) for row in golden.arrays["view_sizes"].tolist()]
    golden.check("img0_sem_scores_sub", scores[::10, 3::8, 3::8], SCORE_TOLERANCE)
    golden.check_moments("img0_sem", scores, SCORE_TOLERANCE)
    order = torch.tensor(reference_order(golden.network.label_space))
    golden.check("img0_sem_argmax", order[prediction.semantic_map], 0)
