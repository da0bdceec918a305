from __future__ import annotations

from seamless_pr.evaluation.class_names import unique_names


def test_a_name_that_two_classes_or_a_mean_have_gets_the_id_of_its_class() -> None:
    classes = [(7, "road"), (8, "lane"), (9, "lane"), (10, "things")]
    assert unique_names(classes) == ["road", "lane (8)", "lane (9)", "things (10)"]
    assert unique_names([]) == []
