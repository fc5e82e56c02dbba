"""Loads `tvm_ffi` without torch.

`tvm_ffi` imports torch wherever it is installed, for the sake of a clash of symbols on Windows: seconds and hundreds of
megabytes that neither a compilation from ONNX nor a running model needs. A torch that is loaded already stays, and can
be loaded later.
"""

from __future__ import annotations

import sys
from typing import Any

_absent = "torch" not in sys.modules and "tvm_ffi" not in sys.modules and sys.platform != "win32"
if _absent:
    # What Python remembers of a module that does not exist.
    hidden: dict[str, Any] = sys.modules
    hidden["torch"] = None
try:
    import tvm_ffi  # noqa: F401
finally:
    if _absent:
        del sys.modules["torch"]
