"""A cascade whose semantic context is what the network's semantic branch sees."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.models.networks.two_branch import TwoBranchNet
from tests.config.test_model_keys import HTC, SUMMED
from tests.support.model_keys import LABEL_SPACE, batch
from tests.support.small_config import smallest

SIZES = [(64, 100), (48, 80)]
SHARING = {**HTC, "instances": {**HTC["instances"], "shares_semantics": True}}


def network(model):
    torch.manual_seed(0)
    config = config_from_dict(smallest(model=model, loss_weights={}), "test", [])
    return build_network(config.model, LABEL_SPACE)


@pytest.mark.parametrize("semantics", [HTC["semantics"], SUMMED["semantics"]])
def test_losses_of_boxes_and_masks_reach_the_semantic_branch(semantics):
    net = network({**SHARING, "semantics": semantics})
    images, targets = batch()
    generators = [torch.Generator().manual_seed(index) for index in range(2)]
    losses = net.losses(images, targets, generators)
    assert set(losses) == set(net.loss_names)
    assert "context" not in losses
    (losses["mask_1"].total + losses["box_class_1"].total).backward()
    hidden = [w for name, w in net.semantics.head.named_parameters() if "predictor" not in name]
    assert all(weight.grad is not None for weight in hidden)
    assert any(bool(weight.grad.abs().sum() > 0) for weight in hidden)
    assert net.semantics.head.predictor.weight.grad is None


def test_a_context_of_zeros_is_none_and_semantics_are_not_changed_by_it():
    shared, alone = network(SHARING).eval(), network(HTC).eval()
    missing, unexpected = shared.load_state_dict(alone.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[1] for name in missing} == {"shared_context"}
    images, _ = batch()
    with torch.no_grad():
        changed = shared.outputs(images)
        for weight in shared.instances.shared_context.parameters():
            weight.zero_()
        zeros, expected = shared.outputs(images), alone.outputs(images)
    torch.testing.assert_close(zeros.semantic_logits, expected.semantic_logits)
    torch.testing.assert_close(changed.semantic_logits, expected.semantic_logits)
    for ours, theirs, other in zip(zeros.instances, expected.instances, changed.instances):
        torch.testing.assert_close(ours.scores, theirs.scores)
        torch.testing.assert_close(ours.boxes, theirs.boxes)
        assert len(other) != len(ours) or not torch.equal(other.scores, ours.scores)


def test_a_network_without_semantics_has_nothing_to_share():
    with pytest.raises(ValueError, match=r"set model\.semantics\.kind to mini_dl or"):
        network({**SHARING, "semantics": None})
    net = network(SHARING)
    with pytest.raises(ValueError, match="but there is none"):
        TwoBranchNet(net.trunk, net.instances, None, net.fusion)
    with pytest.raises(ValueError, match="two sources of one thing"):
        network({**HTC, "instances": {**SHARING["instances"], "context": True}})
