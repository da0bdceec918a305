"""The classes of a dataset and the three ids that name them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar


@dataclass(frozen=True)
class Category:
    """One evaluated class.

    Attributes:
        category_id: the dataset's own number (Cityscapes: label id, 7 = road).
        name: the dataset's name.
        is_thing: countable objects (thing) or amorphous regions (stuff).
        color: RGB for drawing, each in 0..255.
        supercategory: group of classes; empty if the dataset has none.
    """

    category_id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]
    supercategory: str = ""


@dataclass(frozen=True)
class LabelSpace:
    """All evaluated classes of a dataset, stuff first; the position of a class is its train id.

    `category_id` is the dataset's number, `train_id` is 0..K-1 as the network sees it, and
    a thing's `thing_index` is `train_id - num_stuff`. Nothing outside this class converts between
    them.
    """

    # Maps of train ids are of 16 bits with a sign, or wider: this is the largest such number.
    IGNORE_TRAIN_ID: ClassVar[int] = 32767
    VOID_SEGMENT_ID: ClassVar[int] = 0
    # Tables of pairs of classes are counted, and their cells are the square of this.
    MAX_CATEGORIES: ClassVar[int] = 4096

    name: str
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        if not self.categories:
            raise ValueError(f"label space '{self.name}' has no categories; give at least one")
        if len(self.categories) > self.MAX_CATEGORIES:
            raise ValueError(
                f"label space '{self.name}' has {len(self.categories)} categories; at most "
                f"{self.MAX_CATEGORIES} are counted: merge some, or leave out what has no segment"
            )
        seen_thing: Category | None = None
        for train_id, category in enumerate(self.categories):
            if category.is_thing:
                seen_thing = category
            elif seen_thing is not None:
                raise ValueError(
                    f"label space '{self.name}': stuff must come before things; got stuff "
                    f"'{category.name}' at train id {train_id} after thing '{seen_thing.name}'; "
                    f"order the categories stuff first"
                )
        counts = Counter(category.category_id for category in self.categories)
        repeated = sorted(category_id for category_id, count in counts.items() if count > 1)
        if repeated:
            raise ValueError(
                f"label space '{self.name}': category ids {repeated} occur more than once"
            )

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    @cached_property
    def num_stuff(self) -> int:
        return sum(not category.is_thing for category in self.categories)

    @property
    def num_things(self) -> int:
        return self.num_classes - self.num_stuff

    @cached_property
    def train_id_of(self) -> dict[int, int]:
        """category_id -> train_id."""
        return {category.category_id: train_id for train_id, category in enumerate(self.categories)}

    @property
    def thing_categories(self) -> tuple[Category, ...]:
        """The things; position = thing_index."""
        return self.categories[self.num_stuff :]

    def is_thing(self, train_id: int) -> bool:
        return train_id >= self.num_stuff

    def thing_index(self, train_id: Any) -> Any:
        """Train id(s) of things (int, array or tensor) -> 0..num_things-1."""
        return train_id - self.num_stuff

    def thing_train_id(self, thing_index: Any) -> Any:
        """The inverse of `thing_index`."""
        return thing_index + self.num_stuff

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSpace:
        """Reads what `to_dict` gave, from a file that anybody may have written.

        Raises:
            ValueError: it is none.
        """
        try:
            categories = tuple(
                Category(
                    category_id=int(category["category_id"]),
                    name=str(category["name"]),
                    is_thing=bool(category["is_thing"]),
                    color=_color(category["color"]),
                    supercategory=str(category["supercategory"]),
                )
                for category in values["categories"]
            )
            name = str(values["name"])
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"no description of classes ({type(error).__name__}: {error}); expected a name and "
                "categories with category_id, name, is_thing, color and supercategory"
            ) from error
        return cls(name, categories)


def _color(values: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
