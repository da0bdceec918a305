"""What a dataset holds: how often each class occurs, how large objects and images are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from seamless_pr.datasets.panoptic_records import PanopticDataset, SegmentRecord
from seamless_pr.structures.label_space import Category


@dataclass
class ClassStatistics:
    """Counts of one class.

    Attributes:
        category: the class.
        num_images: images that show it.
        num_segments: objects of a thing, or images of stuff; crowds are not among them.
        num_crowds: groups that are not told apart.
        pixels: of both.
        crowd_pixels: of the groups.
        areas: pixels of each object; of things only.
    """

    category: Category
    num_images: int = 0
    num_segments: int = 0
    num_crowds: int = 0
    pixels: int = 0
    crowd_pixels: int = 0
    areas: list[int] = field(default_factory=list)

    def add(self, segment: SegmentRecord) -> None:
        area = segment.area or 0
        self.pixels += area
        if segment.is_crowd:
            self.num_crowds += 1
            self.crowd_pixels += area
            return
        self.num_segments += 1
        if self.category.is_thing:
            self.areas.append(area)

    @property
    def median_side(self) -> float | None:
        """Side of a square as large as the median object, in pixels; None if there is none."""
        if not self.areas:
            return None
        ordered = sorted(self.areas)
        middle = len(ordered) // 2
        median = (ordered[middle] + ordered[-middle - 1]) / 2
        return float(median**0.5)


@dataclass(frozen=True)
class DatasetStatistics:
    """Counts of a split.

    Attributes:
        classes: in the order of the dataset.
        sizes: (height, width) -> number of images.
        things_per_image: number of objects -> number of images.
        pixels: of all images.
        num_images: annotated ones.
    """

    classes: tuple[ClassStatistics, ...]
    sizes: Counter[tuple[int, int]]
    things_per_image: Counter[int]
    pixels: int
    num_images: int

    @property
    def void_share(self) -> float:
        """Pixels without a segment, as a share of all; 0 where there are no pixels."""
        labelled = sum(entry.pixels for entry in self.classes)
        return 1 - labelled / self.pixels if self.pixels else 0.0

    @property
    def crowd_share(self) -> float:
        """Pixels of groups, as a share of all."""
        crowds = sum(entry.crowd_pixels for entry in self.classes)
        return crowds / self.pixels if self.pixels else 0.0


def measure_dataset(dataset: PanopticDataset) -> DatasetStatistics:
    """Counts by the areas of the JSON."""
    classes = {c.category_id: ClassStatistics(c) for c in dataset.categories}
    sizes: Counter[tuple[int, int]] = Counter()
    things_per_image: Counter[int] = Counter()
    for annotation in dataset.annotations:
        image = dataset.image_of[annotation.image_id]
        sizes[image.height, image.width] += 1
        for segment in annotation.segments:
            classes[segment.category_id].add(segment)
        for category_id in {segment.category_id for segment in annotation.segments}:
            classes[category_id].num_images += 1
        things_per_image[
            sum(
                classes[segment.category_id].category.is_thing and not segment.is_crowd
                for segment in annotation.segments
            )
        ] += 1
    pixels = sum(height * width * count for (height, width), count in sizes.items())
    return DatasetStatistics(
        tuple(classes.values()), sizes, things_per_image, pixels, len(dataset.annotations)
    )


def log_histogram(values: Sequence[float], base: float = 2.0) -> list[tuple[float, float, int]]:
    """(from, to, how many) of bins that grow by a factor; values below 1 count as 1."""
    import math

    if not values:
        return []
    bins = Counter(math.floor(math.log(max(value, 1.0), base)) for value in values)
    return [(base**k, base ** (k + 1), bins[k]) for k in range(min(bins), max(bins) + 1)]
