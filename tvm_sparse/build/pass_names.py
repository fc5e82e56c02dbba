"""Names of the passes that a compilation runs, to check the names that a user gives."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.ir.instrument import pass_instrument

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.plan.plan import Plan
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import AlreadyLowered, run_phases

# Stands for all passes where the module is printed.
ALL = "*"


@pass_instrument
class _Names:
    """Collects the names of passes that run."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def run_before_pass(self, _module: tvm.IRModule, info: Any) -> None:
        self.names.add(str(info.name))


def pass_names(context: CompileContext) -> set[str]:
    """Names of the passes of a compilation, TVM's nested ones and those of the code generator among them.

    TVM has no list of them, so they are collected while a module of one addition is compiled: some 0.1 s.

    Parameters
    ----------
    context : CompileContext
        Target.
    """
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(x, relax.const(1.0, "float32")))
        builder.emit_func_output(result)
    collector = _Names()
    own = CompileContext(context.target, context.isa, Plan(), weights=[])
    with tvm.transform.PassContext(opt_level=3, instruments=[collector]):
        lowered = run_phases(builder.get(), own)
        relax.build(lowered, target=context.target, relax_pipeline=AlreadyLowered())
    return collector.names


def check_pass_names(context: CompileContext, **options: Sequence[str]) -> None:
    """Refuse names of passes that no compilation runs.

    Parameters
    ----------
    context : CompileContext
        Target.
    **options : sequence of str
        Names by option; `ALL` is a name too where an option's name begins with ``print``.

    Raises
    ------
    TvmSparseError
        Names the option, the unknown pass, and similar ones.
    """
    if not any(set(names) - {ALL} or option == "disabled_passes" and names for option, names in options.items()):
        return
    known = pass_names(context)
    for option, names in options.items():
        allowed = known | ({ALL} if option.startswith("print") else set())
        for name in names:
            if name not in allowed:
                raise TvmSparseError(f"{option}: there is no pass {name!r}; {_similar(name, known)}")


def check_pass_config(config: dict[str, Any]) -> None:
    """Refuse settings of TVM's pass context that it doesn't have, or values that don't fit.

    Raises
    ------
    TvmSparseError
        Names the setting, and similar ones.
    """
    known = {str(name) for name in tvm.transform.PassContext.list_configs()}
    for name, value in config.items():
        if name not in known:
            raise TvmSparseError(f"pass_config: TVM has no setting {name!r}; {_similar(name, known)}")
        try:
            tvm.transform.PassContext(config={name: value})
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise TvmSparseError(f"pass_config: {name} cannot be {value!r}: {reason}") from error


def _similar(name: str, known: set[str]) -> str:
    """The nearest names, whatever their case or prefix; else all."""
    folded: dict[str, str] = {}
    for candidate in sorted(known):
        folded[candidate.casefold()] = candidate
        folded.setdefault(candidate.casefold().rpartition(".")[2], candidate)
    text = name.casefold()
    near = difflib.get_close_matches(text, folded, n=5) + difflib.get_close_matches(
        text.rpartition(".")[2], folded, n=5
    )
    inside = [key for key in folded if len(text) > 2 and text in key]
    found = list(dict.fromkeys(folded[key] for key in [*near, *inside]))[:5]
    if found:
        return f"similar ones: {', '.join(found)}"
    return f"known ones: {', '.join(sorted(known))}"
