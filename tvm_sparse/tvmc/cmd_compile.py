"""``tvmc compile``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import tvm_sparse
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.plan.plan import BLOCK_SHAPES, FORMATS
from tvm_sparse.runtime.files import writable_target
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.arguments import add_model_arguments, check_input_file, comma_list, positive_int, share
from tvm_sparse.tvmc.progress import Progress
from tvm_sparse.tvmc.registry import register_parser
from tvm_sparse.tvmc.tables import format_arguments, format_bytes, layer_table
from tvm_sparse.tvmc.target import add_target_arguments, target_from_arguments

DUMP_FORMATS = ("asm", "ll", "tir", "relax")


@register_parser
def add_compile_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("compile", help=texts.COMPILE, description=texts.COMPILE)
    parser.set_defaults(func=compile_command)
    add_model_arguments(parser)
    parser.add_argument("-o", "--output", default="module.tar", help=texts.OUTPUT)
    parser.add_argument("-f", "--output-format", choices=["so"], default="so", help=texts.OUTPUT_FORMAT)
    parser.add_argument(
        "--dump-code", type=_dump_formats, default=(), metavar="FORMATS", help=texts.DUMP_CODE
    )
    parser.add_argument(
        "-O", "--opt-level", type=int, choices=range(4), default=3, metavar="0-3", help=texts.OPT_LEVEL
    )
    for flag, text in (
        ("--disabled-pass", texts.DISABLED_PASS),
        ("--print-ir-before", texts.PRINT_IR_BEFORE),
        ("--print-ir-after", texts.PRINT_IR_AFTER),
    ):
        parser.add_argument(flag, type=comma_list, default=(), metavar="PASSES", help=text)
    parser.add_argument("--print-pass-times", action="store_true", help=texts.PRINT_PASS_TIMES)
    parser.add_argument(
        "--pass-config",
        action="append",
        type=_setting,
        default=[],
        metavar="NAME=VALUE",
        help=texts.PASS_CONFIG,
    )
    parser.add_argument("--cross-compiler", metavar="PROGRAM", help=texts.CROSS_COMPILER)
    parser.add_argument(
        "--cross-compiler-options",
        type=shlex.split,
        default=[],
        metavar="OPTIONS",
        help=texts.CROSS_COMPILER_OPTIONS,
    )
    parser.add_argument("--executor", choices=["graph", "aot"], help=texts.EXECUTOR)
    parser.add_argument("--runtime", choices=["cpp"], help=texts.RUNTIME)
    parser.add_argument("--sparsity", default="auto", metavar="auto|off|PLAN.json", help=texts.SPARSITY)
    parser.add_argument(
        "--sparsity-threshold", type=share, default=0.5, metavar="SHARE", help=texts.SPARSITY_THRESHOLD
    )
    parser.add_argument("--sparse-format", choices=FORMATS, default="auto", help=texts.SPARSE_FORMAT)
    parser.add_argument("--block-shape", choices=("auto", *BLOCK_SHAPES), default="auto", help=texts.BLOCK_SHAPE)
    parser.add_argument("--dump-plan", metavar="PATH", help=texts.DUMP_PLAN)
    parser.add_argument("--num-threads", type=positive_int, metavar="N", help=texts.COMPILE_NUM_THREADS)
    add_target_arguments(parser)


def compile_command(args: argparse.Namespace) -> int:
    """Compile a model and print its table of layers."""
    if args.executor or args.runtime:
        print(
            "Note: there is one executor (the Relax virtual machine) and one runtime (cpp).", file=sys.stderr
        )
    model = check_input_file(args.FILE)
    # Found out now rather than after a minute of work.
    for path in filter(None, (args.output, args.dump_plan)):
        writable_target(path)
    options = compile_options(args)
    shown = {
        "model": model,
        "output": args.output,
        **{k: v for k, v in options.items() if v not in (None, (), {}, False)},
    }
    shown["target"] = _target_text(options["target"])
    print(format_arguments("compile", shown), flush=True)
    start = time.perf_counter()
    with Progress() as progress:
        # TVM takes a second to import.
        progress("load the compiler")
        package = tvm_sparse.compile(model, output=args.output, progress=progress, **options)
    seconds = time.perf_counter() - start
    plan = package.metadata["plan"]
    if args.dump_plan:
        tvm_sparse.write_plan(package, args.dump_plan)
    print(layer_table(plan.get("layers", [])))
    size = format_bytes(Path(package.path).stat().st_size)
    print(f"{package.path}: {size}, target {package.metadata['target']}, compiled in {seconds:.1f} s")
    return 0


def compile_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `tvm_sparse.compile` from those of the command line."""
    sparsity = args.sparsity
    if sparsity not in ("auto", "off") and not Path(sparsity).is_file():
        raise TvmSparseError(f"--sparsity must be auto, off or an existing plan file, not '{sparsity}'.")
    return {
        "target": target_from_arguments(args),
        "input_shapes": args.input_shapes,
        "model_format": args.model_format,
        "sparsity": sparsity,
        "sparsity_threshold": args.sparsity_threshold,
        "sparse_format": args.sparse_format,
        "block_shape": args.block_shape,
        "opt_level": args.opt_level,
        "disabled_passes": args.disabled_pass,
        "pass_config": dict(args.pass_config),
        "print_ir_before": args.print_ir_before,
        "print_ir_after": args.print_ir_after,
        "print_pass_times": args.print_pass_times,
        "cross_compiler": args.cross_compiler,
        "cross_compiler_options": tuple(args.cross_compiler_options),
        "dump_code": args.dump_code,
        "num_threads": args.num_threads,
    }


def _target_text(target: dict[str, Any] | None) -> str:
    return "llvm for the CPU of this machine" if target is None else json.dumps(target)


def _dump_formats(text: str) -> tuple[str, ...]:
    formats = comma_list(text)
    for name in formats:
        if name not in DUMP_FORMATS:
            raise argparse.ArgumentTypeError(
                f"unknown format '{name}': choose from {', '.join(DUMP_FORMATS)}"
            )
    return formats


def _setting(text: str) -> tuple[str, Any]:
    """``name=value``; the value is JSON where it can be read as such, else text."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f"must be of the form name=value, not '{text}'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
