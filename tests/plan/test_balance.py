"""Parts of the channels: even shares where they pay."""

import pytest

from tvm_sparse.plan.balance import balanced_chunks


@pytest.mark.parametrize(
    ("units", "cores", "overhead", "least", "chunks"),
    [
        (1, 1, 0.0, 1, 1),
        (1, 2, 0.1, 1, 2),
        (1, 4, 0.1, 1, 4),
        (7, 2, 0.03, 1, 2),  # 7 + 7 halves instead of 4 and 3
        (7, 2, 0.15, 1, 1),  # windows built twice cost more than that
        (8, 2, 0.0, 1, 1),
        (3, 2, 0.15, 1, 2),
        (1, 2, 0.03, 3, 4),  # three parts would leave a core idle for a third of the time
        (2, 2, 0.03, 3, 3),
        (100, 4, 0.03, 1, 1),
    ],
)
def test_even_shares(units, cores, overhead, least, chunks):
    assert balanced_chunks(units, cores, 1000, overhead, least) == chunks


def test_no_more_parts_than_channels():
    assert balanced_chunks(1, 4, 3, 0.0) == 3
    assert balanced_chunks(1, 4, 2, 0.0, least=5) == 2
    assert balanced_chunks(1, 4, 0, 0.0) == 1
