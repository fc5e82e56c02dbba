"""``--input-shapes``."""

from __future__ import annotations

import argparse
import re

_FORM = 'form "input_name:[dim1,dim2,...,dimn] input_name2:[dim1,dim2]"'
# Names may hold colons ("input:0"), so the name ends at the last colon before a bracket.
_ENTRY = re.compile(r"\s*([^\s\[\]]+?)\s*:\s*\[([^\[\]]*)\]\s*,?")


def parse_shape_string(text: str) -> dict[str, tuple[int, ...]]:
    """Parse shapes of inputs.

    Parameters
    ----------
    text : str
        Such as ``"x:[1,3,224,224] input:0:[1, 2]"``.

    Returns
    -------
    dict of str to tuple of int
        Shape by name.

    Raises
    ------
    argparse.ArgumentTypeError
        If the text has another form, a name comes twice, or an extent is not positive.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    position = 0
    while position < len(text.rstrip()):
        entry = _ENTRY.match(text, position)
        if entry is None:
            raise argparse.ArgumentTypeError(f"--input-shapes argument must be of the {_FORM}, not '{text}'")
        name, extents = entry.groups()
        if name in shapes:
            raise argparse.ArgumentTypeError(f"--input-shapes names '{name}' twice")
        shapes[name] = _extents(name, extents)
        position = entry.end()
    if not shapes:
        raise argparse.ArgumentTypeError(f"--input-shapes argument must be of the {_FORM}, not '{text}'")
    return shapes


def _extents(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"--input-shapes needs positive integers for '{name}', not [{text}]: shapes are static"
        )
    return tuple(int(part) for part in parts)
