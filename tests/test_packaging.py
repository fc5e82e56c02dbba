"""What an installation holds: every module under its name, data, the command."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tvm_sparse

ROOT = Path(__file__).parents[1]
# Folder of the sources by package, for those that don't lie where their name says.
MAPPED = {"tvm_sparse.schedules": "schedules", "tvm_sparse.tuning_logs": "tuning_logs"}


def sources() -> set[str]:
    """Files that an installation must hold, with their paths in it."""
    found = set()
    for package, folder in {"tvm_sparse": "tvm_sparse", **MAPPED}.items():
        place = Path(*package.split("."))
        for pattern in ("*.py", "*.c", "*.h"):
            for path in (ROOT / folder).rglob(pattern):
                found.add(str(place / path.relative_to(ROOT / folder)))
    for pattern in ("*.json", "*.md"):
        found |= {f"tvm_sparse/tuning_logs/{path.name}" for path in (ROOT / "tuning_logs").glob(pattern)}
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The sources, so that building leaves nothing among them."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("tvm_sparse", "schedules", "tuning_logs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    # A database as tuning writes it.
    (folder / "tuning_logs" / "database_workload.json").write_text("[]")
    return folder


@pytest.fixture(scope="module")
def built(copy) -> Path:
    """The tree that a wheel is made of; unlike the wheel it needs no more than setuptools."""
    pytest.importorskip("setuptools")
    script = "import setuptools; setuptools.setup()"
    command = [sys.executable, "-c", script, "-q", "build", "--build-lib", "lib", "egg_info", "--egg-base", "lib"]
    (copy / "lib").mkdir()
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return copy / "lib"


def test_every_module_is_installed(built):
    kinds = (".py", ".c", ".h", ".md", ".json")
    installed = {str(path.relative_to(built)) for path in built.rglob("*") if path.suffix in kinds}
    assert installed == sources() | {"tvm_sparse/tuning_logs/database_workload.json"}
    assert {"tvm_sparse/schedules/cpu/isa.py", "tvm_sparse/runtime/__main__.py"} <= installed


def test_command(built):
    parser = configparser.ConfigParser()
    parser.read(next(built.glob("*.egg-info")) / "entry_points.txt")
    assert dict(parser["console_scripts"]) == {"tvmc": "tvm_sparse.tvmc.main:main"}


def test_installed_tree_imports(built, tmp_path):
    """From elsewhere, without the sources: ``tvm_sparse.schedules`` is a part of the package there."""
    script = (
        "import tvm_sparse, tvm_sparse.tvmc.main, tvm_sparse.schedules.cpu.sparse_columns as kernels\n"
        "print(tvm_sparse.__file__, kernels.__file__, tvm_sparse.__version__)"
    )
    # -S: no site-packages with the editable installation's finder; TVM's are added by hand.
    paths = os.pathsep.join([str(built), *(path for path in sys.path if "site-packages" in path)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    package, kernels, version = done.stdout.split()
    assert Path(package) == built / "tvm_sparse" / "__init__.py" and version == tvm_sparse.__version__
    assert Path(kernels) == built / "tvm_sparse" / "schedules" / "cpu" / "sparse_columns.py"


def test_version_is_that_of_the_project(built):
    (folder,) = built.glob("*.egg-info")
    assert f"\nVersion: {tvm_sparse.__version__}\n" in (folder / "PKG-INFO").read_text()


@pytest.mark.slow
def test_wheel(copy, tmp_path):
    """A whole wheel, built as pip does on another machine: it fetches setuptools."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", "-w", tmp_path, copy]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        assert b"tvmc = tvm_sparse.tvmc.main:main" in archive.read(entry_points)
    assert sources() <= names
    assert all(name.startswith("tvm_sparse/") or ".dist-info/" in name for name in names)
