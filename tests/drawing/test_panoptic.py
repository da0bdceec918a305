"""Pictures of panoptic maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seamless_pr.drawing import panoptic
from seamless_pr.drawing.panoptic import draw_comparison, draw_grid, draw_panoptic, segment_colors
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

ROAD, SKY, CAR = (128, 64, 128), (70, 130, 180), (0, 0, 142)
LABEL_SPACE = LabelSpace(
    "toy",
    (
        Category(7, "road", False, ROAD),
        Category(23, "sky", False, SKY),
        Category(26, "car", True, CAR),
    ),
)
HEIGHT, WIDTH = 40, 90


def scene(first_id: int = 1) -> PanopticSegmentation:
    """Sky above road; two cars; void in the last columns."""
    ids = torch.full((HEIGHT, WIDTH), first_id, dtype=torch.int32)
    ids[20:] = first_id + 1
    ids[25:35, 10:30] = first_id + 2
    ids[25:35, 40:60] = first_id + 3
    ids[:, 80:] = 0
    train_ids = (1, 0, 2, 2)
    segments = tuple(
        Segment(first_id + index, train_id, 1) for index, train_id in enumerate(train_ids)
    )
    return PanopticSegmentation(ids, segments, LABEL_SPACE)


def grey(value: int = 100) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def test_opaque_colours_are_those_of_the_label_space() -> None:
    picture = draw_panoptic(grey(), scene(), alpha=1.0, contours=False, legend=False)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[5, 5]) == SKY
    assert tuple(picture[22, 5]) == ROAD
    assert tuple(picture[30, 20]) == CAR


def test_objects_of_one_class_have_different_shades_and_regions_have_not() -> None:
    colors = segment_colors(scene())
    assert (colors[1], colors[2], colors[3]) == (SKY, ROAD, CAR)
    red, green, blue = colors[4]
    assert colors[4] != CAR
    assert blue > max(red, green)


def test_hundred_objects_have_hundred_colours() -> None:
    segments = tuple(Segment(index, 2, 1) for index in range(1, 101))
    id_map = torch.zeros(1, 1, dtype=torch.int32)
    colors = segment_colors(PanopticSegmentation(id_map, segments, LABEL_SPACE))
    assert len(set(colors.values())) == 100


def test_colours_mix_with_the_image_by_alpha() -> None:
    picture = draw_panoptic(grey(100), scene(), alpha=0.5, contours=False, legend=False)
    assert picture[5, 5].tolist() == [85, 115, 140]
    unchanged = draw_panoptic(grey(100), scene(), alpha=0.0, contours=False, legend=False)
    assert (unchanged[:, :80] == 100).all()


def test_void_is_the_darkened_image_under_lines() -> None:
    picture = draw_panoptic(grey(100), scene(), contours=False, legend=False)
    void = picture[:, 80:]
    assert void.min() == 50
    assert 60 < void.max() < 150
    assert (void[..., 0] == void[..., 1]).all()


def test_contours_are_light_around_objects_and_dark_between_regions() -> None:
    plain = draw_panoptic(grey(), scene(), contours=False, legend=False).astype(int)
    drawn = draw_panoptic(grey(), scene(), contours=True, legend=False).astype(int)
    object_side, region_border = (30, 29), (19, 70)
    assert (drawn[object_side] > plain[object_side] + 80).all()
    assert (drawn[region_border] < plain[region_border] - 20).all()
    inside = (30, 20)
    assert (drawn[inside] == plain[inside]).all()


def test_legend_lies_below_the_image_and_grows_with_its_rows() -> None:
    without = draw_panoptic(grey(), scene(), legend=False)
    with_legend = draw_panoptic(grey(), scene(), legend=True)
    assert with_legend.shape[1] == WIDTH
    np.testing.assert_array_equal(with_legend[:HEIGHT], without)
    strip = with_legend[HEIGHT:]
    for color in (ROAD, SKY, CAR):
        assert (strip == color).all(-1).any()
    wide_image = np.zeros((HEIGHT, 900, 3), np.uint8)
    wide = PanopticSegmentation(
        torch.nn.functional.pad(scene().id_map, (0, 810)), scene().segments, LABEL_SPACE
    )
    assert draw_panoptic(wide_image, wide).shape[0] < with_legend.shape[0]


def test_legend_names_only_what_is_seen() -> None:
    ids = torch.ones(HEIGHT, WIDTH, dtype=torch.int32)
    hidden = PanopticSegmentation(ids, (Segment(1, 1, 1), Segment(2, 2, 0)), LABEL_SPACE)
    strip = draw_panoptic(grey(), hidden)[HEIGHT:]
    assert (strip == SKY).all(-1).any()
    assert not (strip == CAR).all(-1).any()


def test_large_ids_look_the_same_as_small_ones() -> None:
    small, large = draw_panoptic(grey(), scene()), draw_panoptic(grey(), scene(15_000_000))
    np.testing.assert_array_equal(small, large)


def test_pure_void_and_tensors_are_drawn() -> None:
    void = PanopticSegmentation(torch.zeros(HEIGHT, WIDTH, dtype=torch.int32), (), LABEL_SPACE)
    picture = draw_panoptic(torch.from_numpy(grey()).permute(2, 0, 1), void)
    assert picture.shape[0] > HEIGHT


@pytest.mark.parametrize("width", [70, 2500])
def test_strips_of_a_large_picture_meet_without_a_seam(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    # Blobs of void, regions and objects, whose borders cross every strip.
    ids = np.kron(generator.integers(0, 4, (12, width // 10)), np.ones((11, 10), int))
    map_of_blobs = PanopticSegmentation(
        torch.from_numpy(ids.astype(np.int32)), scene().segments, LABEL_SPACE
    )
    image = generator.integers(0, 256, (*ids.shape, 3)).astype(np.uint8)
    pictures = []
    for rows in (1000, 64, 7):
        monkeypatch.setattr(panoptic, "STRIP_ROWS", rows)
        pictures.append(draw_panoptic(image, map_of_blobs))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_image_is_not_changed_by_drawing() -> None:
    image = grey()
    draw_panoptic(image, scene())
    assert (image == 100).all()


def test_wrong_sizes_and_opacities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image is \(20, 20\) but segmentation \(40, 90\)"):
        draw_panoptic(np.zeros((20, 20, 3), np.uint8), scene())
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]; got 1.5"):
        draw_panoptic(grey(), scene(), alpha=1.5)


def test_comparison_shows_the_image_and_each_map_beside_each_other() -> None:
    maps = {"Ground truth": scene(), "Prediction": scene()}
    row = draw_comparison(grey(), maps)
    assert row.shape[1] > 3 * WIDTH
    column = draw_comparison(grey(), maps, columns=1, show_image=False)
    assert column.shape[1] == WIDTH
    assert column.shape[0] > 2 * HEIGHT


def test_grid_fills_rows_from_the_left() -> None:
    panels = {str(value): grey(value) for value in (10, 20, 30)}
    grid = draw_grid(panels, columns=2)
    height, width = grid.shape[:2]
    middles = [grid[height // 4 + 10, width // 4], grid[height // 4 + 10, width * 3 // 4]]
    assert [int(pixel[0]) for pixel in middles] == [10, 20]
    assert int(grid[height * 3 // 4 + 10, width // 4, 0]) == 30
    with pytest.raises(ValueError, match="at least one panel"):
        draw_grid({})
    with pytest.raises(ValueError, match="one size"):
        draw_grid({"a": grey(), "b": grey()[:10]})
