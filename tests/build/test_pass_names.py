"""Names of passes and settings are checked before anything is compiled."""

from __future__ import annotations

import pytest

from tvm_sparse.build.pass_names import check_pass_config, check_pass_names, pass_names
from tvm_sparse.build.target import make_target
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.plan.plan import Plan
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.transform.context import CompileContext


@pytest.fixture(scope="module")
def context():
    target = make_target(None)
    return CompileContext(target, Isa.from_target(target), Plan())


def test_all_kinds_of_passes_are_known(context):
    names = pass_names(context)
    # Ours, TVM's, a nested one, a phase, one of the code generator.
    assert names >= {"FuseLayers", "ToColumns", "LegalizeOps", "FuseTIRInner", "canonicalize", "tirx.StorageRewrite"}
    # The compilation that finds them leaves no trace.
    assert not context.plan.layers and not context.kernels and not context.weights


def test_known_names_pass(context):
    check_pass_names(context, disabled_passes=["FoldPadding"], print_ir_after=["*", "FuseOps"], print_ir_before=[])
    check_pass_names(context, disabled_passes=(), print_ir_after=("*",))


@pytest.mark.parametrize("option", ["disabled_passes", "print_ir_before", "print_ir_after"])
@pytest.mark.parametrize(
    ("name", "similar"),
    [("FoldPad", "FoldPadding"), ("fuselayers", "FuseLayers"), ("StorageRewrite", r"tirx\.StorageRewrite")],
)
def test_similar_names_are_offered(context, option, name, similar):
    with pytest.raises(TvmSparseError, match=f"{option}: there is no pass '{name}'; similar ones: .*{similar}"):
        check_pass_names(context, **{option: ["FuseLayers", name]})


def test_all_names_where_none_is_similar(context):
    with pytest.raises(TvmSparseError, match="'xyzzy'; known ones: .*FuseLayers.*ToColumns"):
        check_pass_names(context, disabled_passes=["xyzzy"])


def test_not_all_passes_can_be_disabled_at_once(context):
    with pytest.raises(TvmSparseError, match=r"disabled_passes: there is no pass '\*'"):
        check_pass_names(context, disabled_passes=["*"])


def test_settings():
    check_pass_config({})
    check_pass_config({"tirx.disable_vectorize": True, "relax.FuseOps.max_depth": 3})
    with pytest.raises(TvmSparseError, match=r"no setting 'tir.disable_vectorize'; .*tirx\.disable_vectorize"):
        check_pass_config({"tir.disable_vectorize": True})
    with pytest.raises(TvmSparseError, match=r"relax\.FuseOps\.max_depth cannot be 'deep': .*int"):
        check_pass_config({"relax.FuseOps.max_depth": "deep"})
    with pytest.raises(TvmSparseError, match=r"tirx\.disable_vectorize cannot be None"):
        check_pass_config({"tirx.disable_vectorize": None})
