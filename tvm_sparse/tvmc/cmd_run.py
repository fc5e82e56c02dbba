"""``tvmc run``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tvm_sparse
from tvm_sparse.runtime import ProfileResult
from tvm_sparse.runtime.arrays import fill_inputs
from tvm_sparse.runtime.files import writable_target
from tvm_sparse.runtime.npz import read_inputs, write_outputs
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.arguments import check_input_file, positive_int
from tvm_sparse.tvmc.registry import register_parser
from tvm_sparse.tvmc.tables import format_arguments, format_table


@register_parser
def add_run_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("run", help=texts.RUN, description=texts.RUN)
    parser.set_defaults(func=run_command)
    parser.add_argument("PATH", help=texts.PACKAGE)
    parser.add_argument("--device", choices=["cpu"], default="cpu", help=texts.DEVICE)
    parser.add_argument("-i", "--inputs", help=texts.INPUTS)
    parser.add_argument("-o", "--outputs", help=texts.OUTPUTS)
    parser.add_argument(
        "--fill-mode", choices=["random", "zeros", "ones"], default="random", help=texts.FILL_MODE
    )
    parser.add_argument("--print-time", action="store_true", help=texts.PRINT_TIME)
    parser.add_argument("--print-top", type=positive_int, metavar="N", help=texts.PRINT_TOP)
    parser.add_argument("--profile", action="store_true", help=texts.PROFILE)
    parser.add_argument("--end-to-end", action="store_true", help=texts.END_TO_END)
    parser.add_argument("--repeat", type=positive_int, default=1, metavar="N", help=texts.REPEAT)
    parser.add_argument("--number", type=positive_int, default=10, metavar="N", help=texts.NUMBER)
    parser.add_argument("--num-threads", type=positive_int, metavar="N", help=texts.NUM_THREADS)


def run_command(args: argparse.Namespace) -> int:
    """Run a package once, and print or write what was asked for."""
    check_input_file(args.PATH)
    if args.outputs:
        writable_target(args.outputs)
    module = tvm_sparse.load(args.PATH, num_threads=args.num_threads)
    inputs = read_inputs(args.inputs) if args.inputs else fill_inputs(module.inputs, args.fill_mode)
    shown = {
        "package": args.PATH,
        "device": args.device,
        "inputs": args.inputs or args.fill_mode,
        "threads": module.num_threads,
    }
    print(format_arguments("run", shown), flush=True)
    outputs = module.run(inputs)
    for name, array in outputs.items():
        print(f"{name}: {array.dtype}{list(array.shape)}")
    if args.outputs:
        write_outputs(args.outputs, outputs)
    if args.print_top:
        print(top_table(next(iter(outputs.values())), args.print_top))
    if args.profile:
        profile = module.profile(inputs, repeat=max(args.repeat, args.number))
        print(profile_table(profile, module.metadata.get("plan", {}).get("layers", [])))
    if args.print_time:
        print(module.benchmark(inputs, number=args.number, repeat=args.repeat, end_to_end=args.end_to_end))
    return 0


def top_table(output: np.ndarray, count: int) -> str:
    """The largest values along the last axis of each row of an output.

    Parameters
    ----------
    output : numpy.ndarray
        Of any shape; all axes but the last are rows.
    count : int
        Values per row.

    Returns
    -------
    str
        A table of row, rank, index and value.
    """
    rows = output.reshape(-1, output.shape[-1] if output.ndim else 1)
    cells = []
    for number, row in enumerate(rows):
        order = np.argsort(-row.astype(np.float64), kind="stable")[:count]
        cells += [(str(number), str(rank + 1), str(i), f"{row[i]:.6g}") for rank, i in enumerate(order)]
    return format_table(("row", "rank", "index", "value"), cells, right=(0, 1, 2, 3))


def profile_table(profile: ProfileResult, layers: Sequence[Mapping[str, Any]]) -> str:
    """One line per call of a kernel in order of execution, named by its layer where the plan tells it.

    A kernel serves many layers; its calls come in the plan's order. Where the numbers of calls and of layers
    differ, the kernel's name stands alone.
    """
    names: dict[str, list[str]] = {}
    for layer in layers:
        names.setdefault(layer.get("kernel", ""), []).append(layer["name"])
    calls = profile.kernels
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.name] = counts.get(call.name, 0) + 1
    total = sum(call.ms for call in profile.calls) or 1.0
    seen: dict[str, int] = {}
    rows = []
    for call in calls:
        of_kernel = names.get(call.name, [])
        index = seen.get(call.name, 0)
        seen[call.name] = index + 1
        layer_name = of_kernel[index] if len(of_kernel) == counts[call.name] else ""
        rows.append((layer_name, call.name, f"{call.ms:.4f}", f"{call.ms / total:.1%}"))
    own = total - sum(call.ms for call in calls)
    rows.append(("", "(virtual machine)", f"{own:.4f}", f"{own / total:.1%}"))
    rows.append(("", "total", f"{total:.4f}", ""))
    return format_table(("layer", "kernel", "time (ms)", "share"), rows, right=(2, 3))
