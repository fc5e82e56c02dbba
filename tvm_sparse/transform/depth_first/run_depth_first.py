"""RunDepthFirst: layers on large images run strip by strip, so that what they hand on stays in a cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import tvm
import tvm_ffi
from tvm import relax

from tvm_sparse.layout.geometry import Geometry

from ..calls import LAYER, STRIPES, mark_of
from ..context import CompileContext
from ..graph import constant, free_variables
from ..ops import static_shape
from .region import Region, RegionLayer, RegionTensor
from .search import Cut, cut_run


@tvm.transform.module_pass(opt_level=2, name="RunDepthFirst")
class RunDepthFirst:
    """Cut runs of layers into regions and each region's calls into strips, where that saves traffic of the caches.

    A call of a kernel computes rows of panels of its layer; with several calls, each with a table of its own, the
    layers of a region take turns. Tensors that only the region reads and writes keep no more rows than are still to be
    read. Nothing is computed twice and no sum changes.

    It runs between ``CallTIRRewrite``, which makes allocations explicit, and ``ReuseArgument``.

    Parameters
    ----------
    context : CompileContext
        Knows how the calls run in parts.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite ``main``.

        Parameters
        ----------
        mod : tvm.IRModule
            Module with explicit allocations and no dataflow blocks.

        Returns
        -------
        tvm.IRModule
            The module.
        """
        if not self.context.stripes:
            return mod
        function = mod["main"]
        rewriter = _Rewriter(function, self.context)
        bindings = rewriter.run()
        if not rewriter.changed:
            return mod
        body = relax.SeqExpr([relax.BindingBlock(bindings)], function.body.body)
        if rewriter.replaced:
            body = tvm_ffi.structural_map(body, (relax.Var, rewriter.final))
        updated = relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)
        out = mod.clone()
        out.update_func(mod.get_global_var("main"), updated)
        return out


@dataclass
class _Run:
    """Bindings that follow each other: calls that can run in parts, with allocations and other names between them."""

    bindings: list[relax.Binding] = field(default_factory=list)
    calls: list[relax.Call] = field(default_factory=list)


class _Rewriter:
    """Rewrites the bindings of one function."""

    def __init__(self, function: relax.Function, context: CompileContext):
        self.context = context
        self.bindings = [binding for block in function.body.blocks for binding in block.bindings]
        self.root: dict[relax.Var, relax.Var] = {}
        self.allocations: dict[relax.Var, relax.Call] = {}
        # Who touches an allocation: the numbers of their bindings, or of the end.
        self.users: dict[relax.Var, list[int]] = {}
        self.number: dict[relax.Call, int] = {}
        self.parts: dict[int, RegionLayer | None] = {}
        self.shapes: dict[relax.Var, tuple[int, ...]] = {}
        # Outputs that lie where another tensor was.
        self.replaced: dict[relax.Var, relax.Var] = {}
        self.changed = False
        for number, binding in enumerate(self.bindings):
            self._look_at(number, binding)
        for variable in free_variables(function.body.body):
            self.users.setdefault(self._root(variable), []).append(len(self.bindings))

    def run(self) -> list[relax.Binding]:
        """The bindings, in strips where that pays."""
        out: list[relax.Binding] = []
        run = _Run()
        for binding in self.bindings:
            value = binding.value
            if self._in_parts(value) is not None:
                run.calls.append(value)
            elif not isinstance(value, relax.Var) and binding.var not in self.allocations:
                out += self._cut(run)
                run = _Run()
                out.append(binding)
                continue
            run.bindings.append(binding)
        return out + self._cut(run)

    def final(self, variable: relax.Var) -> relax.Var:
        """The allocation that a variable stands for in the end."""
        while variable in self.replaced:
            variable = self.replaced[variable]
        return variable

    def _look_at(self, number: int, binding: relax.Binding) -> None:
        value = binding.value
        if isinstance(value, relax.Var):
            self.root[binding.var] = self._root(value)
            return
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.builtin.alloc_tensor":
            self.allocations[binding.var] = value
        if isinstance(value, relax.Call):
            self.number[value] = number
        # Whoever is no kernel may keep the tensor under another name until the end.
        known = isinstance(value, relax.Call) and getattr(value.op, "global_symbol", None) in self.context.kernels
        for variable in free_variables(value):
            self.users.setdefault(self._root(variable), []).append(number if known else len(self.bindings))

    def _root(self, variable: relax.Var) -> relax.Var:
        return self.root.get(variable, variable)

    def _in_parts(self, value: relax.Expr) -> RegionLayer | None:
        """The layer of a call that can run in parts (its tensors unknown yet)."""
        number = self.number.get(value) if isinstance(value, relax.Call) else None
        if number is None:
            return None
        if number not in self.parts:
            self.parts[number] = self._layer(value)
        return self.parts[number]

    def _layer(self, value: relax.Call) -> RegionLayer | None:
        key = mark_of(value, STRIPES)
        if key is None:
            return None
        tensors = self._tensors(value)
        stripes = self.context.stripes[key]
        inside = tensors[1:] if stripes.plain else tensors
        if not 2 <= len(tensors) <= 3 or any(t not in self.allocations for t in inside):
            return None
        size = sum(a.nbytes for a in map(constant, value.args) if a is not None)
        layer = RegionLayer(stripes, 0, 0, weight_bytes=size)
        return layer if layer.stripes.of_rows is not None else None

    def _tensors(self, call: relax.Call) -> list[relax.Var]:
        """Allocations of the input, the residual if there is one, and the output of a call."""
        return [self._root(a) for a in call.args if isinstance(a, relax.Var)]

    def _cut(self, run: _Run) -> list[relax.Binding]:
        """The bindings of a run, its regions in strips."""
        if len(run.calls) < 2:
            return run.bindings
        cuts = cut_run(len(run.calls), lambda a, b: self._region(run.calls[a:b])[0], self.context.isa)
        if not cuts:
            return run.bindings
        self.changed = True
        out: list[relax.Binding] = []
        number, start = 0, {cut.first: cut for cut in cuts}
        cut, mine = None, _Run()
        for binding in run.bindings:
            is_call = self._in_parts(binding.value) is not None
            if cut is None and is_call:
                cut = start.get(number)
            if cut is None:
                out.append(binding)
            else:
                mine.bindings.append(binding)
            if is_call:
                number += 1
                if cut is not None:
                    mine.calls.append(binding.value)
                    if number == cut.last:
                        out = self._strips(cut, mine, out)
                        cut, mine = None, _Run()
        return out

    def _region(self, calls: Sequence[relax.Call]) -> tuple[Region, list[relax.Var]]:
        """The region of some calls, and the allocations of its tensors."""
        numbers: dict[relax.Var, int] = {}
        mine = {self.number[call] for call in calls}
        layers, tensors = [], []
        for call in calls:
            known = self._in_parts(call)
            assert known is not None
            source, *residual, target = self._tensors(call)
            for variable in (source, *residual, target):
                if variable not in numbers:
                    numbers[variable] = len(tensors)
                    geometry = known.stripes.source if variable is source else known.stripes.target
                    plain = variable is source and known.stripes.plain
                    tensors.append(self._tensor(variable, geometry, mine, plain))
            layers.append(
                RegionLayer(
                    known.stripes, numbers[source], numbers[target], numbers[residual[0]] if residual else None,
                    known.weight_bytes,
                )
            )  # fmt: skip
        return Region(layers, tensors), list(numbers)

    def _tensor(self, variable: relax.Var, geometry: Geometry, mine: set[int], plain: bool) -> RegionTensor:
        """A tensor of a region of the calls with certain numbers, plain or in columns."""
        users = self.users[variable]
        if variable not in self.shapes:
            shape = static_shape(variable)
            assert shape is not None
            self.shapes[variable] = shape
        shape = self.shapes[variable]
        down, across = geometry.panels_down, geometry.panels_across
        if plain:
            # It has no rows of panels of its own: layers that read some read as large a part of it.
            return RegionTensor(down, across, 4 * prod(shape) // down, whole=True, kept=True)
        whole = any(user not in mine for user in users)
        kept = max(users) > max(mine)
        return RegionTensor(down, across, 4 * prod(shape[1:]) * across, whole, kept)

    def _strips(self, cut: Cut, run: _Run, before: list[relax.Binding]) -> list[relax.Binding]:
        """Bindings of a region: allocations (those of its own tensors shrunk), then the calls in turns."""
        region, variables = self._region(run.calls)
        calls = region.order(cut.strips)
        storage = region.store(calls)
        turns = Counter(call.layer for call in calls)
        self._note([(mark_of(call, LAYER), turns[number]) for number, call in enumerate(run.calls)])
        replaced: dict[relax.Var, relax.Var] = {}
        shrunk: dict[relax.Var, int] = {}
        for number, variable in enumerate(variables):
            if storage.buffers[number] != number:
                replaced[variable] = variables[storage.buffers[number]]
            elif not any(t.whole for t, b in zip(region.tensors, storage.buffers, strict=True) if b == number):
                shrunk[variable] = int(storage.slots[number].max() + 1) * region.tensors[number].across
        self.replaced |= replaced
        own = {self.number[call] for call in run.calls}
        out: list[relax.Binding] = []
        for binding in (*before, *run.bindings):
            if binding.var in shrunk:
                new = _allocation(binding, shrunk[binding.var])
                replaced[binding.var] = new.var
                out.append(new)
            elif isinstance(binding.value, relax.Var):
                # Another name; of tensors inside of the region nobody uses it.
                if self.final(self._root(binding.value)) not in shrunk:
                    out.append(binding)
            elif binding.var not in replaced and self.number.get(binding.value) not in own:
                out.append(binding)
        for call in calls:
            old = run.calls[call.layer]
            arguments = [self._argument(a, replaced) for a in old.args]
            arguments[-2] = relax.const(region.layers[call.layer].stripes.table(region.part(call, storage)))
            new_call = relax.Call(old.op, arguments, old.attrs, ty_args=old.ty_args, ret_ty=old.ty)
            out.append(relax.VarBinding(relax.Var("_", old.ty), new_call))
        return out

    def _note(self, turns: Sequence[tuple[str | None, int]]) -> None:
        """Tell the plan in how many strips layers run; a layer of a batch's groups runs in the same ones in each."""
        strips = {name: count for name, count in turns if name is not None}
        for layer in self.context.plan.layers:
            if layer.strips == 1 and strips.get(layer.name, 1) > 1:
                layer.strips = strips[layer.name]
                layer.why += f"; in {layer.strips} strips, by turns with its neighbours, whose tensors stay cached"

    def _argument(self, argument: relax.Expr, replaced: dict[relax.Var, relax.Var]) -> relax.Expr:
        if not isinstance(argument, relax.Var):
            return argument
        variable = self._root(argument)
        while variable in replaced:
            variable = replaced[variable]
        return variable


def _allocation(binding: relax.Binding, panels: int) -> relax.VarBinding:
    """An allocation with other panels."""
    old = binding.value
    shape = static_shape(binding.var)
    assert shape is not None
    new_shape = (panels, *shape[1:])
    type_ = relax.TensorType(new_shape, binding.var.ty.dtype)
    arguments = [relax.ShapeExpr(new_shape), *old.args[1:]]
    return relax.VarBinding(
        relax.Var(binding.var.name, type_),
        relax.Call(old.op, arguments, old.attrs, ty_args=[type_], ret_ty=type_),
    )
