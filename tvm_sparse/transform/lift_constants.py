"""LiftConstants: large constants leave the compiled module and become its last argument."""

from __future__ import annotations

import hashlib

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst

from .graph import constant
from .replace_constants import bind_first, replace_constants

# Below this size the call that fetches a weight costs more than what the library saves.
MIN_BYTES = 4096


@tvm.transform.module_pass(opt_level=0, name="LiftConstants")
class LiftConstants:
    """Give ``main`` a tuple of weights as its last parameter, in place of the large constants that it reads.

    A constant in a shared library is serialised, linked, and copied when the library is loaded: seconds, and
    four times its size in memory. The lifted ones are kept beside the library (:mod:`tvm_sparse.runtime.weights`),
    each content once.

    It runs on code of the virtual machine, after ``VMShapeLower``: what a package gives itself needs no check in
    every call.

    Parameters
    ----------
    weights : list of numpy.ndarray
        Receives the lifted constants, which are fields of the tuple in the same order; read-only, they share the
        module's memory.
    min_bytes : int
        Smaller constants stay.
    """

    def __init__(self, weights: list[np.ndarray], min_bytes: int = MIN_BYTES) -> None:
        self.weights = weights
        self.min_bytes = min_bytes

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Lift the constants of ``main``.

        Parameters
        ----------
        mod : tvm.IRModule
            Module with a Relax function ``main``; constants of other functions stay.

        Returns
        -------
        tvm.IRModule
            The same module where there is nothing to lift.
        """
        if "main" not in {gv.name_hint for gv in mod.get_global_vars()}:
            return mod
        lifter = _Lifter(self.min_bytes)
        function = lifter.lift(mod["main"])
        if not lifter.arrays:
            return mod
        self.weights.extend(lifter.arrays)
        mod = mod.clone()
        mod.update_func(mod.get_global_var("main"), function)
        return mod


class _Lifter:
    """Chooses the constants to lift and gives each content one variable."""

    def __init__(self, min_bytes: int) -> None:
        self.min_bytes = min_bytes
        self.arrays: list[np.ndarray] = []
        self._variables: list[relax.Var] = []
        self._by_content: dict[tuple, relax.Var] = {}

    def lift(self, function: relax.Function) -> relax.Function:
        function = replace_constants(function, self._variable)
        if not self.arrays:
            return function
        weights = relax.Var("weights", relax.TupleType([variable.ty for variable in self._variables]))
        fetches = [
            relax.VarBinding(variable, relax.TupleGetItem(weights, index))
            for index, variable in enumerate(self._variables)
        ]
        params, body = [*function.params, weights], bind_first(fetches, function.body)
        return relax.Function(params, body, function.ret_ty, function.is_pure, function.attrs)

    def _variable(self, const: GenericConst) -> relax.Var | None:
        array = constant(const)
        # A package's weights are of element types that numpy has itself.
        if array is None or array.nbytes < self.min_bytes or array.dtype.kind not in "biuf":
            return None
        key = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest())
        if key not in self._by_content:
            variable = relax.Var(f"weight{len(self.arrays)}", const.ty)
            self.arrays.append(array)
            self._variables.append(variable)
            self._by_content[key] = variable
        return self._by_content[key]
