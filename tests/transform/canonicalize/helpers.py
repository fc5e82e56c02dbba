"""Small modules written as expressions, and running them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

Spec = tuple[int, ...] | tuple[tuple[int, ...], str]


def module(specs: Sequence[Spec], body: Callable[..., relax.Expr | tuple[relax.Expr, ...]]) -> tvm.IRModule:
    """A module whose "main" computes ``body`` of inputs of the given shapes, or ``(shape, dtype)``."""
    parameters = []
    for number, spec in enumerate(specs):
        shape, dtype = spec if spec and isinstance(spec[0], tuple) else (spec, "float32")
        parameters.append(relax.Var(f"x{number}", relax.TensorType(shape, dtype)))
    builder = relax.BlockBuilder()
    with builder.function("main", parameters):
        with builder.dataflow():
            result = body(*parameters)
            result = relax.Tuple(list(result)) if isinstance(result, tuple) else result
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.get()


def constant(array: np.ndarray) -> relax.Expr:
    """A constant of exactly the array's element type."""
    return relax.const(np.asarray(array, order="C"), str(array.dtype))


def ones(*shape: int) -> relax.Expr:
    return constant(np.ones(shape, "float32"))


def number(value: float) -> relax.Expr:
    """A float32 constant without axes."""
    return relax.const(value, "float32")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def rewritten(before: tvm.IRModule, *passes: tvm.transform.Pass) -> tvm.IRModule:
    """The module after the passes, checked to be well formed."""
    for each in passes:
        before = each(before)
        relax.analysis.well_formed(before)
    return before


def assert_rewrites(
    before: tvm.IRModule, expected: tvm.IRModule, *passes: tvm.transform.Pass
) -> tvm.IRModule:
    """Check that the passes make exactly the expected module."""
    after = rewritten(before, *passes)
    tvm.ir.assert_structural_equal(after, expected)
    return after


def assert_unchanged(before: tvm.IRModule, *passes: tvm.transform.Pass) -> None:
    """Check that the passes return the very function that they got."""
    for each in passes:
        assert each(before)["main"].same_as(before["main"]), each.info.name


def calls(mod: tvm.IRModule) -> list[str]:
    """Names of the operators and functions that "main" calls, in order, without ``relax.``."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    callees = [value.op if isinstance(value, relax.Call) else None for value in values]
    names = [
        type(value).__name__ if callee is None else getattr(callee, "name", None) or callee.name_hint
        for value, callee in zip(values, callees, strict=True)
    ]
    return [name.removeprefix("relax.") for name in names]


def arrays_for(mod: tvm.IRModule, seed: int = 1) -> list[np.ndarray]:
    """Random inputs for "main"; integers are 0 or 1, the first of each row 1."""
    generator = np.random.default_rng(seed)
    arrays = []
    for parameter in mod["main"].params:
        shape, dtype = tuple(int(extent) for extent in parameter.ty.shape), str(parameter.ty.dtype)
        if dtype.startswith("float"):
            arrays.append((2 * generator.standard_normal(shape)).astype(dtype))
        else:
            array = generator.integers(0, 2, shape)
            array[..., 0] = 1
            arrays.append(array.astype(dtype))
    return arrays


def outputs(mod: tvm.IRModule, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results of "main", compiled without any pass of this package."""
    executable = relax.build(mod, tvm.target.Target("llvm"))
    result = relax.VirtualMachine(executable, tvm.cpu())["main"](*[tvm.runtime.tensor(a) for a in arrays])
    return [result.numpy()] if hasattr(result, "numpy") else [each.numpy() for each in result]


def assert_same_results(before: tvm.IRModule, after: tvm.IRModule, tolerance: float = 1e-5) -> None:
    """Check that two modules compute the same on random inputs, relative to the largest value."""
    arrays = arrays_for(before)
    for a, b in zip(outputs(before, arrays), outputs(after, arrays), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * max(1.0, float(np.abs(a).max())))
