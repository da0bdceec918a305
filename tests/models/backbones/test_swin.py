"""Swin: where it is timm's and torchvision's, where it is not, and sizes that need padding."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from seamless_pr.layers.window_attention import shift_bias
from seamless_pr.models.backbones.swin import SWIN_SHAPES, SwinShape, SwinTransformer
from seamless_pr.weights.swin import fit_swin

TINY = SwinShape(12, (1, 2, 2, 2), (1, 2, 3, 4), 4)


def stages_before_norms(network, images):
    found = []
    hooks = [
        layer.register_forward_hook(lambda module, args, out: found.append(out[0]))
        for layer in network.layers
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.fixture(scope="module")
def pair():
    """timm's Swin-T with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    ours = SwinTransformer(SWIN_SHAPES["swin_tiny"]).eval()
    state, report = fit_swin(theirs.state_dict(), ours.state_dict())
    report.check("timm")
    ours.load_state_dict(state)
    return theirs, ours


def timm_stages(network, images):
    found = []
    with torch.no_grad():
        x = network.patch_embed(images)
        for layer in network.layers:
            x = layer(x)
            found.append(x)
    return found


def test_stages_of_more_than_one_window_are_those_of_timm(pair):
    theirs, ours = pair
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(
        stages_before_norms(ours, images)[:3], timm_stages(theirs, images)[:3], strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_single_window_is_shifted_all_the_same_unlike_in_timm(pair):
    theirs, ours = pair
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found, expected = stages_before_norms(ours, images)[3], timm_stages(theirs, images)[3]
    assert (found - expected).abs().max() > 1e-2
    # Without the shift of its second block it is timm's: nothing else differs.
    ours.layers[3].blocks[1].shift = 0
    again = stages_before_norms(ours, images)[3]
    ours.layers[3].blocks[1].shift = 3
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_torchvision_fit_completely_and_compute_the_same():
    theirs = torchvision.models.swin_t(weights=None).eval()
    ours = SwinTransformer(SWIN_SHAPES["swin_tiny"]).eval()
    state, report = fit_swin(theirs.state_dict(), ours.state_dict())
    report.check("torchvision")
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        # Patches and first stage, then merging and second stage.
        expected = [theirs.features[:2](images), theirs.features[:4](images)]
    for found, wanted in zip(stages_before_norms(ours, images)[:2], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_authors_own_files_keep_their_names():
    ours = SwinTransformer(TINY)
    source = {name: tensor + 1 for name, tensor in ours.state_dict().items() if name[:4] != "norm"}
    source |= {
        "norm.weight": torch.ones(96),
        "head.bias": torch.ones(5),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
    }
    state, report = fit_swin(source, ours.state_dict())
    report.check("authors")
    assert torch.equal(state["layers.0.downsample.norm.bias"], torch.ones(48))
    assert torch.equal(state["norm3.weight"], torch.ones(96))


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 64), (130, 31)])
def test_any_size_has_stages_of_rounded_up_sizes(size):
    network = SwinTransformer(TINY).eval()
    with torch.no_grad():
        stages = network(torch.randn(2, 3, *size))
    for stage, stride, channels in zip(stages, network.strides, network.out_channels, strict=True):
        assert stage.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert stage.isfinite().all()


def test_images_of_a_batch_do_not_see_each_other():
    network = SwinTransformer(TINY).double().eval()
    images = torch.randn(3, 3, 70, 45, dtype=torch.float64)
    with torch.no_grad():
        together = network(images)
        for index in range(3):
            alone = network(images[index : index + 1])
            for whole, single in zip(together, alone, strict=True):
                torch.testing.assert_close(whole[index : index + 1], single)


def test_cells_are_kept_apart_that_only_the_shift_made_neighbours():
    bias = shift_bias((6, 8), 4, torch.zeros(1))
    # 6 rows are padded to 8: two by two windows of 4 x 4 cells.
    assert bias.shape == (4, 16, 16)
    assert set(bias.unique().tolist()) == {0.0, -100.0}
    assert not bias[0].any()
    # In the last window rows 0, 1 and 2, 3 come from different sides of the map, columns too.
    last = (bias[3] == 0).unflatten(1, (4, 4))[0]
    assert last.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_steps_are_skipped_for_some_images_only_in_training():
    torch.manual_seed(0)
    network = SwinTransformer(TINY, drop_path=0.9)
    images = torch.randn(1, 3, 32, 32)
    network.train()
    drawn = {network(images)[-1].sum().item() for _ in range(6)}
    assert len(drawn) > 1
    network.eval()
    assert len({network(images)[-1].sum().item() for _ in range(3)}) == 1
    rates = [block.drop_path.p for layer in network.layers for block in layer.blocks]
    assert rates == pytest.approx([0.15 * index for index in range(7)])


def test_frozen_parts_do_not_train():
    network = SwinTransformer(TINY)
    network.freeze(2)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    frozen = {name for name, _ in network.named_parameters()} - trained
    assert {name.split(".")[0] for name in frozen} == {"patch_embed", "layers", "norm0"}
    assert all(name.startswith("layers.0.") for name in frozen if name.startswith("layers"))
    with pytest.raises(ValueError, match="num_stages"):
        network.freeze(6)


def test_blocks_that_are_computed_again_change_no_bit_of_the_gradients():
    """Steps that are skipped at random are skipped in both passes."""
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = SwinTransformer(TINY, drop_path=0.5, checkpointing=checkpointing)
        stages = network(torch.rand(3, 3, 50, 70))
        sum(stage.square().mean() for stage in stages).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)
