"""The list of subcommands."""

from __future__ import annotations

import argparse
from collections.abc import Callable

ParserFactory = Callable[[argparse._SubParsersAction], None]

REGISTERED: list[ParserFactory] = []


def register_parser(make_subparser: ParserFactory) -> ParserFactory:
    """Decorator for a function that adds a subcommand.

    The function gets argparse's subparsers and sets the command's function by ``set_defaults(func=...)``;
    that takes the parsed arguments and returns the exit code.
    """
    REGISTERED.append(make_subparser)
    return make_subparser


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """Let every registered function add its subcommand."""
    for make_subparser in REGISTERED:
        make_subparser(subparsers)
