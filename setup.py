"""Packaging: what seamless_pr needs, what is optional, and which data files travel with it."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version, read as text: importing the package here would need its dependencies."""
    for line in (ROOT / "seamless_pr" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError('seamless_pr/__init__.py has no line __version__ = "..."')


REQUIRED = [
    "torch>=2.6",
    "torchvision>=0.21",
    "timm>=1.0.11",
    "numpy>=1.26",
    # Assignment of queries to segments.
    "scipy>=1.11",
    "pillow>=10.1",
    "opencv-python-headless>=4.10",
    "numba>=0.60",
    # Loads what numba compiled; comes with it.
    "llvmlite>=0.43",
    # libdeflate: inflates label PNGs many times faster than zlib.
    "deflate>=0.7",
    "pydantic>=2.10",
    "annotated-types>=0.7",
    "pyyaml>=6.0",
    "pycocotools>=2.0.8",
    "cityscapesscripts>=2.2.4",
    "safetensors>=0.4.5",
    # Class names of released Seamless snapshots.
    "msgpack>=1.0",
    # 2.60 announces that 2.64 drops two options of map_batches without naming others for them.
    "ray[default,train,data]>=2.55,<2.64",
    # Images behind URIs.
    "fsspec>=2024.2",
    "tensorboard>=2.17",
    "tqdm>=4.66",
    # What .gitignore and .rayignore mean.
    "pathspec>=0.12",
    "jinja2>=3.1",
]

# A network behind HTTP.
SERVE = [
    # 2.60 builds the web application in each replica.
    "ray[serve]>=2.60,<2.64",
    "fastapi>=0.115",
    "uvicorn>=0.30",
    # 0.0.27 bounds the headers of a part.
    "python-multipart>=0.0.27",
]

# `export network --formats onnx`, and what compares it with the network.
ONNX = ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20"]

# Linter, formatter and type checker are pinned: another version finds other faults.
LINT = ["ruff==0.17.5", "mypy==2.4.1"]

TEST = [
    *LINT,
    *SERVE,
    *ONNX,
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    # Asked by a test what an installation would bring; Python has it no more since 3.12.
    "setuptools>=68",
    # Its networks must label images, and its MaskFormer must be ours.
    "transformers>=4.54",
    # Segments must be what its annotators draw.
    "supervision>=0.31",
    # Mosaics in the tests of predict --tile.
    "rasterio>=1.4",
    # A second, independent PQ implementation to compare with.
    "vernier==0.5.4",
    # A third one, from files to scores.
    "hotcoco==1.3.0",
    # Drives a headless Chromium for the tests of the HTML report; they skip without a browser.
    "selenium>=4.20",
]

# What tools/measure/benchmark_evaluation.py compares with.
BENCH = ["torchmetrics==1.9.0", "kornia-rs>=0.1.9", "vernier==0.5.4", "hotcoco==1.3.0"]

EXTRAS = {
    # Backends of fsspec, for images at s3:// and gs://.
    "s3": ["s3fs"],
    "gs": ["gcsfs"],
    # Published networks of Hugging Face; 4.54 has EoMT.
    "transformers": ["transformers>=4.54"],
    "serve": SERVE,
    # What `to_supervision` gives; from 0.31 on without a second OpenCV.
    "supervision": ["supervision>=0.31"],
    # GeoTIFFs and COGs of any size, read in windows by predict --tile.
    "mosaics": ["rasterio>=1.4"],
    # Networks for other runtimes.
    "onnx": ONNX,
    # Builds CUDA code: pip install --no-build-isolation, see "Optional parts" in README.md.
    "iabn": ["inplace-abn==1.1.0"],
    "test": TEST,
    "bench": BENCH,
    "dev": [*TEST, "pre-commit>=4.0"],
}

setup(
    name="seamless_pr",
    version=read_version(),
    description="Panoptic segmentation of street scenes (Seamless Scene Segmentation, PointRend)",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["seamless_pr", "seamless_pr.*"]),
    package_data={
        "seamless_pr": [
            "py.typed",
            "datasets/labels/*.csv",
            "drawing/templates/*",
            "street_scenes/tables/*.csv",
        ]
    },
    entry_points={"console_scripts": ["seamless-pr = seamless_pr.pipelines.cli:main"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
