from __future__ import annotations

import math

import pytest

from seamless_pr.serving.limits import RequestRefusedError, ServingLimits, check_uri

BUCKET = ServingLimits(uri_prefixes=("s3://bucket/photos/", "https://example.org/a/"))


@pytest.mark.parametrize("uri", ["s3://bucket/photos/1.jpg", "https://example.org/a/b/2.png?x=1"])
def test_a_uri_below_a_prefix_passes(uri: str) -> None:
    check_uri(uri, BUCKET)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/secrets/1.jpg",
        "s3://bucket/photos",
        "s3://bucket/photos/../secrets/1.jpg",
        "https://example.org/a/%2e%2e/b",
        "https://example.org/a/%252e%252e/b",
        "https://example.org/a/..\\b",
        "https://example.org/a/x::file:///etc/passwd",
        "https://example.org/a/x y",
        "https://example.org/a/\ud800",
        "https://example.org/a/\x7f",
        "https://example.org.evil.net/a/1.jpg",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
    ],
)
def test_any_other_uri_is_refused(uri: str) -> None:
    with pytest.raises(RequestRefusedError, match="not below a prefix") as refused:
        check_uri(uri, BUCKET)
    assert refused.value.status == 403


def test_without_a_list_no_uri_passes() -> None:
    with pytest.raises(RequestRefusedError):
        check_uri("s3://bucket/photos/1.jpg", ServingLimits())


@pytest.mark.parametrize(
    "prefix", ["file:///data/", "/data/", "local:///data/", "zip://x::s3://b/"]
)
def test_files_of_the_server_cannot_be_allowed(prefix: str) -> None:
    with pytest.raises(ValueError, match="may not name files"):
        ServingLimits(uri_prefixes=(prefix,))


@pytest.mark.parametrize("prefix", ["https://example.org", "s3:///x/"])
def test_a_prefix_ends_where_names_end(prefix: str) -> None:
    with pytest.raises(ValueError, match="host or bucket and end with a slash"):
        ServingLimits(uri_prefixes=(prefix,))


@pytest.mark.parametrize("value", [0, math.nan, math.inf])
def test_limits_are_positive_numbers(value: float) -> None:
    with pytest.raises(ValueError, match=f"seconds must be positive; got {value}"):
        ServingLimits(seconds=value)
