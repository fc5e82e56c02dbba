import tvm
from tvm import relax

from tvm_sparse.transform.fuse_layers import FuseLayers
from tvm_sparse.transform.instruments import PassTimes, PrintIR

from .canonicalize.helpers import constant, module, random


def mod():
    return module([(2, 3)], lambda x: relax.op.matmul(x, constant(random(3, 4))))


def run(*instruments, passes=None):
    with tvm.transform.PassContext(instruments=list(instruments)):
        tvm.transform.Sequential(passes or [FuseLayers(), relax.transform.LegalizeOps()], name="both")(mod())


def test_prints_around_chosen_passes(capsys):
    run(PrintIR(["FuseLayers"], ["FuseLayers"]))
    before, after = capsys.readouterr().out.split("# ---- after FuseLayers\n")
    assert before.startswith("# ---- before FuseLayers\n")
    assert "R.matmul" in before and "tvm_sparse.linear" not in before
    assert "tvm_sparse.linear" in after and "LegalizeOps" not in after


def test_prints_before_or_after(capsys):
    run(PrintIR(["LegalizeOps"], []))
    out = capsys.readouterr().out
    assert out.count("# ----") == 1 and "# ---- before LegalizeOps" in out


def test_star_is_every_pass(capsys):
    run(PrintIR([], ["*"]))
    out = capsys.readouterr().out
    assert [name for name in ("FuseLayers", "LegalizeOps", "both") if f"# ---- after {name}\n" in out] == [
        "FuseLayers", "LegalizeOps", "both"
    ]  # fmt: skip


def test_nothing_chosen_prints_nothing(capsys):
    run(PrintIR([], []))
    assert capsys.readouterr().out == ""


def test_times_of_nested_passes():
    times = PassTimes()
    run(times)
    names = {name: (depth, seconds) for depth, name, seconds in times.times}
    assert names["both"][0] == 0 and names["FuseLayers"][0] == 1 and names["LegalizeOps"][0] == 1
    assert names["both"][1] >= names["FuseLayers"][1] + names["LegalizeOps"][1] > 0
    lines = times.render().splitlines()
    assert any(line.startswith("  FuseLayers: ") and line.endswith(" ms") for line in lines)
    assert lines[-1].startswith("both: ")


def test_times_start_anew_in_another_instrument():
    first, second = PassTimes(), PassTimes()
    run(first, second)
    assert [name for _, name, _ in first.times] == [name for _, name, _ in second.times]
