"""Statistics and the loop that times."""

from types import SimpleNamespace

import pytest

from tvm_sparse.errors import InputError
from tvm_sparse.runtime import benchmark
from tvm_sparse.runtime.benchmark import BenchmarkResult, time_function


def test_statistics_are_in_milliseconds():
    result = BenchmarkResult((0.001, 0.002, 0.006))
    assert (result.mean, result.median, result.min, result.max) == pytest.approx((3, 2, 1, 6))
    assert result.std == pytest.approx(2.160247)


def test_table():
    header, names, values = str(BenchmarkResult((0.001, 0.003))).splitlines()
    assert header == "Execution time summary:"
    assert names.split() == "mean (ms) median (ms) max (ms) min (ms) std (ms)".split()
    assert values.split() == ["2.0000", "2.0000", "3.0000", "1.0000", "1.0000"]


def test_counts():
    calls = []
    result = time_function(lambda: calls.append(0), number=4, repeat=3, warmup=2)
    assert len(calls) == 2 + 4 * 3 and len(result.results) == 3


def test_minimum_time_raises_the_number(monkeypatch):
    now, calls = [0.0], []
    # A clock of our own: a busy machine's runs are of any length.
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def work():
        calls.append(0)
        now[0] += 1e-3

    result = time_function(work, number=1, repeat=2, warmup=0, min_repeat_ms=10)
    # One run that is too short, then twice a tenth more than is needed.
    assert len(calls) == 1 + 2 * 11
    assert result.results == pytest.approx((1e-3, 1e-3))


@pytest.mark.parametrize("wrong", [{"number": 0}, {"repeat": 0}, {"warmup": -1}])
def test_wrong_counts(wrong):
    with pytest.raises(InputError):
        time_function(lambda: None, **wrong)
