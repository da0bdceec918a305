"""The MaskFormer of transformers with our weights' names, and where it is not the original."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from seamless_pr.config.query_networks import SwinBackboneSettings
from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.swin import SwinShape, SwinTransformer
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.fusion.by_query import QueryFusion
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.necks.pixel_decoder import PixelDecoder
from seamless_pr.models.networks.byte_normalization import BytePixelNormalization
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.queries.query_decoder import MaskEmbedding, QueryDecoder
from seamless_pr.models.queries.set_losses import set_losses
from seamless_pr.models.queries.targets import MaskTargets
from seamless_pr.ops.assignment import cheapest_assignments
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.query_settings import (
    QueryFusionSettings,
    QueryLossSettings,
    QuerySettings,
)
from seamless_pr.weights.maskformer import fit_maskformer_weights
from tests.support.hugging_face import NUM_LABELS, tiny_maskformer
from tests.support.maskformer_networks import MEAN, STD, numbered_space, reference_order

transformers = pytest.importorskip("transformers", reason="pip install transformers")

SPACE = numbered_space(NUM_LABELS, range(2))


def our_twin(theirs, backbone) -> MaskFormer:
    """Our network of the same shape with the same weights."""
    stages: nn.Module = SwinTransformer(SwinShape(24, (1, 2, 2, 2), (1, 2, 3, 4), 4))
    if backbone == "resnet":
        stages = TimmBackbone(
            "resnet50",
            make_norm_act("frozen_batch_norm", slope=0.0),
            layers=(1, 2, 1, 1),
            channels=(8, 16, 32, 64),
        )
    norm_act = make_norm_act("group_norm", slope=0.0, num_groups=32)
    ours = MaskFormer(
        Trunk(BytePixelNormalization(MEAN, STD), stages, nn.Identity(), stages.strides),
        PixelDecoder(stages.out_channels, 64, 32, norm_act),
        QueryDecoder(
            stages.out_channels[-1],
            32,
            9,
            num_layers=3,
            num_heads=4,
            hidden_channels=48,
            dropout=0.0,
        ),
        32,
        QueryFusion(SPACE, QueryFusionSettings()),
        QueryLossSettings(),
        size_divisor=32,
    )
    state, report = fit_maskformer_weights(
        theirs.state_dict(), ours.state_dict(), reference_order(SPACE)
    )
    report.check("transformers")
    ours.load_state_dict(state)
    return ours.double().eval()


@pytest.fixture(scope="module", params=["swin", "resnet"])
def twins(request):
    theirs = tiny_maskformer(request.param, torch.float64)
    return theirs, our_twin(theirs, request.param)


def batch_of(*sizes) -> ImageBatch:
    generator = torch.Generator().manual_seed(5)
    images = [torch.randint(256, (3, *size), generator=generator).byte() for size in sizes]
    return ImageBatch.from_images(images).padded_to(32)


def in_their_order(per_class):
    places = torch.tensor([*reference_order(SPACE), NUM_LABELS])
    return torch.empty_like(per_class).index_copy_(-1, places, per_class)


def test_logits_are_those_of_transformers(twins):
    theirs, ours = twins
    batch = batch_of((96, 130), (90, 160))
    with torch.no_grad():
        expected = theirs(pixel_values=ours.trunk.normalization(batch))
        found = ours.outputs(batch)
    torch.testing.assert_close(
        in_their_order(found.class_logits), expected.class_queries_logits, rtol=0, atol=4e-6
    )
    torch.testing.assert_close(found.mask_logits, expected.masks_queries_logits, rtol=0, atol=4e-6)


def test_the_loss_of_the_last_layer_is_that_of_transformers(twins):
    theirs, ours = twins
    batch = batch_of((96, 128))
    id_map = torch.zeros(96, 128, dtype=torch.int32)
    id_map[:40], id_map[40:70, 30:], id_map[80:, :50] = 1, 2, 3
    train_ids = torch.tensor([0, 4, 4])
    targets = MaskTargets(id_map, torch.tensor([1, 2, 3], dtype=torch.int32), train_ids)
    with torch.no_grad():
        logits = ours(batch)
        expected = theirs(
            pixel_values=ours.trunk.normalization(batch),
            mask_labels=[targets.masks(torch.float64)],
            class_labels=[torch.tensor(reference_order(SPACE))[train_ids]],
        )
    losses = set_losses(logits.classes, logits.masks, [targets], ours.loss)
    weights = {"query_class": 1.0, "mask_focal": 20.0, "mask_dice": 1.0}
    found = sum(
        weight * losses[name].total / losses[name].count for name, weight in weights.items()
    )
    # Ours has the losses of the layers before beside it, as the original; theirs leaves them out.
    assert found.item() == pytest.approx(expected.loss.item(), rel=1e-8)
    assert {"query_class_0", "mask_focal_1"} < set(losses)


def test_their_layers_before_the_last_lack_the_norm_of_the_original(twins):
    theirs, ours = twins
    batch = batch_of((64, 64))
    with torch.no_grad():
        pixels = ours.trunk.normalization(batch)
        # One state more than layers: theirs starts with the contents before the first one.
        states = theirs(pixel_values=pixels, output_hidden_states=True)
        states = states.transformer_decoder_hidden_states
        memory = ours.pixel_decoder(ours.trunk(batch).levels).memory
        contents = ours.query_decoder(memory)
    assert len(states) == len(contents) + 1
    assert not states[0].any()
    norm = ours.query_decoder.decoder.norm
    torch.testing.assert_close(norm(states[1]), contents[0], rtol=0, atol=1e-5)
    assert (states[1] - contents[0]).abs().max() > 0.1
    torch.testing.assert_close(states[-1], contents[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["q_proj", "out_proj"])
def test_names_of_version_4_are_read_as_well(name):
    theirs = tiny_maskformer()
    old = {}
    for key, tensor in theirs.state_dict().items():
        key = key.replace(".o_proj.", ".out_proj.").replace(".mlp.fc", ".fc")
        old[key] = tensor
    assert any(name in key for key in old)
    ours = our_twin(theirs, "swin")
    state, report = fit_maskformer_weights(old, ours.state_dict(), reference_order(SPACE))
    report.check("version 4")
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(state[key], tensor)


def test_a_lost_third_of_an_attention_is_named():
    tensors = dict(tiny_maskformer().state_dict())
    del tensors["model.transformer_module.decoder.layers.1.encoder_attn.k_proj.weight"]
    with pytest.raises(ValueError, match=r"layers\.1\.multihead_attn\.in_proj_weight"):
        fit_maskformer_weights(tensors, {}, reference_order(SPACE))


# Post-processing: theirs on the left, the original's rules, which are ours, on the right.

SIZE = (8, 8)
FRAME = FrameSizes(SIZE, SIZE, SIZE)


def class_logits(*labels, confidence=9.0):
    """A query per label, sure of it."""
    logits = torch.full((len(labels), NUM_LABELS + 1), -confidence)
    logits[torch.arange(len(labels)), torch.tensor(labels)] = confidence
    return logits


def their_map(classes, masks, **options):
    processor = transformers.MaskFormerImageProcessor()
    outputs = (
        transformers.models.maskformer.modeling_maskformer.MaskFormerForInstanceSegmentationOutput(
            class_queries_logits=in_their_order(classes)[None], masks_queries_logits=masks[None]
        )
    )
    (result,) = processor.post_process_panoptic_segmentation(
        outputs, **({"threshold": 0.8, "target_sizes": [SIZE]} | options)
    )
    return result["segmentation"], result["segments_info"]


def our_map(classes, masks, frame=FRAME, **thresholds):
    fusion = QueryFusion(SPACE, QueryFusionSettings(**thresholds))
    return fusion.panoptic(classes, masks, frame)


def bands(*rows):
    """Masks of the given rows of the map."""
    masks = torch.full((len(rows), *SIZE), -9.0)
    for mask, row in zip(masks, rows):
        mask[row] = 9.0
    return masks


def test_two_segments_share_an_id_in_theirs_and_none_do_in_ours():
    # Stuff (our class 0, their 2), thing, the same stuff again, another thing.
    classes, masks = (
        class_logits(0, 3, 0, 4),
        bands(slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)),
    )
    _, infos = their_map(classes, masks, label_ids_to_fuse={2, 3, 4})
    labels_of_id: dict[int, set[int]] = {}
    for info in infos:
        labels_of_id.setdefault(info["id"], set()).add(info["label_id"])
    assert any(len(labels) > 1 for labels in labels_of_id.values())
    found = our_map(classes, masks)
    assert [(s.segment_id, s.train_id, s.area) for s in found.segments] == [
        (1, 0, 32),
        (2, 3, 16),
        (3, 4, 16),
    ]


def test_nothing_found_is_minus_one_in_theirs_and_void_in_ours():
    classes, masks = class_logits(NUM_LABELS, NUM_LABELS), bands(slice(0, 2), slice(2, 8))
    ids, infos = their_map(classes, masks)
    assert infos == []
    assert torch.equal(ids, torch.full(SIZE, -1.0))
    found = our_map(classes, masks)
    assert torch.equal(found.id_map, torch.zeros(SIZE, dtype=torch.int32))


def test_the_area_of_a_mask_is_measured_without_the_class_score_in_ours():
    # Class score about 0.82; the first mask is 0.55 outside of what it wins: covered by its own
    # probability, not by the product with the score.
    classes = class_logits(3, 4)
    classes[0] = 0
    classes[0, 3] = math.log(NUM_LABELS) + 1.5
    masks = bands(slice(0, 4), slice(4, 8))
    masks[0, 4:] = 0.2
    _, infos = their_map(classes, masks)
    assert len(infos) == 2
    assert [segment.train_id for segment in our_map(classes, masks).segments] == [4]


def test_a_mask_that_wins_just_the_share_asked_for_is_kept_in_ours_and_dropped_in_theirs():
    masks = bands(slice(0, 4), slice(3, 8))
    masks[1, 3] = 10.0
    # Of 4 rows the first query wins 3.
    classes = class_logits(3, 4)
    _, infos = their_map(classes, masks, overlap_mask_area_threshold=0.75)
    assert len(infos) == 1
    assert len(our_map(classes, masks, overlap_threshold=0.75).segments) == 2


def test_nothing_is_fused_unless_asked_in_theirs():
    classes, masks = class_logits(0, 0), bands(slice(0, 4), slice(4, 8))
    assert len(their_map(classes, masks, label_ids_to_fuse=set())[1]) == 2
    defaults = inspect.signature(
        transformers.MaskFormerImageProcessor.post_process_panoptic_segmentation
    ).parameters
    names = ("threshold", "overlap_mask_area_threshold", "label_ids_to_fuse")
    assert [defaults[name].default for name in names] == [0.5, 0.8, None]
    assert QueryFusionSettings().object_threshold == QueryFusionSettings().overlap_threshold == 0.8
    assert len(our_map(classes, masks).segments) == 1


def test_theirs_adds_scores_up_before_masks_are_resized_and_ours_after():
    classes, masks = class_logits(3, 4), torch.stack([torch.full((2, 2), 3.0)] * 2)
    masks[0, :, 1], masks[1, :, 0] = -30.0, -0.5
    outputs = (
        transformers.models.maskformer.modeling_maskformer.MaskFormerForInstanceSegmentationOutput(
            class_queries_logits=in_their_order(classes)[None], masks_queries_logits=masks[None]
        )
    )
    (theirs,) = transformers.MaskFormerImageProcessor().post_process_semantic_segmentation(
        outputs, target_sizes=[SIZE]
    )
    fusion = QueryFusion(SPACE, QueryFusionSettings(task="semantic"))
    ours = torch.tensor(reference_order(SPACE))[fusion.semantic_map(classes, masks, FRAME)]
    assert not torch.equal(theirs, ours)


# What else is not the original's in theirs.


def test_losses_of_earlier_layers_need_another_option_in_theirs():
    theirs = tiny_maskformer()
    theirs.config.use_auxiliary_loss = True
    labels = {"mask_labels": [torch.ones(1, 64, 64)], "class_labels": [torch.tensor([0])]}
    with torch.no_grad(), pytest.raises(TypeError):
        theirs(pixel_values=torch.zeros(1, 3, 64, 64), **labels)


def test_their_batch_norm_learns_while_the_original_and_ours_are_frozen():
    theirs = tiny_maskformer("resnet")
    ours = our_twin(theirs, "resnet").float()
    pixels = ours.trunk.normalization(batch_of((64, 64), (64, 64)))
    theirs_encoder = theirs.model.pixel_level_module.encoder
    found = {}
    for mode in (True, False):
        with torch.no_grad():
            found[mode] = (
                theirs_encoder.train(mode)(pixels).feature_maps[-1],
                ours.trunk.backbone.train(mode)(pixels)[-1],
            )
    torch.testing.assert_close(found[True][1], found[False][1])
    assert (found[True][0] - found[False][0]).abs().max() > 0.1
    assert not any("backbone" in name and ".bn" in name for name, _ in ours.named_parameters())


def test_their_dropout_is_of_sums_alone_and_their_swin_drops_fewer_paths():
    decoder = transformers.DetrConfig()
    assert (decoder.dropout, decoder.attention_dropout, decoder.activation_dropout) == (0.1, 0, 0)
    assert transformers.MaskFormerSwinConfig().drop_path_rate == 0.1
    # As published: one rate at all three places, and 0.3 of paths.
    assert QuerySettings().dropout == 0.1
    assert SwinBackboneSettings().drop_path == 0.3


def test_a_fused_segment_has_an_entry_per_query_in_theirs_and_one_in_ours():
    classes, masks = class_logits(0, 0, 3), bands(slice(0, 2), slice(2, 4), slice(4, 8))
    _, infos = their_map(classes, masks, label_ids_to_fuse={2})
    assert [info["id"] for info in infos].count(infos[0]["id"]) == 2
    assert [segment.area for segment in our_map(classes, masks).segments] == [32, 32]


def test_their_images_change_their_shape_and_the_mask_of_padding_is_not_read(twins):
    picture = torch.zeros(3, 90, 130, dtype=torch.uint8)
    size = {"shortest_edge": 90, "longest_edge": 200}
    processor = transformers.MaskFormerImageProcessor(size=size, size_divisor=32)
    height, width = processor(picture, return_tensors="pt")["pixel_values"].shape[-2:]
    assert height % 32 == width % 32 == 0
    assert height / width != pytest.approx(90 / 130, rel=0.02)
    # Ours keeps the shape and pads.
    assert ImageBatch.from_images([picture]).padded_to(32).padded_size == (96, 160)
    theirs, _ = twins
    pixels = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        plain, masked = (
            theirs(pixel_values=pixels, pixel_mask=torch.full((1, 64, 64), value))
            for value in (1, 0)
        )
    assert torch.equal(plain.masks_queries_logits, masked.masks_queries_logits)


def test_theirs_has_objects_from_queries_and_the_release_and_ours_have_none(twins):
    assert hasattr(transformers.MaskFormerImageProcessor, "post_process_instance_segmentation")
    _, ours = twins
    (prediction,) = ours.predict(batch_of((64, 64)), [(64, 64)])
    assert prediction.instances is None


def test_another_option_of_theirs_norms_the_stream_itself_which_the_original_does_not(twins):
    theirs, ours = twins
    batch = batch_of((64, 64))
    pixels = ours.trunk.normalization(batch)
    decoder = theirs.model.transformer_module.decoder
    found = {}
    for value in (False, True):
        decoder.config.auxiliary_loss = value
        with torch.no_grad():
            found[value] = theirs(pixel_values=pixels).class_queries_logits
    decoder.config.auxiliary_loss = False
    with torch.no_grad():
        logits = in_their_order(ours.outputs(batch).class_logits)
    torch.testing.assert_close(logits, found[False], rtol=0, atol=4e-6)
    assert (found[True] - logits).abs().max() > 0.01


def test_theirs_resizes_probabilities_with_the_padding_and_ours_logits_without():
    def areas(masks, size, padded):
        classes, thresholds = class_logits(3, 4), {"overlap_threshold": 0.0}
        ids, infos = their_map(classes, masks, target_sizes=[size], overlap_mask_area_threshold=0.0)
        ours = our_map(classes, masks, FrameSizes(padded, size, size), **thresholds)
        theirs = [int((ids == info["id"]).sum()) for info in infos]
        return [segment.area for segment in ours.segments], theirs

    # Two cells in a row: one mask is sure of the left one, the other rather is of both. Between
    # the cells the first one's logit falls faster than its probability.
    assert areas(torch.tensor([[[3.0, -30.0]], [[0.5, 0.5]]]), (1, 8), (1, 8)) == ([2, 6], [3, 5])
    # The right cell is padding: theirs squeezes it into the image.
    assert areas(torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]]), (1, 4), (1, 8)) == ([4], [2, 2])


def test_a_cost_that_is_no_number_is_an_error_in_the_original_and_dearest_in_both_others():
    cost = torch.tensor([[float("nan"), 0.0], [1.0, 2.0], [3.0, float("inf")]])
    # The original gives the matrix to scipy as it is.
    with pytest.raises(ValueError, match="invalid numeric entries"):
        linear_sum_assignment(cost)
    largest = torch.finfo(cost.dtype).max
    theirs = linear_sum_assignment(cost.nan_to_num(nan=largest, posinf=largest))
    ((rows, columns),) = cheapest_assignments([cost])
    assert (
        [rows.tolist(), columns.tolist()] == [part.tolist() for part in theirs] == [[0, 1], [1, 0]]
    )
    matcher = tiny_maskformer().criterion.matcher
    pairs = matcher(
        torch.full((1, 9, 4, 4), float("nan")),
        torch.zeros(1, 9, NUM_LABELS + 1),
        [torch.ones(2, 8, 8)],
        [torch.tensor([0, 1])],
    )
    assert len(pairs[0][0]) == 2


def test_theirs_starts_with_other_weights_than_the_original_and_ours():
    torch.manual_seed(0)
    config = tiny_maskformer("resnet").config
    theirs = transformers.MaskFormerForInstanceSegmentation(config)
    # Xavier takes both fans; the original the first alone, see the test of our own weights.
    convolution = theirs.model.pixel_level_module.decoder.fpn.layers[0].proj[0]
    fan_out, fan_in = convolution.weight.shape[:2]
    limit = (6 / (fan_in + fan_out)) ** 0.5
    assert 0.9 * limit < convolution.weight.abs().max() <= limit
    ours = PixelDecoder((256, 512), 64, 32, make_norm_act("group_norm", slope=0.0, num_groups=32))
    lateral = ours.lateral[0].conv.weight
    assert 0.9 * (3 / 256) ** 0.5 < lateral.abs().max() <= (3 / 256) ** 0.5
    heads = theirs.mask_embedder.modules()
    assert not any(m.bias.any() for m in heads if isinstance(m, nn.Linear))
    assert all(layer.bias.any() for layer in MaskEmbedding(32, 32).layers)


def test_the_number_of_masks_is_that_of_all_workers_in_the_original_and_ours(monkeypatch):
    criterion = tiny_maskformer().criterion
    # Under plain torch.distributed theirs counts its own targets alone.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *group: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *a, **k: pytest.fail("reduced"))
    assert criterion.get_num_masks([torch.zeros(3)], torch.device("cpu")) == 3
    # Ours gives sums and counts; who trains adds both over workers before dividing.
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(1, 2, 9, NUM_LABELS + 1, generator=generator)
    masks = torch.randn(1, 2, 9, 4, 4, generator=generator)
    targets = [
        MaskTargets(
            torch.randint(1, 1 + n, (16, 16)).int(), torch.arange(1, 1 + n).int(), torch.arange(n)
        )
        for n in (1, 4)
    ]
    workers = [
        set_losses(
            classes[:, i : i + 1], masks[:, i : i + 1], targets[i : i + 1], QueryLossSettings()
        )
        for i in range(2)
    ]
    whole = set_losses(classes, masks, targets, QueryLossSettings())
    for name in ("mask_focal", "mask_dice"):
        assert [worker[name].count for worker in workers] == [1, 4]
        total = sum(worker[name].total for worker in workers)
        torch.testing.assert_close(total / 5, whole[name].total / whole[name].count)
