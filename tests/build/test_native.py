"""The launcher of parallel loops and its memory: every iteration once, no block twice, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tvm_ffi.libinfo

from tvm_sparse.build import native
from tvm_sparse.build.native import native_objects
from tvm_sparse.errors import TvmSparseError

LAUNCH = next(source for source in native.SOURCES if source.name == "launch.c")
places_threads = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux places threads")
# Without one nothing can be linked.
COMPILER = shutil.which("gcc") or shutil.which("clang") or "cc"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path / "cache"))
    native._provide.cache_clear()
    return tmp_path / "cache" / "kernels"


def build(path: Path, *options: str, name: str = "launch_stress.c") -> Path | None:
    """A program of this folder; None if the compiler lacks an option."""
    includes = [f"-I{folder}" for folder in (*tvm_ffi.libinfo.include_paths(), LAUNCH.parent)]
    source = Path(__file__).with_name(name)
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-warning-option"]
    command = [COMPILER, "-std=gnu11", "-O1", "-g", "-pthread", *warnings, *includes, *options, source, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and not any("sanitize" in option for option in options):
        pytest.fail(done.stderr)
    return path if done.returncode == 0 else None


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), ("fork",)),
        (("-U__linux__",), ("fork",)),  # condition variables instead of futexes
        (("-fsanitize=thread",), ()),
        (("-fsanitize=undefined", "-fno-sanitize-recover"), ("fork",)),
    ],
)
def test_every_iteration_runs_once(tmp_path, options, arguments):
    program = build(tmp_path / "stress", *options)
    if program is None:
        pytest.skip(f"the compiler has no {options}")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the sanitizer does not run with this kernel's layout of memory")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("sanitizer", ["", "address", "thread", "undefined"])
def test_blocks_are_nobody_elses(tmp_path, sanitizer):
    options = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover"] if sanitizer else []
    program = build(tmp_path / "stress", *options, name="workspace_stress.c")
    if program is None:
        pytest.skip(f"the compiler has no {options}")
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the sanitizer does not run with this kernel's layout of memory")
    assert done.returncode == 0, done.stdout + done.stderr


@places_threads
@pytest.mark.parametrize("cores", ["one", "all"])
def test_workers_are_bound_where_asked(tmp_path, cores):
    program = build(tmp_path / "stress")
    assert program is not None
    usable = os.sched_getaffinity(0)

    def limit() -> None:
        os.sched_setaffinity(0, {min(usable)} if cores == "one" else usable)

    def check(asked: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TVM_BIND_THREADS": asked}
        command = [program, "bind"]
        return subprocess.run(command, env=environment, preexec_fn=limit, capture_output=True, text=True, timeout=60)

    done = check("1")
    assert done.returncode == 0, done.stdout + done.stderr
    # Unless it is asked for, nobody is bound.
    assert ("not bound" in check("0").stdout) == (cores == "all" and len(usable) > 1)


@places_threads
def test_workers_that_do_not_get_on_are_moved(tmp_path):
    program = build(tmp_path / "stress")
    assert program is not None
    environment = {name: value for name, value in os.environ.items() if name != "TVM_BIND_THREADS"}
    done = subprocess.run([program, "move"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compiled_once(cache, monkeypatch):
    paths = native_objects(COMPILER)
    assert set(paths) == set(cache.glob("*.o")) and len(set(paths)) == len(native.SOURCES)
    native._provide.cache_clear()
    monkeypatch.setattr(native, "_compile", None)
    assert native_objects(COMPILER) == paths


def test_other_options_are_other_objects(cache):
    assert not set(native_objects(COMPILER)) & set(native_objects(COMPILER, ("-g",)))
    assert len(list(cache.glob("*.o"))) == 2 * len(native.SOURCES)


def test_a_changed_header_is_another_object(tmp_path, monkeypatch):
    before = native_objects(COMPILER)
    header = tmp_path / "changed.h"
    header.write_text("// What sources include.\n")
    monkeypatch.setattr(native, "_HEADERS", (*native._HEADERS, header))
    native._provide.cache_clear()
    assert not set(before) & set(native_objects(COMPILER))


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="no cross-compiler is installed")
def test_cross_compiler():
    for path in native_objects("aarch64-linux-gnu-gcc"):
        machine = path.read_bytes()[18:20]
        assert int.from_bytes(machine, "little") == 183


def test_errors_say_what_the_compiler_said():
    with pytest.raises(TvmSparseError, match="(?s)cannot compile launch.*no-such-option"):
        native_objects(COMPILER, ("--no-such-option",))


def test_no_thread_outlives_the_library(tmp_path):
    """Unloading waits for the workers, whose code goes away."""
    source = tmp_path / "library.c"
    source.write_text(
        f'#include "{LAUNCH}"\n'
        "static int Nothing(int task, ParallelGroupEnv* env, void* closure) { return task * !env * !closure * 0; }\n"
        "int Loop(void) { requested_threads = 4; return Launch(Nothing, NULL, 8); }\n"
        "void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) { (void)kind; (void)message; }\n"
    )
    library = tmp_path / "library.so"
    includes = [f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths()]
    subprocess.run([COMPILER, "-shared", "-fPIC", "-pthread", *includes, source, "-o", library], check=True)
    script = f"""
import _ctypes, ctypes, os, time
def tasks(): return len(os.listdir("/proc/self/task"))
before = tasks()
for _ in range(3):
    library = ctypes.CDLL({str(library)!r})
    assert library.Loop() == 0 and tasks() == before + 3
    _ctypes.dlclose(library._handle)
    assert tasks() == before and {str(library)!r} not in open("/proc/self/maps").read()
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ), timeout=60)
