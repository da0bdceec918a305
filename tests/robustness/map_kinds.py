"""Cases of pictures: id PNGs and photographs."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.datasets.images import read_pixels
from seamless_pr.datasets.quiet_decoding import quiet_decoding
from seamless_pr.id_maps.id_png import PngError, decode_id_png, pack_ids, png_size
from seamless_pr.inference.predictor import Predictor
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.pipelines import evaluate, predict, wanted_predictor
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.robustness.mutators import damage_bytes, damage_png
from tests.robustness.sandbox import REFUSED, RIGHT, Sandbox, Verdict, run_stage
from tests.robustness.structure_mutators import restructure_png
from tests.support.panoptic_files import write_png
from tests.support.tiny_checkpoint import write_tiny_checkpoint

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class IdPngs:
    """Predicted and true id PNGs: what is decoded must be what Pillow or OpenCV decode.

    Every fourth is also scored by the whole stage.
    """

    name = "id PNGs"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.files = PanopticFiles(
            sandbox.inputs, [fuzz_image(np.random.default_rng(seed)) for seed in range(2)]
        )
        self.forms = {
            side: _forms(Image.open(sandbox.inputs / side / "0.png").convert("RGB"))
            for side in ("gt", "pred")
        }

    def case(self, random: Random) -> Verdict:
        side = random.choice(("gt", "pred"))
        form = random.choice(self.forms[side])
        data = damaged_png(form, random)
        if random.random() < 0.75:
            outcome, fault = _decoding(data)
            return Verdict("wrong" if fault else outcome, has_header(data), fault)
        path = self.sandbox.inputs / side / "0.png"
        original = path.read_bytes()
        path.write_bytes(data)
        try:
            _, fault = _decoding(data)
            self.sandbox.watch()
            run = run_stage(evaluate.main, self.files.arguments("--lenient"))
            verdict = self.sandbox.judge(run, ["0.png"], has_header(data))
        finally:
            path.write_bytes(original)
        if fault and verdict.outcome == RIGHT:
            return Verdict("wrong", verdict.passed_header, fault)
        return verdict


def damaged_png(data: bytes, random: Random) -> bytes:
    return random.choice((damage_png, damage_png, restructure_png))(data, random)


def _forms(picture: Image.Image) -> list[bytes]:
    """One map as each kind of PNG that is read."""
    files = []
    alpha = picture.convert("RGBA")
    for other in (picture, alpha, picture.quantize(256), picture.quantize(4)):
        written = io.BytesIO()
        other.save(written, "PNG", optimize=True)
        files.append(written.getvalue())
    return files


def has_header(data: bytes) -> bool:
    try:
        png_size(data)
    except PngError:
        return False
    return True


def _decoding(data: bytes) -> tuple[str, str]:
    """RIGHT or REFUSED, and how what we decode differs from what two other readers see."""
    try:
        ours = decode_id_png(data)
    except PngError:
        return REFUSED, ""
    readings = [reading for reading in (_by_pillow(data), _by_opencv(data)) if reading is not None]
    if not readings:
        return RIGHT, "decoded, while Pillow and OpenCV refuse it"
    if not any(reading.shape == ours.shape and (reading == ours).all() for reading in readings):
        return RIGHT, "other ids than Pillow and OpenCV read"
    return RIGHT, ""


def _by_pillow(data: bytes) -> NDArray[np.uint32] | None:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            return pack_ids(np.asarray(picture.convert("RGB")))
    except Exception:
        return None


def _by_opencv(data: bytes) -> NDArray[np.uint32] | None:
    with quiet_decoding():
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8:
        return None
    return pack_ids(pixels[..., 2::-1])


class Photographs:
    """Photographs of every format among sound ones, labelled by a small network."""

    name = "photographs"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.predictor = tiny_predictor(sandbox)
        self.images = sandbox.inputs / "images"
        write_png(self.images / "sound.png", _noise((20, 30, 3)))
        self.forms = _photographs()

    def case(self, random: Random) -> Verdict:
        suffix, form = random.choice(self.forms)
        is_png = form.startswith(b"\x89PNG")
        data = damaged_png(form, random) if is_png else damage_bytes(form, random, start=2)
        name = f"photo{random.choice((suffix, suffix, '.png', '.JPG'))}"
        path = self.images / name
        path.write_bytes(data)
        try:
            self.sandbox.watch()
            arguments = ("--weights", "W", "--images", self.images, "--output", self.sandbox.output)
            with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: self.predictor):
                run = run_stage(predict.main, arguments)
            size = _pillow_size(data)
            verdict = self.sandbox.judge(run, [name], size is not None)
            if verdict.outcome in (RIGHT, "refused"):
                fault = self._fault(path, data, size)
                if fault:
                    verdict = Verdict("wrong", verdict.passed_header, fault)
        finally:
            path.unlink()
        return verdict

    def _fault(self, path: Path, data: bytes, size: tuple[int, int] | None) -> str:
        result = json.loads((self.sandbox.output / "panoptic.json").read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in result["images"]}
        if sizes.pop("sound") != (20, 30):
            return "the sound picture has another size"
        if not sizes:
            return ""
        ours = read_pixels(path)
        if set(sizes.values()) != {ours.shape[:2]} or (size and {*size} != {*ours.shape[:2]}):
            return f"{size} pixels became {sizes}"
        if data.startswith((b"\x89PNG", b"BM")):
            return _pixel_fault(data, ours)
        return ""


def _pixel_fault(data: bytes, ours: NDArray[np.uint8]) -> str:
    """Whether a picture without losses has other pixels than Pillow reads."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode not in ("RGB", "L", "P"):
                return ""
            # Of 16 bits Pillow takes the upper 8; orientations are another subject.
            if data[24] == 16 or picture.getexif() or "transparency" in picture.info:
                return ""
            theirs = np.asarray(picture.convert("RGB"))
    except Exception:
        return ""
    same = theirs.shape == ours.shape and (theirs == ours).all()
    return "" if same else "other pixels than Pillow reads"


def _pillow_size(data: bytes) -> tuple[int, int] | None:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.height, picture.width
    except Exception:
        return None


def tiny_predictor(sandbox: Sandbox) -> Predictor:
    """A network of random weights that labels a small picture in milliseconds."""
    path = write_tiny_checkpoint(sandbox.root / "weights" / "tiny.safetensors")
    return load_predictor(path, "cpu", overrides=("data.shortest_side_pixels=32",))


def _noise(shape: tuple[int, ...], dtype: type = np.uint8) -> NDArray[Any]:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape)
    return values.astype(dtype)


def _photographs() -> list[tuple[str, bytes]]:
    """Ending and content of a picture in every format that is read."""
    color, deep = _noise((24, 36, 3)), _noise((24, 36, 3), np.uint16)
    files = [(".png", cv2.imencode(".png", pixels)[1].tobytes()) for pixels in (color, deep)]
    for ending, form, mode, options in (
        (".png", "PNG", "P", {}), (".png", "PNG", "LA", {}), (".jpg", "JPEG", "RGB", {}),
        (".jpg", "JPEG", "L", {"progressive": True}), (".jpg", "JPEG", "CMYK", {}),
        (".bmp", "BMP", "RGB", {}), (".gif", "GIF", "P", {}), (".tif", "TIFF", "RGB", {}),
        (".tif", "TIFF", "RGB", {"compression": "tiff_lzw"}),
        (".tif", "TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
        (".tif", "TIFF", "L", {"compression": "packbits"}),
        (".webp", "WEBP", "RGB", {}), (".webp", "WEBP", "RGBA", {"lossless": True}),
    ):  # fmt: skip
        written = io.BytesIO()
        Image.fromarray(color).convert(mode).save(written, form, **options)
        files.append((ending, written.getvalue()))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(color).save(turned, "JPEG", exif=exif)
    return [*files, (".jpg", turned.getvalue())]
