"""The plan for many GPUs: its arithmetic against numbers worked out by hand and by drawing."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.layers.abn import ABN
from tests.support.snapshots import tiny_seamless_config
from tools.measure import cluster_plan as tool

COSTS = {
    "num_parameters": 60_000_000,
    "num_trained": 50_000_000,
    "num_buffer_values": 1_000_000,
    "num_norm_calls": 100,
    "num_norm_channels": 30_000,
    "scale_range": [1.0, 1.0],
    "drawn_image_bytes": 1_500_000,
    "read_ms": 30.0,
    "pack_ms": 20.0,
    "load_ms": 50.0,
    "write_ms": 10.0,
    "png_bytes": 30_000,
    "record_bytes": 1_000,
    "finished_ms": 0.05,
    "join_ms": 0.05,
}


def test_expected_areas_agree_with_drawn_scales():
    generator = torch.Generator().manual_seed(0)
    scales = 0.5 + 1.5 * torch.rand(20_000, 64, generator=generator, dtype=torch.float64)
    assert tool.mean_area((0.5, 2.0)) == pytest.approx(float((scales**2).mean()), rel=1e-2)
    for num_images in (8, 64):
        drawn = float((scales[:, :num_images].amax(1) ** 2).mean())
        assert tool.largest_area((0.5, 2.0), num_images) == pytest.approx(drawn, rel=1e-2)
    assert tool.largest_area((1.0, 1.0), 64) == 1.0


def test_a_ring_sends_almost_all_gradients_twice():
    assert tool.ring_bytes(1_000_000, 2) == 4e6
    assert tool.ring_bytes(1_000_000, 64) == pytest.approx(7.875e6)


def test_one_gpu_only_computes():
    plan = tool.training(COSTS, 1, teraflops=10, network_gigabits=None)
    seconds = 3 * 2 * tool.NETWORK_GIGA / 10_000
    assert plan.step_seconds == plan.compute_seconds == plan.even_seconds == pytest.approx(seconds)
    assert plan.images_per_second == pytest.approx(1 / seconds)


def test_the_all_reduce_counts_only_where_the_backward_pass_is_shorter():
    fast = tool.training(COSTS, 64, teraflops=10, network_gigabits=100)
    waiting = 2 * 100 * tool.EXCHANGE_SECONDS
    assert fast.step_seconds == pytest.approx(fast.compute_seconds + waiting)
    slow = tool.training(COSTS, 64, teraflops=10, network_gigabits=1)
    reduce = 2 * 63 / 64 * 4 * 50e6 / (1e9 / 8 * tool.NETWORK_SHARE)
    assert slow.reduce_seconds == pytest.approx(reduce)
    expected = slow.compute_seconds / 3 + waiting + reduce
    assert slow.step_seconds == pytest.approx(expected)


def test_checkpoints_hold_weights_statistics_and_momentum():
    assert tool.checkpoint_bytes(COSTS) == 4 * 111_000_000


def test_every_gpu_gets_the_statistics_of_all_others():
    received = 8 * (2 * 30_000 + 100)
    assert tool.norm_bytes(COSTS, 2) == pytest.approx(received + 4 * 2 * 30_000)


def test_norms_of_a_step_are_counted_as_often_as_they_run():
    net = build_network(tiny_seamless_config().model, load_label_space("cityscapes")).eval()
    calls = tool.norm_calls(net)
    levels = len(net.trunk.strides)
    shared = [m for m in net.instances.rpn_head.modules() if isinstance(m, ABN)]
    others = [m for m in net.modules() if isinstance(m, ABN)]
    # The proposal head runs on every level; the semantic head has modules of its own per level.
    assert len(calls) == len(others) + (levels - 1) * len(shared)
    assert not any(module._forward_pre_hooks for module in others)


def test_the_plan_names_what_saturates_and_what_is_assumed():
    rounds = [{"cores": 2, "Ray": {"rate": 500.0, "driver_ms_per_pair": 0.5}}]
    text = tool.plan_section(COSTS, rounds)
    assert "**Assumed**" in text
    assert "50.00 M of 60.00 M parameters are trained, 200 MB a step" in text
    assert "250 pairs a second and core" in text
    assert "it saturates at 2000 pairs a second, with 8 such cores" in text
    assert "**Evaluation**" not in tool.plan_section(COSTS, [])
