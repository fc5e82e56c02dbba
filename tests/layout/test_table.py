"""Tables: what is packed can be found by the header."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparse.layout.table import TableValues, pack_table

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
VALUES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), INT32 | st.lists(INT32, max_size=5), max_size=6)


@given(VALUES, st.randoms())
def test_values_are_found_by_the_header(values, random):
    fields = list(values)
    random.shuffle(fields)
    table = pack_table(fields, {k: np.array(v, np.int64) if isinstance(v, list) else v for k, v in values.items()})
    assert table.dtype == np.int32
    for index, name in enumerate(fields):
        if isinstance(values[name], list):
            start = int(table[index])
            assert start >= len(fields)
            assert table[start : start + len(values[name])].tolist() == values[name]
        else:
            assert table[index] == values[name]
    # Vector loads of a last entry stay inside.
    size = len(fields) + sum(len(v) for v in values.values() if isinstance(v, list))
    assert len(table) == size + 16 and not table[size:].any()


def test_arrays_are_stored_row_by_row():
    table = pack_table(["a", "b"], {"a": 5, "b": np.array([[1, 2], [3, 4]])})
    assert table[:6].tolist() == [5, 2, 1, 2, 3, 4]


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "x"]])
def test_names_must_match(names):
    with pytest.raises(ValueError, match="do not match"):
        pack_table(["a", "b"], dict.fromkeys(names, 1))


@pytest.mark.parametrize("value", [1 << 31, -(1 << 31) - 1])
def test_entries_must_fit_32_bits(value):
    for entry in (value, np.array([0, value])):
        with pytest.raises(ValueError, match="32 bits"):
            pack_table(["a"], {"a": entry})


def test_values_are_read_back():
    blob = pack_table(("a", "b", "c"), {"a": 7, "b": np.array([1, 2, 3]), "c": np.array([[4], [5]])})
    values = TableValues(("a", "b", "c"), blob)
    assert values.scalar("a") == 7
    assert values.array("b", 3).tolist() == [1, 2, 3] and values.array("c", 2).tolist() == [4, 5]
