"""The plan as JSON: what is written can be read, edited, and is checked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.plan.plan import FORMATS, LayerPlan, Plan

NAMES = st.text(min_size=1, max_size=8)
LAYERS = st.lists(
    st.builds(LayerPlan, NAMES, st.just("linear"), st.just("8x8"), st.floats(0, 1), st.sampled_from(FORMATS)),
    unique_by=lambda layer: layer.name,
    max_size=5,
)


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory):
    return tmp_path_factory.mktemp("plan") / "plan.json"


@settings(max_examples=30)
@given(st.sampled_from(["auto", "off"]), st.floats(0, 1), st.sampled_from(FORMATS), LAYERS)
def test_round_trip(plan_path, sparsity, threshold, sparse_format, layers):
    plan = Plan(sparsity, threshold, sparse_format, layers=layers)
    plan_path.write_text(json.dumps(plan.to_json()))
    read = Plan.read(plan_path)
    assert (read.sparsity, read.threshold, read.sparse_format) == (sparsity, threshold, sparse_format)
    assert read.overrides == {layer.name: layer.format for layer in layers}
    # The decisions are made anew.
    assert read.layers == []


def write(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_names_and_formats_suffice(tmp_path):
    plan = Plan.read(write(tmp_path, {"layers": [{"name": "conv1", "format": "dense"}]}))
    assert plan == Plan("auto", 0.5, "auto", {"conv1": "dense"})


def test_depthwise_layers_of_a_dumped_plan_are_no_obstacle(tmp_path):
    layer = LayerPlan("dw", "depthwise 3x3", "8x1", 1.0, "depthwise")
    assert Plan.read(write(tmp_path, Plan(layers=[layer]).to_json())).overrides == {"dw": "auto"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a plan"),
        ("{", "is not a plan"),
        ("[]", "is not a plan"),
        ("3", "is not a plan"),
        ({}, "is not a plan.*layers"),
        ({"layers": 3}, "is not a plan"),
        ({"layers": ["conv1"]}, "is not a plan"),
        ({"layers": [{"format": "dense"}]}, "is not a plan.*name"),
        ({"layers": [{"name": "conv1"}]}, "is not a plan.*format.*--dump-plan"),
        ({"layers": [{"name": "conv1", "format": "2:4"}]}, "'conv1' has the unknown format '2:4'; known: auto, dense"),
        ({"layers": [{"name": "conv1", "format": ["dense"]}]}, "'conv1' has the unknown format"),
        ({"layers": [], "sparsity": "on"}, "sparsity must be 'auto', 'off' or a plan file, not 'on'"),
        ({"layers": [], "threshold": 2}, "threshold must be between 0 and 1, not 2"),
        ({"layers": [], "threshold": "half"}, "threshold must be between 0 and 1, not half"),
        ({"layers": [], "threshold": None}, "threshold must be between 0 and 1"),
        ({"layers": [], "sparse_format": "csr"}, "unknown sparse format 'csr'.*unstructured"),
    ],
)
def test_wrong_plans(tmp_path, content, message):
    with pytest.raises(TvmSparseError, match=message):
        Plan.read(write(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(TvmSparseError, match="none.json' cannot be read: No such file"):
        Plan.read(tmp_path / "none.json")
    with pytest.raises(TvmSparseError, match="cannot be read: Is a directory"):
        Plan.read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TvmSparseError, match="is not a plan"):
        Plan.read(tmp_path / "binary")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_is_a_share(threshold):
    with pytest.raises(TvmSparseError, match="between 0 and 1"):
        Plan(threshold=threshold)


def test_layers_that_the_model_lacks():
    layers = [LayerPlan(name, "linear", "1x1", 1.0, "dense") for name in ("fc1", "fc2")]
    Plan(overrides={"fc1": "dense"}, layers=layers).check_overrides()
    with pytest.raises(TvmSparseError, match="does not have: conv9; it has: fc1, fc2"):
        Plan(overrides={"fc1": "dense", "conv9": "dense"}, layers=layers).check_overrides()
