from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from seamless_pr.metrics.panoptic_meter import PanopticQuality, panoptic_quality
from seamless_pr.metrics.panoptic_quality import PanopticScores
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import Segment
from tests.metrics.maps import STUFF_AND_THINGS, draw, fuzz_image, table, to_table

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)


def _filled(seeds: range) -> PanopticQuality:
    meter = PanopticQuality(STUFF_AND_THINGS)
    for seed in seeds:
        image = fuzz_image(np.random.default_rng(seed))
        meter.update(
            image.gt_map,
            to_table(image.gt_segments, STUFF_AND_THINGS),
            image.pred_map,
            to_table(image.pred_segments, STUFF_AND_THINGS),
        )
    return meter


def test_arrays_tensors_mappings_and_records_give_the_same_scores() -> None:
    gt_map, pred_map = draw("aab\naac"), draw("aab\na.c")
    classes = {1: ROAD, 2: PERSON, 3: CAR}
    records = [Segment(segment_id, train_id, area=0) for segment_id, train_id in classes.items()]
    expected = panoptic_quality(gt_map, classes, pred_map, classes, STUFF_AND_THINGS)
    assert expected.per_class[ROAD].pq == pytest.approx(3 / 4)
    tensors = torch.from_numpy(gt_map), torch.from_numpy(pred_map)
    assert panoptic_quality(tensors[0], records, tensors[1], records, STUFF_AND_THINGS) == expected


def test_merged_meters_equal_one_meter_to_the_last_bit() -> None:
    whole, first, second = _filled(range(40)), _filled(range(17)), _filled(range(17, 40))
    first.merge(second)
    assert first.num_images == whole.num_images == 40
    assert first.compute() == whole.compute()


def test_update_returns_the_counts_of_its_image() -> None:
    meter = PanopticQuality(STUFF_AND_THINGS)
    for _ in range(2):
        counts = meter.update(draw("aa"), {1: ROAD}, draw("aa"), {1: ROAD})
    assert counts.tp[ROAD] == 1
    assert meter.counts.tp[ROAD] == 2


def test_crowd_of_records_is_known() -> None:
    crowd = [Segment(1, CAR, area=2, is_crowd=True)]
    meter = PanopticQuality(STUFF_AND_THINGS)
    meter.update(draw("aa"), crowd, draw("bb"), {2: CAR})
    assert meter.counts.fp.sum() == meter.counts.fn.sum() == 0


def test_reset_forgets_all_images() -> None:
    meter = _filled(range(3))
    meter.reset()
    assert meter.num_images == 0
    assert meter.compute().all.pq is None


def test_rules_are_chosen_by_name() -> None:
    gt = {1: ROAD, 2: PERSON}
    maps = draw("abb"), draw("a..")
    official = panoptic_quality(maps[0], gt, maps[1], {1: ROAD}, STUFF_AND_THINGS)
    paper = panoptic_quality(maps[0], gt, maps[1], {1: ROAD}, STUFF_AND_THINGS, rules="paper")
    assert (official.all.pq, paper.all.pq) == (0.5, 1.0)
    with pytest.raises(ValueError, match=r"no rules 'coco'; choose one of official"):
        PanopticQuality(STUFF_AND_THINGS, rules="coco")


def test_ids_without_a_segment_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pred_map holds id 2, which pred_segments does not list"):
        panoptic_quality(draw("aa"), {1: ROAD}, draw("ab"), {1: ROAD}, STUFF_AND_THINGS)
    with pytest.raises(ValueError, match=r"gt_map holds id 2"):
        panoptic_quality(draw("ab"), {1: ROAD}, draw("aa"), {1: ROAD}, STUFF_AND_THINGS)


def test_unknown_train_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gt_segments: train ids must be in 0..5; got 6"):
        panoptic_quality(draw("aa"), {1: 6}, draw("aa"), {1: ROAD}, STUFF_AND_THINGS)


def test_meters_of_different_classes_do_not_merge() -> None:
    other = PanopticQuality(LabelSpace("other", STUFF_AND_THINGS.categories[:4]))
    with pytest.raises(ValueError, match=r"got 'tiny' \(official\) and 'other' \(official\)"):
        PanopticQuality(STUFF_AND_THINGS).merge(other)


def test_areas_that_a_table_states_are_believed() -> None:
    meter = PanopticQuality(STUFF_AND_THINGS)
    meter.update(draw("aaaa"), table({"a": ROAD}, areas={"a": 8}), draw("aaaa"), {1: ROAD})
    assert meter.counts.fn[ROAD] == 1


def test_gather_alone_changes_nothing() -> None:
    meter = _filled(range(5))
    expected = meter.compute()
    meter.gather()
    assert meter.compute() == expected


def _gather_part(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    meter = _filled(range(0, 7) if rank else range(7, 20))
    meter.gather()
    torch.save((meter.num_images, repr(meter.compute())), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_workers_of_a_process_group_share_the_sum(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_gather_part, args=(str(tmp_path),), nprocs=2)
    expected: PanopticScores = _filled(range(20)).compute()
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == (20, repr(expected))
