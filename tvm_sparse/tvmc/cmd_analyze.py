"""``tvmc analyze``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import tvm_sparse
from tvm_sparse.runtime.files import writable_target, write_text
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.arguments import add_model_arguments, check_input_file, share
from tvm_sparse.tvmc.progress import Progress
from tvm_sparse.tvmc.registry import register_parser
from tvm_sparse.tvmc.tables import format_bytes, format_table
from tvm_sparse.tvmc.target import add_target_arguments, target_from_arguments


@register_parser
def add_analyze_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("analyze", help=texts.ANALYZE, description=texts.ANALYZE)
    parser.set_defaults(func=analyze_command)
    add_model_arguments(parser)
    parser.add_argument(
        "--what-if", type=share, nargs="+", default=[0.5, 0.8, 0.9, 0.95], metavar="SHARE", help=texts.WHAT_IF
    )
    parser.add_argument("-x", "--export", metavar="PATH", help=texts.EXPORT)
    add_target_arguments(parser)


def analyze_command(args: argparse.Namespace) -> int:
    """Print what the zeros of each layer are worth."""
    check_input_file(args.FILE)
    if args.export:
        writable_target(args.export)
    target = target_from_arguments(args)
    with Progress() as progress:
        progress("analyze")
        layers = tvm_sparse.analyze(
            args.FILE,
            target,
            input_shapes=args.input_shapes,
            model_format=args.model_format,
            what_if=tuple(args.what_if),
        )
    if args.export:
        write_text(args.export, json.dumps([dataclasses.asdict(layer) for layer in layers], indent=1) + "\n")
    print(analysis_table(layers))
    return 0


def analysis_table(layers: Sequence[Any]) -> str:
    """A table of layers with their zeros, sizes by format, and estimated speed-ups.

    Parameters
    ----------
    layers : sequence of LayerAnalysis
        Result of `tvm_sparse.analyze`.
    """
    if not layers:
        return "This model has no convolution or linear layer with constant weights."
    formats = list(dict.fromkeys(name for layer in layers for name in layer.bytes_by_format))
    cases = list(dict.fromkeys(name for layer in layers for name in layer.speedup))
    header = ["layer", "kind", "shape", "zeros", "structure"]
    header += [f"{name} size" for name in formats] + [f"speed-up {name}" for name in cases]
    rows = []
    for layer in layers:
        row = [layer.name, layer.kind, layer.shape, f"{layer.zeros:.1%}", layer.structure]
        row += [_cell(layer.bytes_by_format, name, format_bytes) for name in formats]
        row += [_cell(layer.speedup, name, "{:.2f}x".format) for name in cases]
        rows.append(row)
    table = format_table(header, rows, right=(3, *range(5, len(header))))
    total = sum(layer.bytes_dense for layer in layers)
    zeros = sum(layer.zeros * layer.bytes_dense for layer in layers) / total if total else 0.0
    return f"{table}\n{len(layers)} layers, {format_bytes(total)} of weights, {zeros:.1%} zeros"


def _cell(values: Any, name: str, form: Any) -> str:
    return form(values[name]) if name in values else "-"
