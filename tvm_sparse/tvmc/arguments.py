"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import os

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.shapes import parse_shape_string

MODEL_FORMATS = ("onnx", "pytorch")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model file, ``--model-format`` and ``--input-shapes``."""
    parser.add_argument("FILE", help=texts.MODEL)
    parser.add_argument("--model-format", choices=MODEL_FORMATS, help=texts.MODEL_FORMAT)
    parser.add_argument("--input-shapes", type=parse_shape_string, metavar="SHAPES", help=texts.INPUT_SHAPES)


def check_input_file(path: str) -> str:
    """Return the path if it is a file.

    Raises
    ------
    TvmSparseError
        If there is none.
    """
    if not os.path.isfile(path):
        raise TvmSparseError(f"Input file '{path}' doesn't exist, is a broken symbolic link, or a directory.")
    return path


def comma_list(text: str) -> tuple[str, ...]:
    """Names separated by commas; empty ones are dropped."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def positive_int(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


# argparse's message: "invalid positive integer value: '0'".
positive_int.__name__ = "positive integer"
share.__name__ = "number from 0 to 1"
