"""The stand-in for a GPU, and the table of how long it waits."""

from __future__ import annotations

import time

import torch

from seamless_pr.inference.predictor import Predictor
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tools.measure import ray_feeding as tool

SPACE = LabelSpace("one", (Category(7, "road", False, (0, 0, 0)),))


def test_the_stand_in_takes_its_time_and_hands_out_its_map():
    drawn = PanopticSegmentation(torch.ones(4, 6, dtype=torch.int32), (Segment(1, 0, 24),), SPACE)
    predictor = Predictor(tool.WaitingNetwork(drawn, 0.05), shortest_side_pixels=4, batch_size=2)
    images = [torch.zeros(3, 4, 6, dtype=torch.uint8)] * 2
    start, core_start = time.monotonic(), time.process_time()
    predictions = predictor.predict_resized(images, [(4, 6)] * 2)
    assert time.monotonic() - start >= 0.1
    assert time.process_time() - core_start < 0.1
    assert [prediction.panoptic for prediction in predictions] == [drawn, drawn]


def test_the_table_gives_shares_of_what_the_network_could_do():
    ways = {tool.THREADS_ALONE: 10.0, tool.THREADS: 9.0, tool.TASKS: 8.0}
    rounds = [
        {"load": 0.1, **{way: {"rate": rate + more} for way, rate in ways.items()}}
        for more in (0, 1, 2)
    ]
    text = tool.feeding_section({"network_ms": 50, "num_images": 400, "rounds": rounds})
    assert f"| {tool.THREADS_ALONE} | 11.0 | 55 % (50 to 60) |" in text
    assert f"| {tool.TASKS} | 9.0 | 45 % (40 to 50) |" in text
    assert "Median of 3 rounds" in text
