"""NumberCalls: tell the plan which call of a kernel is which layer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import tvm
from tvm import relax

from tvm_sparse.plan.plan import Plan

from .calls import LAYER, mark_of


@tvm.transform.module_pass(opt_level=0, name="NumberCalls")
class NumberCalls:
    """Number the calls of each kernel in the order of a run and note the numbers in the plan's layers.

    A kernel serves many layers, and a profile knows calls only by their kernel. It runs last, when dead calls are gone
    and no call moves any more.

    Parameters
    ----------
    plan : Plan
        Its layers receive their ``calls``; none where no call is left.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Read the calls of "main"; the module stays as it is."""
        seen: Counter[str] = Counter()
        numbers: dict[str, list[int]] = {}

        def visit(expression: Any) -> None:
            if not isinstance(expression, relax.Call) or not isinstance(expression.op, relax.ExternFunc):
                return
            symbol, layer = str(expression.op.global_symbol), mark_of(expression, LAYER)
            if layer is not None:
                numbers.setdefault(layer, []).append(seen[symbol])
            seen[symbol] += 1

        for block in module["main"].body.blocks:
            for binding in block.bindings:
                visit(binding.value)
        for layer in self.plan.layers:
            layer.calls = numbers.get(layer.name, [])
        return module
