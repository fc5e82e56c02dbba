"""The public functions: compile and analyze."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tvm_sparse.ffi  # noqa: F401  (first: it keeps torch out)

# isort: split
import tvm

from tvm_sparse import __version__
from tvm_sparse.build.link import build_library
from tvm_sparse.build.pass_names import check_pass_config, check_pass_names
from tvm_sparse.build.target import make_target
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.frontend import import_model
from tvm_sparse.plan.plan import Plan
from tvm_sparse.runtime import threads
from tvm_sparse.runtime.arrays import numpy_dtype
from tvm_sparse.runtime.files import atomic_write, writable_target
from tvm_sparse.runtime.package import Package
from tvm_sparse.runtime.spec import TensorSpec
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.instruments import PassTimes, PrintIR
from tvm_sparse.transform.pipeline import run_phases

Progress = Callable[[str], None]


def compile(
    model: Any,
    target: str | Mapping[str, Any] | tvm.target.Target | None = None,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    model_format: str | None = None,
    sparsity: str | Plan = "auto",
    sparsity_threshold: float = 0.5,
    sparse_format: str = "auto",
    block_shape: str = "auto",
    opt_level: int = 3,
    disabled_passes: Sequence[str] = (),
    pass_config: Mapping[str, Any] | None = None,
    print_ir_before: Sequence[str] = (),
    print_ir_after: Sequence[str] = (),
    print_pass_times: bool = False,
    dump_code: Sequence[str] = (),
    cross_compiler: str | None = None,
    cross_compiler_options: Sequence[str] = (),
    num_threads: int | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Package:
    """Compile a model to a package.

    Parameters
    ----------
    model : str, Path, onnx.ModelProto or torch.export.ExportedProgram
        An ``.onnx`` or ``.pt2`` file, or a model in memory.
    target : str, mapping or Target, optional
        LLVM target, such as ``"llvm -mcpu=znver4"``; default: the CPU that this runs on.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves dynamic, ``{name: shape}``.
    model_format : str, optional
        ``"onnx"`` or ``"pytorch"``; default: by suffix or type.
    sparsity : str or Plan
        ``"auto"``, ``"off"``, the path of a plan written by `dump_plan`, or a plan.
    sparsity_threshold : float
        Layers with a smaller share of zeros stay dense.
    sparse_format : str
        ``"auto"`` or the only sparse format to use.
    block_shape : str
        ``"auto"`` or the only shape of blocks to use, such as ``"4x1"`` (output channels by input channels).
    opt_level : int
        0 to 3, as passes are registered; 3 runs them all.
    disabled_passes : sequence of str
        Names of passes to leave out.
    pass_config : mapping, optional
        Entries of TVM's pass context.
    print_ir_before, print_ir_after : sequence of str
        Passes around which the module is printed; ``"*"`` for all.
    print_pass_times : bool
        Print what each pass took.
    dump_code : sequence of str
        Of ``"asm"``, ``"ll"``, ``"tir"``, ``"relax"``: written beside the output as ``<output>.<format>``.
    cross_compiler : str, optional
        Compiler that links for another machine.
    cross_compiler_options : sequence of str
        Options for it.
    num_threads : int, optional
        Threads that the package uses by default, and that batches are split for; default: decided where it runs, and
        split for one thread and for all cores alike.
    output : str or Path, optional
        Where to write; default: a temporary file that lives as long as the package object.
    progress : callable, optional
        Called with the name of each step when it starts.

    Returns
    -------
    Package
        The package, with ``path``, ``metadata`` and ``load()``.

    Raises
    ------
    TvmSparseError
        If the model cannot be imported, an option is unknown, or the output cannot be written.
    """
    unknown = sorted(set(dump_code) - {"asm", "ll", "tir", "relax"})
    if unknown:
        raise TvmSparseError(f"cannot dump {', '.join(unknown)}; known: asm, ll, tir, relax")
    step = progress or (lambda _name: None)
    # Everything that can be wrong with the options is found before the work begins.
    if output is not None:
        for path in (Path(output), *(_dump_path(Path(output), name) for name in dump_code)):
            writable_target(path)
    resolved = make_target(target)
    plan = _make_plan(sparsity, sparsity_threshold, sparse_format, block_shape)
    given = num_threads is not None
    counts = (threads.resolve(num_threads),) if given else tuple(sorted({1, threads.resolve(None)}))
    context = CompileContext(resolved, Isa.from_target(resolved), plan, thread_counts=counts)
    check_pass_config(dict(pass_config or {}))
    check_pass_names(
        context,
        disabled_passes=disabled_passes,
        print_ir_before=print_ir_before,
        print_ir_after=print_ir_after,
    )
    step("import")
    imported = import_model(model, input_shapes=input_shapes, model_format=model_format)
    # A plain shared library is the whole model: its weights stay inside.
    if output is None or Path(output).suffix != ".so":
        context.weights = []
    times = PassTimes()
    instruments = [PrintIR(print_ir_before, print_ir_after), *([times] if print_pass_times else [])]
    with tvm.transform.PassContext(
        opt_level=opt_level,
        disabled_pass=list(disabled_passes),
        config=dict(pass_config or {}),
        instruments=instruments,
    ):
        lowered = run_phases(imported.module, context, step)
        plan.check_overrides()
        folder = Path(tempfile.mkdtemp(prefix="tvm-sparse-"))
        try:
            executable = build_library(
                lowered,
                context,
                folder / "mod.so",
                cross_compiler=cross_compiler,
                cross_compiler_options=tuple(cross_compiler_options),
                progress=step,
            )
            path = Path(output) if output is not None else folder / "module.tar"
            step("write")
            package = Package.write(
                path,
                folder / "mod.so",
                {
                    "tvm_sparse": __version__,
                    "tvm": tvm.__version__,
                    "target": str(resolved),
                    "isa": context.isa.name,
                    "lanes": context.isa.lanes,
                    "arch": context.isa.arch,
                    "features": list(context.isa.features),
                    "inputs": _input_entries(imported.inputs, context.unaligned_inputs),
                    "outputs": [
                        asdict(replace(spec, own=place in context.own_outputs))
                        for place, spec in enumerate(imported.outputs)
                    ],
                    "plan": plan.to_json(),
                    "num_threads": num_threads,
                },
                context.weights or (),
            )
            for name in dump_code:
                _dump(name, path, lowered, executable)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    if print_pass_times:
        print(times.render())
    if output is None:
        (folder / "mod.so").unlink()
        weakref.finalize(package, shutil.rmtree, str(folder), ignore_errors=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return package


def _input_entries(specs: Sequence[TensorSpec], unaligned: Collection[int]) -> list[dict[str, Any]]:
    """Descriptions of the inputs for the package; those at some positions may begin at any element."""
    return [
        asdict(replace(spec, alignment=numpy_dtype(spec.dtype).itemsize) if place in unaligned else spec)
        for place, spec in enumerate(specs)
    ]


def _make_plan(sparsity: str | Plan, threshold: float, sparse_format: str, block_shape: str) -> Plan:
    if isinstance(sparsity, Plan):
        # The caller's plan stays as it is, to be used again.
        return replace(sparsity, layers=[])
    if sparsity in ("auto", "off"):
        return Plan(sparsity, threshold, sparse_format, block_shape=block_shape)
    return Plan.read(sparsity)


def _dump_path(output: Path, name: str) -> Path:
    return output.with_name(f"{output.name}.{name}")


def _dump(name: str, path: Path, lowered: tvm.IRModule, executable: Any) -> None:
    """Write one form of the code beside the output."""
    if name == "relax":
        text = lowered.script() + "\n" + executable.as_text()
    elif name == "tir":
        functions = {g: f for g, f in lowered.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}
        text = tvm.IRModule(functions).script()
    else:
        sources = [m for m in executable.mod.imports if m.kind == "llvm"]
        text = "\n".join(m.inspect_source(name) for m in sources)
    with atomic_write(_dump_path(path, name)) as file:
        file.write(text.encode())


@dataclass(frozen=True)
class LayerAnalysis:
    """What :func:`analyze` found in one layer.

    Parameters
    ----------
    name, kind, shape : str
        As in the plan.
    zeros : float
        Share of weights that are zero.
    structure : str
        Structure of the zeros: ``"dense"``, ``"unstructured"``, ``"4x1 blocks"``, ``"1x4 blocks"``, ``"2:4"``.
    bytes_dense : int
        Bytes of the dense weight.
    speedup : mapping of str to float
        Estimated speed-up over dense by sparsity: ``"as is"``, and what it would be at other sparsities.
    bytes_by_format : mapping of str to int
        Bytes of the weight in each format.
    """

    name: str
    kind: str
    shape: str
    zeros: float
    structure: str
    bytes_dense: int
    speedup: Mapping[str, float] = field(default_factory=dict)
    bytes_by_format: Mapping[str, int] = field(default_factory=dict)


def analyze(
    model: Any,
    target: str | Mapping[str, Any] | tvm.target.Target | None = None,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    model_format: str | None = None,
    what_if: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
) -> list[LayerAnalysis]:
    """Describe the zeros of every layer and what they are worth.

    Parameters
    ----------
    model, target, input_shapes, model_format
        As for :func:`compile`.
    what_if : sequence of float
        Shares of zeros for which speed-ups are estimated too.

    Returns
    -------
    list of LayerAnalysis
        One entry per convolution or linear layer with constant weights.
    """
    from tvm_sparse.transform.analyze import analyze_layers

    resolved = make_target(target)
    imported = import_model(model, input_shapes=input_shapes, model_format=model_format)
    context = CompileContext(resolved, Isa.from_target(resolved), Plan())
    return [LayerAnalysis(**entry) for entry in analyze_layers(imported.module, context, tuple(what_if))]


def write_plan(package: Package, path: str | Path) -> None:
    """Write a package's plan as JSON, to be edited and given to ``compile(sparsity=path)``."""
    with atomic_write(Path(path)) as file:
        file.write(json.dumps(package.metadata["plan"], indent=1).encode())
