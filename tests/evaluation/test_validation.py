from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seamless_pr.evaluation.validation import true_segmentation, true_segments, validate
from seamless_pr.inference.predictor import Predictor
from seamless_pr.metrics.panoptic_meter import PanopticQuality
from seamless_pr.metrics.panoptic_quality import PQCounts
from seamless_pr.models.networks.network import Network
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.prediction import Prediction

LABELS = LabelSpace(
    "two",
    (Category(7, "road", False, (128, 64, 128)), Category(26, "car", True, (0, 0, 142))),
)


def drawn(*rows: str) -> torch.Tensor:
    return torch.tensor([[int(sign) for sign in row] for row in rows], dtype=torch.int32)


# Road, two cars, a group of cars, a void pixel.
TRUTH = PanopticTarget(
    drawn("112233", "112233", "111144", "111140"),
    torch.tensor([0, 1, 1, 1]),
    torch.tensor([False, False, False, True]),
    LABELS,
    "street",
)


def predicted(id_map: torch.Tensor, *train_ids: int) -> PanopticSegmentation:
    segments = tuple(
        Segment(index + 1, train_id, int((id_map == index + 1).sum()), 1.0)
        for index, train_id in enumerate(train_ids)
    )
    return PanopticSegmentation(id_map, segments, LABELS)


def count_image(segmentation: PanopticSegmentation, target: PanopticTarget) -> PQCounts:
    return PanopticQuality(LABELS).update(
        target.id_map, true_segments(target), segmentation.id_map, segmentation.segments
    )


def test_the_truth_itself_has_no_error() -> None:
    counts = count_image(true_segmentation(TRUTH), TRUTH)
    assert counts.tp.tolist() == [1, 2]
    assert counts.iou_sum.tolist() == [1.0, 2.0]
    assert counts.fp.tolist() == counts.fn.tolist() == [0, 0]


def test_a_missed_car_and_a_crowd_count_by_the_official_rules() -> None:
    # One car found with one column of road; the other left void; a car inside the group is excused.
    segmentation = predicted(drawn("122200", "122200", "111133", "111133"), 0, 1, 1)
    counts = count_image(segmentation, TRUTH)
    assert counts.tp.tolist() == [1, 1]
    assert counts.iou_sum.tolist() == pytest.approx([10 / 12, 4 / 6])
    assert counts.fn.tolist() == [0, 1]
    assert counts.fp.tolist() == [0, 0]


def test_truth_is_resized_without_new_ids() -> None:
    small = true_segmentation(TRUTH, (2, 3))
    assert small.id_map.tolist() == [[1, 2, 3], [1, 1, 0]]
    assert [segment.area for segment in small.segments] == [3, 1, 1, 0]


class Oracle(Network):
    """Knows the truth of each picture by its first pixel."""

    label_space = LABELS

    def __init__(self, answers: dict[int, PanopticSegmentation]) -> None:
        super().__init__()
        self.answers = answers

    def outputs(self, batch):
        return batch.images[:, 0, 0, 0].tolist()

    def finish(self, outputs, sizes):
        return [Prediction(self.answers[key]) for key in outputs]


def test_images_are_scored_together_and_at_the_size_of_their_files() -> None:
    missed = predicted(drawn("111111", "111111", "111111", "111111"), 0)
    network = Oracle({0: true_segmentation(TRUTH), 1: missed})
    # Network size and padding differ from the size of the file.
    images = torch.zeros(2, 3, 9, 14, dtype=torch.uint8)
    images[1] = 1
    batch = ImageBatch(images, ((8, 12), (8, 12)))
    scores = validate(
        Predictor(network, shortest_side_pixels=8), [(batch, [TRUTH, replace(TRUTH)])]
    )
    # Cars: two found, two missed. Road: 1 and 14 of 23 (void is left out).
    assert scores["classes"]["car"] == pytest.approx(2 / (2 + 0.5 * 2))
    assert scores["classes"]["road"] == pytest.approx((1 + 12 / 23) / 2)
    assert scores["things"]["pq"] == scores["classes"]["car"]
    assert scores["all"]["pq"] == pytest.approx(sum(scores["classes"].values()) / 2)


def test_no_image_scores_nothing() -> None:
    scores = validate(Predictor(Oracle({}), shortest_side_pixels=8), [])
    assert scores["all"] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    assert scores["classes"] == {}


def test_two_classes_of_one_name_keep_both_scores() -> None:
    names_alike = LabelSpace("alike", (*(replace(c, name="lane") for c in LABELS.categories),))
    target = replace(TRUTH, label_space=names_alike)
    network = Oracle({0: replace(true_segmentation(target), label_space=names_alike)})
    network.label_space = names_alike
    batch = ImageBatch(torch.zeros(1, 3, 4, 6, dtype=torch.uint8), ((4, 6),))
    scores = validate(Predictor(network, shortest_side_pixels=4), [(batch, [target])])
    assert scores["classes"] == {"lane (7)": 1.0, "lane (26)": 1.0}
