from __future__ import annotations

from seamless_pr.serving.counts import Sample, ServingCounts, add_counts, prometheus_text


def test_counts_of_replicas_add_up_to_those_of_one() -> None:
    alone, shares = ServingCounts(), [ServingCounts(), ServingCounts()]
    for index, (status, seconds) in enumerate([(200, 0.25), (200, 0.5), (503, 0.0), (422, 3.0)]):
        for counts in (alone, shares[index % 2]):
            counts.request(status, seconds)
            counts.images(labelled=int(status == 200), refused=int(status == 422))
            counts.batch(index + 1)
    total: dict[Sample, float] = {}
    for counts in shares:
        add_counts(total, counts.take())
        assert counts.take() == {}
    assert total == alone.take()


def test_the_text_is_what_prometheus_reads() -> None:
    counts = ServingCounts()
    counts.request(200, 0.2)
    counts.request(200, 7.0)
    lines = prometheus_text(counts.take(), [2, 3]).splitlines()
    assert 'seamless_pr_requests_total{status="200"} 2' in lines
    buckets = [line for line in lines if line.startswith("seamless_pr_request_seconds_bucket")]
    assert [line.partition("{")[2] for line in buckets] == [
        'le="0.05"} 0', 'le="0.1"} 0', 'le="0.2"} 1', 'le="0.5"} 1', 'le="1"} 1', 'le="2"} 1',
        'le="5"} 1', 'le="10"} 2', 'le="30"} 2', 'le="60"} 2', 'le="+Inf"} 2',
    ]  # fmt: skip
    assert "seamless_pr_request_seconds_sum 7.2" in lines
    assert "seamless_pr_request_seconds_count 2" in lines
    assert "seamless_pr_waiting_images 5" in lines
    kinds = [line.split()[2:] for line in lines if line.startswith("# TYPE")]
    assert ["seamless_pr_requests_total", "counter"] in kinds
