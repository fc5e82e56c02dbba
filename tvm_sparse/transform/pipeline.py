"""The passes of a compilation, in phases: reading this file explains the compiler."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax

from .batch import CopyViews, SplitBatch
from .canonicalize import canonicalize_passes
from .columns import ToColumns
from .context import CompileContext
from .decompose_transposed import DecomposeTransposedConvolution
from .depth_first import RunDepthFirst
from .depth_to_space_form import DepthToSpaceForm
from .empty_constants import AllocateEmptyConstants
from .fast_math import FastMath
from .find_own_outputs import FindOwnOutputs
from .find_unaligned_inputs import FindUnalignedInputs
from .fuse_layers import FuseLayers
from .lift_constants import LiftConstants
from .number_calls import NumberCalls
from .plan_memory import PlanMemory
from .reuse_argument import ReuseArgument
from .schedule_cpu import ScheduleCPU

Phase = tuple[str, list[tvm.transform.Pass]]


def phases(context: CompileContext) -> list[Phase]:
    """All passes of a compilation, by phase.

    Parameters
    ----------
    context : CompileContext
        Target and plan; the phase "columns" fills in the plan's layers and the kernels, the phase "lower" the
        weights.

    Returns
    -------
    list of (str, list of Pass)
        Phase names with their passes, in order.
    """
    return [
        # 1. One normal form for every exporter's output.
        ("canonicalize", canonicalize_passes()),
        # 2. Layers with everything that follows them; formats chosen, weights packed, activations in columns. Only
        # ToColumns knows the layers' operators: without it the convolutions become loops. What runs on a few items of
        # a batch at a time is a function until phase 3 is over.
        ("columns", [] if _disabled("ToColumns") else [*_layer_passes(), *_column_passes(context)]),
        # 3. Everything that is left becomes loops, fused and scheduled.
        (
            "loops",
            [
                relax.backend.DispatchSampling(),
                relax.backend.DispatchSortScan(),
                relax.transform.LegalizeOps(),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.InlinePrivateFunctions(),
                relax.transform.DeadCodeElimination(),
                ScheduleCPU(context.isa),
                FastMath(),
            ],
        ),
        # 4. Calls in strips where that saves traffic of the caches; memory planned; bytecode of the virtual machine;
        # weights apart from the code.
        (
            "lower",
            [
                relax.transform.ToNonDataflow(),
                relax.transform.RemovePurityChecking(),
                relax.transform.CallTIRRewrite(),
                RunDepthFirst(context),
                ReuseArgument(context),
                AllocateEmptyConstants(),
                PlanMemory(context),
                relax.transform.LowerAllocTensor(),
                FindOwnOutputs(context),
                relax.transform.KillAfterLastUse(),
                relax.transform.LowerRuntimeBuiltin(),
                relax.transform.ComputePrimValue(),
                relax.transform.VMShapeLower(),
                relax.transform.AttachGlobalSymbol(),
                NumberCalls(context.plan),
                *([] if context.weights is None else [LiftConstants(context.weights)]),
            ],
        ),
    ]


def run_until_layers(module: tvm.IRModule, context: CompileContext) -> tvm.IRModule:
    """Run the passes up to the fusing of layers, which is what an analysis looks at."""
    passes = [*canonicalize_passes(), *_layer_passes()]
    with context.target:
        return tvm.transform.Sequential(passes, name="layers")(module)


def _disabled(name: str) -> bool:
    return name in {str(other) for other in tvm.transform.PassContext.current().disabled_pass}


def _layer_passes() -> list[tvm.transform.Pass]:
    return [DepthToSpaceForm(), DecomposeTransposedConvolution(), FuseLayers()]


def _column_passes(context: CompileContext) -> list[tvm.transform.Pass]:
    return [SplitBatch(context), ToColumns(context), CopyViews(context), FindUnalignedInputs(context)]


def run_phases(
    module: tvm.IRModule, context: CompileContext, progress: Callable[[str], None] | None = None
) -> tvm.IRModule:
    """Run all phases.

    Parameters
    ----------
    module : tvm.IRModule
        Imported module.
    context : CompileContext
        Target and plan.
    progress : callable, optional
        Called with the name of each phase before it runs.

    Returns
    -------
    tvm.IRModule
        Module of bytecode-level Relax and scheduled TensorIR.
    """
    with context.target:
        for name, passes in phases(context):
            if progress:
                progress(name)
            module = tvm.transform.Sequential(passes, name=name)(module)
    return module


@tvm.transform.module_pass(opt_level=0, name="AlreadyLowered")
class AlreadyLowered:
    """The pipeline handed to ``relax.build`` for modules that `run_phases` has lowered."""

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Leave the module as it is."""
        return module
