import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_sparse.transform.graph import Graph, constant
from tvm_sparse.transform.rewrite import (
    Rewriter,
    integers,
    operator_name,
    rewrite_module,
    scalar,
    shape_of,
    tensor,
)

OP = relax.op


@I.ir_module
class Shared:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")) -> R.Tuple(
        R.Tensor((2, 3), "float32"), R.Tensor((2, 3), "float32")
    ):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.exp(a)
            c = R.add(a, b)
            d = R.negative(c)
            out = (b, d)
            R.output(out)
        return out


@I.ir_module
class Branches:
    @R.function
    def main(x: R.Tensor((2,), "float32"), flag: R.Tensor((), "bool")) -> R.Tensor((2,), "float32"):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.negative(a)
            R.output(b)
        if flag:
            with R.dataflow():
                c = R.exp(b)
                R.output(c)
            d = c
        else:
            with R.dataflow():
                c = R.negative(b)
                R.output(c)
            d = c
        return d


def variables(mod):
    return {binding.var.name: binding.var for block in mod["main"].body.blocks for binding in block.bindings}


def test_graph_knows_producers_users_and_outputs():
    graph, names = Graph(Shared["main"]), variables(Shared)
    assert graph.users(names["a"]) == [names["b"], names["c"]]
    assert operator_name(graph.producer(names["c"])) == "relax.add"
    assert graph.producer(Shared["main"].params[0]) is None
    assert graph.is_output(names["out"]) and not graph.is_output(names["b"])


def test_graph_counts_what_branches_read():
    graph, names = Graph(Branches["main"]), variables(Branches)
    assert graph.users(names["b"]) == [names["d"]]


def test_constant_shares_memory_and_is_read_only():
    array = constant(relax.const(np.arange(3, dtype="float32")))
    assert array.tolist() == [0, 1, 2] and not array.flags.writeable
    assert constant(Shared["main"].params[0]) is None


def test_rule_that_never_matches_returns_the_module():
    assert rewrite_module(Shared, lambda *_: None).same_as(Shared)


def test_replacement_by_a_variable_reaches_every_reader_and_drops_what_is_unread():
    def without_relu(_rewriter, _variable, value):
        return value.args[0] if operator_name(value) == "relax.nn.relu" else None

    after = rewrite_module(Shared, without_relu)
    relax.analysis.well_formed(after)
    assert list(variables(after)) == ["b", "c", "d", "out"]
    x = after["main"].params[0]
    assert variables(after) and after["main"].body.blocks[0].bindings[0].value.args[0].same_as(x)


def test_emitted_values_are_rewritten_too():
    def double_negative(_rewriter, variable, value):
        if operator_name(value) == "relax.exp":
            return OP.negative(OP.negative(OP.tanh(value.args[0])))
        return OP.sin(value.args[0]) if operator_name(value) == "relax.tanh" else None

    after = rewrite_module(Shared, double_negative)
    relax.analysis.well_formed(after)
    names = [operator_name(b.value) for b in after["main"].body.blocks[0].bindings]
    assert names[:4] == ["relax.nn.relu", "relax.sin", "relax.negative", "relax.negative"]


def test_users_are_exact_after_replacements():
    seen = []

    def rule(rewriter, _variable, value):
        if operator_name(value) == "relax.exp":
            return OP.nn.relu(OP.sin(Shared["main"].params[0]))
        if operator_name(value) == "relax.add":
            seen.append([user.name for user in rewriter.users(value.args[0])])
        return None

    rewrite_module(Shared, rule)
    assert seen == [["c"]]


def test_output_that_is_another_value_takes_its_place():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):
            with R.dataflow():
                a = R.exp(x)
                out = R.nn.relu(a)
                R.output(out)
            return out

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):
            with R.dataflow():
                out = R.exp(x)
                R.output(out)
            return out

    rule = lambda _r, _v, value: value.args[0] if operator_name(value) == "relax.nn.relu" else None  # noqa: E731
    tvm.ir.assert_structural_equal(rewrite_module(Before, rule), Expected)


def test_type_of_an_output_is_never_changed():
    rule = lambda _r, _v, v: OP.reshape(v.args[0], (3, 2)) if operator_name(v) == "relax.nn.relu" else None  # noqa: E731

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
            with R.dataflow():
                out = R.nn.relu(x)
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(rewrite_module(Before, rule), Before)


def test_values_that_branches_read_are_kept():
    rule = lambda _r, _v, value: OP.sin(value.args[0]) if operator_name(value) == "relax.nn.relu" else None  # noqa: E731
    after = rewrite_module(Branches, rule)
    relax.analysis.well_formed(after)
    assert "R.sin" in after.script() and "R.exp(b)" in after.script()


def test_small_questions():
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    assert shape_of(x) == (2, 3) and shape_of(relax.Var("y", relax.TensorType(ndim=2))) is None
    assert (
        scalar(tensor(np.array([[2.0]]))) == 2 and scalar(tensor(np.zeros(2))) is None and scalar(x) is None
    )
    assert tensor(np.array(1, "int64")).ty.shape.values == [] or shape_of(tensor(np.array(1, "int64"))) == ()
    assert str(tensor(np.array([1], "int64")).ty.dtype) == "int64"
    assert integers(relax.ShapeExpr([1, 2])) == [1, 2]
    assert Rewriter(Shared["main"]).call(variables(Shared)["b"], "relax.exp") is not None
