"""Tables and progress."""

import io

import pytest

from tvm_sparse.tvmc.progress import Progress
from tvm_sparse.tvmc.tables import format_arguments, format_bytes, format_table, layer_table, markdown_table


def test_table_aligns_columns():
    assert format_table(("name", "n"), [("a", "10"), ("long name", "2")], right=(1,)).splitlines() == [
        "name        n",
        "---------  --",
        "a          10",
        "long name   2",
    ]


def test_markdown():
    assert markdown_table(("a", "b"), [("1", "2")], right=(1,)).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| 1 | 2 |",
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e12, "3000.0 GB")]
)
def test_bytes(count, text):
    assert format_bytes(count) == text


def test_model_without_layers():
    assert layer_table([]) == "No layer of this model has weights that the planner handles."


def test_arguments_of_any_kind():
    lines = format_arguments("x", {"shapes": {"a": (1, 2)}, "names": ("p", "q"), "n": 3}).splitlines()
    assert lines == ["tvmc x", "  shapes  a:[1,2]", "  names   [p,q]", "  n       3"]


def test_progress_off_a_terminal_is_a_line_a_phase():
    stream = io.StringIO()
    with Progress(stream) as progress:
        for phase in ("import", "build", "build", "write"):
            progress(phase)
    lines = stream.getvalue().splitlines()
    assert [line.split("] ")[1] for line in lines] == ["import", "build", "write"]


def test_progress_on_a_terminal_leaves_nothing(tmp_path):
    """On a terminal the line is redrawn, and erased at the end."""
    import os
    import pty
    import subprocess
    import sys

    script = (
        "import time\nfrom tvm_sparse.tvmc.progress import Progress\n"
        "with Progress() as progress:\n    progress('planting'); time.sleep(0.3)\nprint('done')"
    )
    controller, terminal = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            stderr=terminal,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        shown = os.read(controller, 1 << 16).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.stdout == "done\n" and "planting" in shown
    # The last thing is the erasure of the line.
    assert shown.rstrip().endswith("\x1b[2K")
