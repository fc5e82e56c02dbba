"""``tvmc run``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

import numpy as np

import tvm_sparse
from tvm_sparse.runtime import LayerProfile, Module, layer_profile
from tvm_sparse.runtime.arrays import fill_inputs
from tvm_sparse.runtime.files import writable_target, write_text
from tvm_sparse.runtime.npz import read_inputs, write_outputs
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.arguments import check_input_file, positive_int
from tvm_sparse.tvmc.profile_tables import profile_tables
from tvm_sparse.tvmc.registry import register_parser
from tvm_sparse.tvmc.roofs import measure_roofs
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
    parser.add_argument("--profile-output", metavar="PATH", help=texts.PROFILE_OUTPUT)
    parser.add_argument("--end-to-end", action="store_true", help=texts.END_TO_END)
    parser.add_argument("--repeat", type=positive_int, default=1, metavar="N", help=texts.REPEAT)
    parser.add_argument("--number", type=positive_int, default=10, metavar="N", help=texts.NUMBER)
    parser.add_argument("--num-threads", type=positive_int, metavar="N", help=texts.NUM_THREADS)


def run_command(args: argparse.Namespace) -> int:
    """Run a package once, and print or write what was asked for."""
    check_input_file(args.PATH)
    for path in filter(None, (args.outputs, args.profile_output)):
        writable_target(path)
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
    if args.profile or args.profile_output:
        profile = profile_layers(module, inputs, max(args.repeat, args.number))
        if args.profile:
            print(profile_tables(profile))
        if args.profile_output:
            write_text(args.profile_output, json.dumps(profile.to_json(), indent=1) + "\n")
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


def profile_layers(module: Module, inputs: Mapping[str, np.ndarray], repeat: int) -> LayerProfile:
    """Time the layers of a model and measure the machine's roofs; without them where there is no compiler."""
    roofs, why = measure_roofs(module.metadata, module.num_threads)
    if roofs is None:
        print(f"no roofs to compare with: {why}", file=sys.stderr)
    layers = module.metadata.get("plan", {}).get("layers", [])
    return layer_profile(module.profile(inputs, repeat=repeat), layers, roofs)
