"""The file that a compiled model is kept in: an uncompressed tar of ``mod.json``, ``mod.so``, ``mod.params``.

A package can also be a plain shared library with the metadata in a ``.json`` and the weights in a ``.params``
file beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

import numpy as np

from tvm_sparse import __version__
from tvm_sparse.errors import PackageError
from tvm_sparse.runtime.cache import sha256, unpacked
from tvm_sparse.runtime.files import atomic_write
from tvm_sparse.runtime.host import check_host
from tvm_sparse.runtime.module import Module, read_specs
from tvm_sparse.runtime.shared_library import runtime_version
from tvm_sparse.runtime.spec import TensorSpec
from tvm_sparse.runtime.weights import Weights, WeightsReader, describe_weights, shared_weights

FORMAT = 1
LIBRARY = "mod.so"
METADATA = "mod.json"
WEIGHTS = "mod.params"
_MAX_METADATA_BYTES = 64 << 20
_REQUIRED = ("format", "tvm_sparse", "tvm", "target", "arch", "features", "inputs", "outputs", "library")


@dataclass(frozen=True)
class Package:
    """A compiled model on disk.

    Parameters
    ----------
    path : Path
        The tar file, or the shared library with its ``.json`` beside it.
    metadata : dict
        Content of ``mod.json``: format, versions, target, CPU features, inputs, outputs, plan.
    """

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike) -> Package:
        """Read and check a package's metadata; its code is neither unpacked nor loaded.

        Parameters
        ----------
        path : str or os.PathLike
            A package.

        Raises
        ------
        PackageError
            If it is missing, not a package, unsafe (a member with an absolute path or ``..``), truncated,
            or of another format version.
        """
        path = Path(path)
        if not path.is_file():
            raise PackageError(
                f"Input file '{path}' doesn't exist, is a broken symbolic link, or a directory."
            )
        read = _read_plain_metadata if path.suffix == ".so" else _read_tar_metadata
        return cls(path, _check_metadata(read(path), path))

    @classmethod
    def write(
        cls,
        path: str | os.PathLike,
        library: str | os.PathLike,
        metadata: Mapping[str, Any],
        weights: Sequence[np.ndarray] = (),
    ) -> Package:
        """Write a package whole or not at all.

        Parameters
        ----------
        path : str or os.PathLike
            Where to; the suffix ``.so`` gives a plain shared library with a ``.json`` beside it.
        library : str or os.PathLike
            The model's shared library; it is copied.
        metadata : mapping
            Content of ``mod.json``; ``"format"``, ``"library"`` and ``"weights"`` are added.
        weights : sequence of numpy.ndarray
            Weights that the library doesn't hold. The model's function takes them as a tuple after
            its inputs.

        Returns
        -------
        Package
            The package.

        Raises
        ------
        TvmSparseError
            If it cannot be written (folder missing, no permission, full disk); nothing half-written stays.
        """
        path = Path(path)
        with open(library, "rb") as source:
            digest, size = sha256(source)
            source.seek(0)
            content = {**metadata, "format": FORMAT, "library": {"sha256": digest, "bytes": size}}
            if weights:
                digest_w, size_w = sha256(WeightsReader(weights))
                entries = describe_weights(weights)
                content["weights"] = {"sha256": digest_w, "bytes": size_w, "tensors": entries}
            text = json.dumps(content, indent=1).encode()
            if path.suffix == ".so":
                _write_plain(path, text, source, weights)
            else:
                with atomic_write(path) as file, tarfile.open(fileobj=file, mode="w:") as tar:
                    # Metadata first: reading it doesn't touch the large member.
                    _add(tar, METADATA, io.BytesIO(text), len(text))
                    _add(tar, LIBRARY, source, size)
                    if weights:
                        _add(tar, WEIGHTS, WeightsReader(weights), size_w)
        # What is returned is what a reader will see (JSON has no tuples).
        return cls(path, json.loads(text))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs."""
        return read_specs(self.metadata["inputs"])

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs."""
        return read_specs(self.metadata["outputs"])

    def load(self, num_threads: int | None = None) -> Module:
        """Load the model.

        Parameters
        ----------
        num_threads : int, optional
            Threads of parallel loops; see `Module`.

        Raises
        ------
        PackageError
            If the package was made for another CPU or by another version, or is damaged.
        """
        _check_versions(self.metadata, str(self.path))
        check_host(self.metadata["arch"], self.metadata["features"], str(self.path))
        return Module(self._library(), self.metadata, num_threads, self._weights())

    def _library(self) -> Path:
        digest = self.metadata["library"]["sha256"]
        if self.path.suffix != ".so":
            with self._member(LIBRARY) as source:
                return unpacked(digest, source, str(self.path))
        with open(self.path, "rb") as file:
            if sha256(file)[0] != digest:
                beside = self.path.with_suffix(".json")
                raise PackageError(f"'{self.path}' doesn't match its metadata in '{beside}'.")
        return self.path

    def _weights(self) -> Weights | None:
        described = self.metadata.get("weights")
        if described is None:
            return None

        def read() -> Weights:
            with self._weights_file() as source:
                return Weights(
                    source, described["bytes"], described["sha256"], described["tensors"], str(self.path)
                )

        return shared_weights(described["sha256"], read)

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[tarfile.ExFileObject]:
        with _open_tar(self.path) as tar:
            source = tar.extractfile(_members(tar, self.path)[name])
            assert isinstance(source, tarfile.ExFileObject)  # _members lets only regular files pass
            yield source

    @contextlib.contextmanager
    def _weights_file(self) -> Iterator[BinaryIO]:
        """A file that stands at the start of the weights, read without tarfile's extra copies."""
        if self.path.suffix == ".so":
            path, offset = self.path.with_suffix(Path(WEIGHTS).suffix), 0
        else:
            with _open_tar(self.path) as tar:
                members = _members(tar, self.path)
                if WEIGHTS not in members:
                    raise PackageError(f"'{self.path}' is damaged: it lacks '{WEIGHTS}'.")
                path, offset = self.path, members[WEIGHTS].offset_data
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(offset)
                yield file
        except OSError as error:
            raise PackageError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def load(path: str | os.PathLike, *, num_threads: int | None = None) -> Module:
    """Load a package; see `Package.open` and `Package.load`."""
    return Package.open(path).load(num_threads)


def _write_plain(path: Path, text: bytes, library: IO[bytes], weights: Sequence[np.ndarray]) -> None:
    with contextlib.ExitStack() as stack:
        # Files are replaced in the reverse order: the library last.
        file = stack.enter_context(atomic_write(path))
        stack.enter_context(atomic_write(path.with_suffix(".json"))).write(text)
        shutil.copyfileobj(library, file)
        if weights:
            beside = stack.enter_context(atomic_write(path.with_suffix(".params")))
            shutil.copyfileobj(WeightsReader(weights), beside)


def _add(tar: tarfile.TarFile, name: str, source: Any, size: int) -> None:
    # No time or owner: the same model gives the same bytes.
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, source)


@contextlib.contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise PackageError(f"'{path}' is not a package, or is truncated: {error}.") from error
    except OSError as error:
        raise PackageError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def _members(tar: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    """Members by name, after a check of all of them."""
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar.getmembers():
        inside = PurePosixPath(member.name)
        if inside.is_absolute() or ".." in inside.parts:
            raise PackageError(f"'{path}' is refused: its member '{member.name}' points outside of it.")
        if not member.isreg():
            raise PackageError(f"'{path}' is refused: its member '{member.name}' is not a regular file.")
        if member.name in members:
            raise PackageError(f"'{path}' is refused: it holds two members '{member.name}'.")
        members[member.name] = member
    for name in (METADATA, LIBRARY):
        if name not in members:
            raise PackageError(f"'{path}' is not a package of tvm-sparse: it lacks '{name}'.")
    return members


def _read_tar_metadata(path: Path) -> bytes:
    with _open_tar(path) as tar:
        member = _members(tar, path)[METADATA]
        if member.size > _MAX_METADATA_BYTES:
            raise PackageError(f"'{path}' is refused: its {METADATA} is {member.size} bytes long.")
        source = tar.extractfile(member)
        assert source is not None  # _members lets only regular files pass
        return source.read()


def _read_plain_metadata(path: Path) -> bytes:
    beside = path.with_suffix(".json")
    try:
        return beside.read_bytes()
    except OSError as error:
        raise PackageError(
            f"'{path}' lacks its metadata: '{beside}' cannot be read ({error.strerror or error})."
        ) from error


def _check_metadata(text: bytes, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise PackageError(f"'{path}' is damaged: its metadata is not JSON ({error}).") from error
    if not isinstance(metadata, dict) or "format" not in metadata:
        raise PackageError(f"'{path}' is not a package of tvm-sparse: its metadata names no format.")
    if metadata["format"] != FORMAT:
        raise PackageError(
            f"'{path}' has package format {metadata['format']}, this tvm-sparse reads format {FORMAT}. "
            f"Compile the model again, or install the version that made it."
        )
    missing = [key for key in _REQUIRED if key not in metadata]
    if missing:
        raise PackageError(f"'{path}' is damaged: its metadata lacks {', '.join(missing)}.")
    try:
        read_specs(metadata["inputs"])
        read_specs(metadata["outputs"])
        str(metadata["library"]["sha256"])
        if metadata.get("weights") is not None:
            _ = [metadata["weights"][key] for key in ("sha256", "bytes", "tensors")]
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"'{path}' is damaged: its metadata is malformed ({error!r}).") from error
    return metadata


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _check_versions(metadata: Mapping[str, Any], where: str) -> None:
    """Code and runtime exchange data whose layout changes between minor versions."""
    installed = {"tvm_sparse": __version__, "tvm": runtime_version()}
    for name, version in installed.items():
        made_by = str(metadata[name])
        if version is not None and _minor(made_by) != _minor(version):
            raise PackageError(
                f"'{where}' was made with {name} {made_by}, {version} is installed. "
                f"Compile the model again, or install that version."
            )
