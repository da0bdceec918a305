"""MaskFormer and its baselines as networks: batches, randomness, empty images, learning."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.models.networks.per_pixel import ConvClassHead
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.models.queries.query_decoder import QueryDecoder
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.views import View
from tests.support.tiny_maskformer import (
    SPACE,
    batch_of,
    scene,
    tiny_maskformer,
    tiny_per_pixel,
)

WEIGHTS = {"query_class": 1.0, "mask_focal": 20.0, "mask_dice": 1.0, "semantic": 1.0}
NETWORKS = {
    "segments": lambda: tiny_maskformer(),
    "classes": lambda: tiny_maskformer(targets="classes", task="semantic"),
    "encoder": lambda: tiny_maskformer(encoder=True),
    "per_pixel": lambda: tiny_per_pixel(queries=False),
    "per_pixel_plus": lambda: tiny_per_pixel(queries=True),
}


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]()


def weighted(losses):
    return sum(
        next(weight for key, weight in WEIGHTS.items() if name.startswith(key))
        * loss.total
        / max(1.0, loss.count)
        for name, loss in losses.items()
    )


def test_losses_have_the_names_of_the_network_and_every_parameter_learns(network):
    losses = network.losses(*batch_of(scene(64, 96), scene(50, 70)))
    assert tuple(sorted(losses)) == tuple(sorted(network.loss_names))
    weighted(losses).backward()
    silent = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    }
    assert silent == set()


def test_an_image_of_pure_void_has_finite_losses_with_a_gradient_path(network):
    losses = network.losses(*batch_of(scene(40, 40, empty=True)))
    total = weighted(losses)
    assert total.isfinite()
    total.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    for name, loss in losses.items():
        if not name.startswith("query_class"):
            assert loss.total.item() == 0
            assert loss.count == 0


def test_all_randomness_comes_from_the_generators(network):
    batch, targets, _ = batch_of(scene(64, 64))

    def total(seed, noise):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        losses = network.losses(batch, targets, [torch.Generator().manual_seed(seed)])
        # Nobody else's draws depend on it.
        assert torch.equal(torch.get_rng_state(), before)
        return weighted(losses).item()

    assert total(1, 2) == total(1, 3)
    if any(isinstance(m, torch.nn.Dropout) for m in network.modules()):
        assert total(1, 2) != total(2, 2)


def test_losses_of_a_batch_are_sums_over_its_images(network):
    network = network.eval()
    first, second = scene(64, 64), scene(64, 64, empty=True)
    together = network.losses(*batch_of(first, second))
    alone = [network.losses(*batch_of(one)) for one in (first, second)]
    for name, loss in together.items():
        torch.testing.assert_close(loss.total, alone[0][name].total + alone[1][name].total)
        assert loss.count == pytest.approx(alone[0][name].count + alone[1][name].count)


@pytest.mark.slow
def test_a_network_learns_one_picture_by_heart():
    network = tiny_maskformer(dropout=0.0)
    picture = scene(64, 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(100):
        loss = weighted(network.losses(*batch_of(picture)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, target = picture
    ((prediction),) = network.eval().predict(ImageBatch.from_images([image]), [(64, 64)])
    wrong = prediction.panoptic.semantic_map() != target.semantic_map
    assert wrong.float().mean() < 0.1
    assert sorted(s.train_id for s in prediction.panoptic.segments) == [1, 2, 4]


def test_predictions_have_the_size_of_the_file_and_do_not_depend_on_the_batch(network):
    network = network.eval().double()
    images = [scene(50, 70)[0], scene(50, 70)[0].flip(-1)]
    sizes = [(120, 100), (33, 64)]
    together = network.predict(ImageBatch.from_images(images), sizes)
    for image, size, prediction in zip(images, sizes, together, strict=True):
        ((alone),) = network.predict(ImageBatch.from_images([image]), [size])
        assert prediction.panoptic.image_size == tuple(prediction.semantic_map.shape) == size
        assert torch.equal(alone.panoptic.id_map, prediction.panoptic.id_map)
        assert torch.equal(alone.semantic_map, prediction.semantic_map)
        assert prediction.panoptic.label_space == SPACE


def test_logits_of_half_precision_networks_give_maps():
    network = tiny_maskformer().eval()
    batch = ImageBatch.from_images([scene(64, 64)[0]])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        outputs = network.outputs(batch)
    ((prediction),) = network.finish(outputs, [(64, 64)])
    assert prediction.semantic_map.shape == (64, 64)


def test_losses_under_autocast_are_computed_in_single_precision():
    network = tiny_maskformer(dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = network.losses(*batch_of(scene(64, 64)))
    assert {loss.total.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["classes", "per_pixel", "segments"])
def test_views_of_the_image_itself_change_nothing(name):
    network = NETWORKS[name]().eval()
    batch, sizes = ImageBatch.from_images([scene(64, 96)[0]]), [(64, 96)]
    views = ViewedNet(network, [View(shortest_side_pixels=64)])
    ((plain),) = network.predict(batch, sizes)
    ((averaged),) = views.predict(batch, sizes)
    assert torch.equal(averaged.semantic_map, plain.semantic_map)
    assert torch.equal(averaged.panoptic.id_map, plain.panoptic.id_map)
    mirrored = ViewedNet(network, [View(), View(flip=True), View(0.5), View(0.5, flip=True)])
    ((there),) = mirrored.predict(batch, sizes)
    ((back),) = mirrored.predict(ImageBatch.from_images([scene(64, 96)[0].flip(-1)]), sizes)
    assert (there.semantic_map != back.semantic_map.flip(-1)).float().mean() < 0.02


@pytest.mark.parametrize("self_attention", [True, False])
def test_decoders_without_self_attention_have_no_weights_for_it(self_attention):
    decoder = QueryDecoder(
        24,
        16,
        5,
        num_layers=3,
        num_heads=4,
        hidden_channels=32,
        dropout=0.0,
        self_attention=self_attention,
    )
    named = [name for name, _ in decoder.named_parameters() if "self_attn" in name]
    assert bool(named) == self_attention
    contents = decoder(torch.randn(2, 24, 3, 4))
    assert contents.shape == (3, 2, 5, 16)
    # Without it no query knows of the others.
    memory = torch.randn(1, 24, 4, 4)
    with torch.no_grad():
        before = decoder(memory)[-1, 0]
        decoder.query_embed.weight[0] += 1
        after = decoder(memory)[-1, 0]
    assert torch.allclose(before[1:], after[1:], atol=1e-6) != self_attention


def is_uniform(tensor, limit):
    """Whether many numbers lie between -limit and limit and fill that."""
    return limit * (
        1 - 20 / tensor.numel()
    ) < tensor.abs().max() <= limit and tensor.mean().abs() < (
        4 * limit / (3 * tensor.numel()) ** 0.5
    )


def test_new_weights_are_drawn_as_the_released_code_draws_them():
    network = tiny_maskformer(encoder=True)
    pixels, queries = network.pixel_decoder, network.query_decoder
    convolutions = [m for m in pixels.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 9
    for convolution in [*convolutions, *[m for m in [queries.input_proj] if hasattr(m, "bias")]]:
        assert is_uniform(convolution.weight, (3 / convolution.weight[0].numel()) ** 0.5)
        assert convolution.bias is None or not convolution.bias.any()
    for transformer in (pixels.encoder, queries.decoder):
        matrices = {n: p for n, p in transformer.named_parameters() if p.ndim > 1}
        assert any(name.endswith("in_proj_weight") for name in matrices)
        for name, matrix in matrices.items():
            assert is_uniform(matrix, (6 / sum(matrix.shape)) ** 0.5), name
        for name, vector in transformer.named_parameters():
            if "norm" in name:
                assert torch.equal(vector, torch.full_like(vector, name.endswith("weight")))
            elif "attn" in name and vector.ndim == 1:
                assert not vector.any(), name
    first, *others = queries.decoder.layers
    assert others
    for layer in others:
        assert not torch.equal(layer.linear1.weight, first.linear1.weight)
        for name in ("linear1", "linear2"):
            bias = getattr(first, name).bias
            assert torch.equal(getattr(layer, name).bias, bias)
            assert bias.abs().max() <= getattr(first, name).in_features ** -0.5
    assert queries.query_embed.weight.std().item() == pytest.approx(1, abs=0.25)
    for linear in (network.class_embed, *network.mask_embed.layers):
        assert linear.weight.abs().max() <= linear.in_features**-0.5
        assert linear.bias.any()


def test_the_classes_of_pixels_start_normal():
    predictor = ConvClassHead(256, 150).predictor
    assert predictor.weight.std().item() == pytest.approx((2 / 150) ** 0.5, rel=0.02)
    assert not predictor.bias.any()
