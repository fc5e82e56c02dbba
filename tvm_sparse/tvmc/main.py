"""The command ``tvmc``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from tvm_sparse import __version__
from tvm_sparse.errors import MissingPackageError, TvmSparseError
from tvm_sparse.tvmc import cmd_analyze, cmd_benchmark, cmd_compile, cmd_run, texts  # noqa: F401 (they register)
from tvm_sparse.tvmc.registry import add_subcommands, register_parser

__all__ = ["build_parser", "main", "register_parser"]

# Exit codes besides 0 (done) and argparse's 2 (usage).
NO_COMMAND, FAILURE, MISSING_PACKAGE, INTERRUPTED = 1, 4, 5, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser with every registered subcommand."""
    parser = argparse.ArgumentParser("tvmc", description=texts.DESCRIPTION, epilog=texts.EPILOG)
    parser.add_argument("-v", "--verbose", action="count", default=0, help=texts.VERBOSE)
    parser.add_argument("--version", action="store_true", help=texts.VERSION)
    add_subcommands(parser.add_subparsers(title="commands", metavar="COMMAND"))
    return parser


def run_command(argv: Sequence[str]) -> int:
    """Run one command line.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name.

    Returns
    -------
    int
        Exit code.
    """
    parser = build_parser()
    args = parser.parse_args(list(argv))
    if args.version:
        print(__version__)
        return 0
    if not hasattr(args, "func"):
        parser.print_help(sys.stderr)
        return NO_COMMAND
    logging.basicConfig(format="%(name)s: %(message)s")
    logging.getLogger("tvm_sparse").setLevel(max(logging.DEBUG, logging.WARNING - 10 * args.verbose))
    try:
        return args.func(args)
    except MissingPackageError as error:
        return _failed(args, str(error), error, MISSING_PACKAGE)
    except TvmSparseError as error:
        return _failed(args, f"Error: {error}", error, FAILURE)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def _failed(args: argparse.Namespace, message: str, error: Exception, code: int) -> int:
    if args.verbose >= 2:
        import traceback

        traceback.print_exception(error)
    print(message, file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the ``tvmc`` command."""
    sys.exit(run_command(sys.argv[1:]))
