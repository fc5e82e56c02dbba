"""Runs a package: ``python -m tvm_sparse.runtime PACKAGE [-i in.npz] [-o out.npz] [--repeat N]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tvm_sparse.errors import MissingPackageError, TvmSparseError
from tvm_sparse.runtime.arrays import fill_inputs
from tvm_sparse.runtime.npz import read_inputs, write_outputs
from tvm_sparse.runtime.package import load


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the runtime; returns the exit code (0, 2 usage, 4 failure, 5 missing package)."""
    parser = argparse.ArgumentParser("python -m tvm_sparse.runtime", description="Run a compiled model.")
    parser.add_argument("package", help="package made by tvmc compile")
    parser.add_argument("-i", "--inputs", help=".npz file with one array per input; default: random values")
    parser.add_argument("-o", "--outputs", help=".npz file to write: output_0, output_1, ...")
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="time N runs and print a summary")
    parser.add_argument("--num-threads", type=int, help="threads of parallel loops")
    args = parser.parse_args(argv)
    try:
        module = load(args.package, num_threads=args.num_threads)
        inputs = read_inputs(args.inputs) if args.inputs else fill_inputs(module.inputs)
        outputs = module.run(inputs)
        for name, array in outputs.items():
            print(f"{name}: {array.dtype}{list(array.shape)}")
        if args.outputs:
            write_outputs(args.outputs, outputs)
        if args.repeat:
            print(module.benchmark(inputs, number=1, repeat=args.repeat))
    except MissingPackageError as error:
        print(error, file=sys.stderr)
        return 5
    except TvmSparseError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
