"""Large images through the whole way: files, tiles, one map, a prediction folder."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from seamless_pr.datasets.coco_results import to_coco
from seamless_pr.datasets.run_lengths import read_run_lengths
from seamless_pr.datasets.windows import open_rows
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.inference import mosaic_folder
from seamless_pr.inference.folders import predict_folder
from seamless_pr.inference.image_list import list_images
from seamless_pr.inference.mosaic_folder import label_mosaics
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_grid import Tiling
from seamless_pr.inference.tiled_predictor import TiledPredictor
from tests.support.color_network import BLUE, GREEN, RED, ColorNetwork
from tests.support.memory import forget_peak, memory_status


def panorama(height: int, width: int) -> np.ndarray:
    """Green above, red below, one blue car over all tiles of the middle: [H, W, 3]."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2], image[height // 2 :] = GREEN, RED
    image[height // 2 - 20 : height // 2 + 20, width // 20 : -(width // 20)] = BLUE
    image[-30:, -30:] = 0
    return image


def predicted(path: Path, output: Path, *, extras: bool = False, **tiling: int):
    image = cv2.imread(str(path))
    predictor = Predictor(ColorNetwork(), shortest_side_pixels=min(image.shape[:2]))
    items = list_images(str(path))
    label = None
    if tiling:

        def label(items, folder):
            return label_mosaics(predictor, items, folder, tiling=Tiling(**tiling))

    summary = predict_folder(
        predictor, items, output, label=label, instances=extras, overlays=extras
    )
    assert summary.failures == ()
    (annotation,) = json.loads((output / "panoptic.json").read_text())["annotations"]
    return read_id_png(output / "panoptic" / annotation["file_name"]), annotation["segments_info"]


def test_a_panorama_in_tiles_is_that_seen_whole(tmp_path):
    path = tmp_path / "panorama.png"
    cv2.imwrite(str(path), panorama(600, 1500)[..., ::-1])
    whole, infos = predicted(path, tmp_path / "whole")
    tiled, tiled_infos = predicted(path, tmp_path / "tiled", size=160, overlap=40)
    by_category = {info["category_id"]: info for info in infos}
    assert len(by_category) == len(tiled_infos) == 3
    for info in tiled_infos:
        expected = by_category[info["category_id"]]
        assert {**info, "id": 0} == {**expected, "id": 0}
        assert np.array_equal(tiled == info["id"], whole == expected["id"])


def test_objects_of_tiles_are_those_of_the_map_and_its_picture_is_that_of_the_whole(
    tmp_path, monkeypatch
):
    path = tmp_path / "panorama.png"
    cv2.imwrite(str(path), panorama(200, 450)[..., ::-1])
    predicted(path, tmp_path / "whole", extras=True)
    ids, infos = predicted(path, tmp_path / "tiled", extras=True, size=160, overlap=40)
    (car,) = json.loads((tmp_path / "tiled/instances.json").read_text())
    (info,) = [info for info in infos if info["category_id"] == car["category_id"]]
    assert (car["bbox"], car["score"]) == (info["bbox"], info["score"])
    mask = read_run_lengths(car["segmentation"]).mask()
    assert np.array_equal(mask, ids == info["id"])
    whole, tiled = (
        cv2.imread(str(next((tmp_path / name / "overlays").iterdir())))
        for name in ("whole", "tiled")
    )
    assert np.array_equal(tiled, whole)
    # A tenth of the sides, and the legend below.
    monkeypatch.setattr(mosaic_folder, "LARGEST_OVERLAY", 45)
    predicted(path, tmp_path / "small", extras=True, size=160, overlap=40)
    small = cv2.imread(str(next((tmp_path / "small/overlays").iterdir())))
    assert small.shape[1] == 45
    green, red = small[2, 22].astype(int), small[17, 22].astype(int)
    assert green[1] > green[2]
    assert red[2] > red[1]


def test_nine_million_pixels_of_a_geotiff_are_read_in_windows(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "city.tif"
    image = panorama(3000, 3000)
    with rasterio.open(
        path, "w", driver="GTiff", height=3000, width=3000, count=3, dtype="uint8", tiled=True,
        compress="deflate",
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
    with open_rows(path) as rows:
        assert rows.size == (3000, 3000)
        part = rows.rows(1490, 1500)
    assert torch.equal(part, torch.from_numpy(image[1490:1500].copy()).permute(2, 0, 1))
    forget_peak()
    before = memory_status("VmHWM")
    tiled, infos = predicted(path, tmp_path / "tiled", size=768, overlap=64)
    # Strips are as long as the image is wide: what 20,000 x 20,000 may take, in proportion.
    assert memory_status("VmHWM") - before < 2**32 * 3000 / 20_000
    assert [info["area"] for info in infos] == [40 * 2700, 3000 * 1500 - 900 - 20 * 2700,
                                                3000 * 1500 - 20 * 2700]  # fmt: skip
    assert int((tiled == 0).sum()) == 900


def test_sixteen_bit_and_grey_rasters_become_eight_bit_rgb_and_others_are_refused(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    kinds = {"uint16": 65535, "float32": 1.0, "uint8": 7}
    for kind, value in kinds.items():
        with rasterio.open(
            tmp_path / f"{kind}.tif", "w", driver="GTiff", height=4, width=5, count=1, dtype=kind
        ) as file:
            file.write(np.full((1, 4, 5), value, kind))
    with open_rows(tmp_path / "uint16.tif") as rows:
        assert torch.equal(rows.rows(1, 3), torch.full((3, 2, 5), 255, dtype=torch.uint8))
    with open_rows(tmp_path / "uint8.tif") as rows:
        assert torch.equal(rows.rows(0, 4), torch.full((3, 4, 5), 7, dtype=torch.uint8))
    with (
        pytest.raises(ValueError, match="float32; tiles need"),
        open_rows(tmp_path / "float32.tif"),
    ):
        pass


def test_an_image_that_cannot_be_read_is_recorded(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    predictor = Predictor(ColorNetwork(), shortest_side_pixels=16)

    def label(items, folder):
        return label_mosaics(predictor, items, folder, tiling=Tiling(64, 16))

    summary = predict_folder(predictor, list_images(str(path)), tmp_path / "out", label=label)
    assert "broken.png" in summary.failures[0][1]


def test_pixels_in_memory_are_labelled_in_tiles_as_a_file_is(tmp_path):
    path = tmp_path / "panorama.png"
    cv2.imwrite(str(path), panorama(300, 450)[..., ::-1])
    ids, infos = predicted(path, tmp_path / "tiled", size=160, overlap=40)
    network = ColorNetwork()
    predictor = TiledPredictor(Predictor(network, shortest_side_pixels=64), Tiling(160, 40))
    segmentation = predictor(path)
    assert network.batches == [(1, 160, 160)] * 12
    assert np.array_equal(segmentation.id_map.numpy(), ids)
    found = to_coco(segmentation)[1]
    assert found == infos
    assert {"tile_pixels": 160, "overlap_pixels": 40}.items() <= predictor.describe().items()


def test_an_image_smaller_than_a_tile_is_one_tile():
    network = ColorNetwork()
    predictor = TiledPredictor(Predictor(network, shortest_side_pixels=64), Tiling(160, 40))
    assert predictor(panorama(60, 90)).image_size == (60, 90)
    assert network.batches == [(1, 60, 90)]
