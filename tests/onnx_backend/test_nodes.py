"""The ONNX project's node tests through our importer and compiler."""

from __future__ import annotations

import onnx
import pytest

from tests.onnx_backend.cases import all_cases
from tests.onnx_backend.lists import load_failing, load_passing
from tests.onnx_backend.runner import check


def _parameters():
    """Every passing case; an operator's expansion into others repeats its test and is left to ``--slow``."""
    names = load_passing()
    known = set(names)
    for name in names:
        repeats = "_expanded" in name and name[: name.index("_expanded")] in known
        yield pytest.param(name, marks=pytest.mark.slow) if repeats else name


@pytest.mark.parametrize("name", list(_parameters()))
def test_node(name):
    case = all_cases().get(name)
    if case is None:
        pytest.skip(f"onnx {onnx.__version__} has no such test")
    check(case)


def test_lists_cover_every_case():
    """A case is listed once: among those that pass, or among those that fail with the reason."""
    passing, (version, failing) = load_passing(), load_failing()
    assert passing == sorted(set(passing))
    assert not set(passing) & set(failing)
    if version != onnx.__version__:
        pytest.skip(f"the lists were made with onnx {version}")
    assert set(passing) | set(failing) == set(all_cases())


def test_left_out_cases_fail_for_the_reason_stated():
    """A case that is left out unrun is listed with the reason for that."""
    _, failing = load_failing()
    left_out = {name: reason for name, reason in all_cases().items() if isinstance(reason, str)}
    assert left_out
    assert {name: failing.get(name) for name in left_out} == left_out
