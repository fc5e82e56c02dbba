"""ScheduleCPU: vectorised, parallel loops for every function that has no schedule yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import tvm
from tvm import tirx

from tvm_sparse.schedules.cpu.generic import RULES, Rule
from tvm_sparse.schedules.cpu.generic.nest import parse
from tvm_sparse.schedules.cpu.isa import Isa

_LOG = logging.getLogger(__name__)
_SCHEDULED = "tirx.is_scheduled"


@tvm.transform.module_pass(opt_level=0, name="ScheduleCPU")
class ScheduleCPU:
    """Schedule the functions that legalisation and fusion leave behind.

    The first rule that takes a function schedules it. A rule that fails is passed over, and a function that no
    rule takes is left as it is: slow, but right. So is one with a loop of no iterations.

    Parameters
    ----------
    isa : Isa
        Vector instruction set of the target.
    rules : sequence of Rule
        Rules to try, in order.
    """

    def __init__(self, isa: Isa, rules: Sequence[Rule] = RULES) -> None:
        self.isa = isa
        self.rules = tuple(rules)

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Schedule every PrimFunc of a module.

        Parameters
        ----------
        mod : tvm.IRModule
            Module after ``FuseTIR``; Relax functions in it are kept as they are.

        Returns
        -------
        tvm.IRModule
            The module with scheduled PrimFuncs, marked ``tirx.is_scheduled``.
        """
        scheduled = {}
        for gv, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and not (func.attrs and func.attrs.get(_SCHEDULED, False)):
                new = schedule(func, self.isa, self.rules)
                if new is not None:
                    scheduled[gv] = new.with_attr(_SCHEDULED, True)
        if not scheduled:
            return mod
        mod = mod.clone()
        for gv, func in scheduled.items():
            mod.update_func(gv, func)
        return mod


def schedule(func: tirx.PrimFunc, isa: Isa, rules: Sequence[Rule] = RULES) -> tirx.PrimFunc | None:
    """Schedule one function.

    Parameters
    ----------
    func : tirx.PrimFunc
        An s_tir function.
    isa : Isa
        Vector instruction set of the target.
    rules : sequence of Rule
        Rules to try, in order.

    Returns
    -------
    tirx.PrimFunc or None
        None if no rule takes the function.
    """
    for rule in rules:
        # Parsed anew for each rule: rules change the program they are given.
        program = parse(func)
        if program is None or any(stage.points == 0 for stage in program.stages):
            return None
        try:
            result = rule(program, isa)
        except Exception as error:  # noqa: BLE001  (a rule must never break a compilation)
            _LOG.warning("rule %s failed: %s", getattr(rule, "__name__", rule), error)
            continue
        if result is not None:
            return result
    return None
