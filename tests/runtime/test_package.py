"""Writing, reading and refusing packages."""

import errno
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest

from tvm_sparse.errors import PackageError, TvmSparseError
from tvm_sparse.runtime import Package, cache, host
from tvm_sparse.runtime import shared_library as library_module


def make_tar(path, members, mode="w:"):
    """Write a tar of (name, bytes or TarInfo) pairs, as a careless or hostile program would."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture()
def members(package):
    """Members of the valid package."""
    with tarfile.open(package.path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def with_metadata(members, **changes):
    metadata = {**json.loads(members["mod.json"]), **changes}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return [("mod.json", json.dumps(metadata).encode()), ("mod.so", members["mod.so"])]


def test_round_trip(package, library, metadata):
    opened = Package.open(package.path)
    assert opened == package
    assert {key: opened.metadata[key] for key in metadata} == metadata
    assert opened.metadata["format"] == 1
    assert opened.metadata["library"]["bytes"] == library.stat().st_size
    assert [spec.name for spec in opened.inputs] == ["x", "tokens"]


def test_same_model_gives_same_bytes(package, library, metadata, tmp_path):
    again = Package.write(tmp_path / "again.tar", library, metadata)
    assert again.path.read_bytes() == package.path.read_bytes()


def test_written_file_follows_the_umask(library, metadata, tmp_path):
    before = os.umask(0o027)
    try:
        package = Package.write(tmp_path / "module.tar", library, metadata)
    finally:
        os.umask(before)
    assert package.path.stat().st_mode & 0o777 == 0o640


def test_missing_file(tmp_path):
    with pytest.raises(PackageError, match="doesn't exist, is a broken symbolic link, or a directory"):
        Package.open(tmp_path / "none.tar")
    with pytest.raises(PackageError, match="or a directory"):
        Package.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x7fELF" + bytes(2000), os.urandom(4096)])
def test_not_a_tar(tmp_path, content):
    path = tmp_path / "module.tar"
    path.write_bytes(content)
    with pytest.raises(PackageError, match="is not a package"):
        Package.open(path)


def test_compressed_tar(tmp_path, members):
    path = make_tar(tmp_path / "module.tar.gz", members.items(), mode="w:gz")
    with pytest.raises(PackageError, match="is not a package"):
        Package.open(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated(package, inputs, share):
    size = package.metadata["library"]["bytes"]
    content = package.path.read_bytes()
    package.path.write_bytes(content[: int(share * size)])
    with pytest.raises(PackageError, match="truncated|damaged|not a package"):
        Package.open(package.path).load()


@pytest.mark.parametrize("missing", ["mod.so", "mod.json"])
def test_missing_member(tmp_path, members, missing):
    del members[missing]
    with pytest.raises(PackageError, match=f"lacks '{missing}'"):
        Package.open(make_tar(tmp_path / "m.tar", members.items()))


@pytest.mark.parametrize("name", ["/etc/passwd", "../evil", "a/../../evil", "/../x"])
def test_unsafe_names_write_nothing(tmp_path, members, name, private_cache):
    path = make_tar(tmp_path / "m.tar", [*members.items(), (name, b"x")])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PackageError, match="points outside"):
        Package.open(path)
    assert sorted(tmp_path.rglob("*")) == before and not private_cache.exists()


def test_links_and_doubles_are_refused(tmp_path, members):
    link = tarfile.TarInfo("mod.so")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = make_tar(tmp_path / "link.tar", [("mod.json", members["mod.json"]), ("mod.so", link)])
    with pytest.raises(PackageError, match="not a regular file"):
        Package.open(path)
    path = make_tar(tmp_path / "two.tar", [*members.items(), ("mod.so", b"other")])
    with pytest.raises(PackageError, match="two members 'mod.so'"):
        Package.open(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has package format 2, this tvm-sparse reads format 1"),
        ({"format": None}, "names no format"),
        ({"inputs": None, "arch": None}, "lacks arch, inputs"),
        ({"inputs": [{"name": "x"}]}, "malformed"),
        ({"outputs": 3}, "malformed"),
        ({"library": {}}, "malformed"),
    ],
)
def test_bad_metadata(tmp_path, members, changes, message):
    with pytest.raises(PackageError, match=message):
        Package.open(make_tar(tmp_path / "m.tar", with_metadata(members, **changes)))


def test_metadata_not_json(tmp_path, members):
    members["mod.json"] = b"{"
    with pytest.raises(PackageError, match="not JSON"):
        Package.open(make_tar(tmp_path / "m.tar", members.items()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tvm_sparse": "9.3.0"}, "was made with tvm_sparse 9.3.0, .* is installed"),
        ({"tvm": "0.26.1"}, "was made with tvm 0.26.1, 0.27.* is installed"),
        ({"arch": "riscv64"}, "was compiled for riscv64, this machine is"),
        ({"features": ["avx9000", "fancy"]}, "lacks: avx9000, fancy"),
    ],
)
def test_other_machine_or_version(tmp_path, members, changes, message):
    package = Package.open(make_tar(tmp_path / "m.tar", with_metadata(members, **changes)))
    with pytest.raises(PackageError, match=message):
        package.load()


def test_other_patch_version_loads(tmp_path, members, inputs):
    path = make_tar(tmp_path / "m.tar", with_metadata(members, tvm="0.27.9"))
    assert set(Package.open(path).load().run(inputs)) == {"scores", "next", "weights", "same"}


def test_features_of_aarch64_are_read(monkeypatch, tmp_path):
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd40\n"
    monkeypatch.setattr(host.Path, "read_text", lambda self: cpuinfo)
    host.cpu_features.cache_clear()
    try:
        assert host.cpu_features() == {"fp", "asimd", "sve"}
        monkeypatch.setattr(host.platform, "machine", lambda: "arm64")
        host.check_host("aarch64", ["asimd"], "m.tar")
        with pytest.raises(PackageError, match="lacks: sve2"):
            host.check_host("aarch64", ["asimd", "sve2"], "m.tar")
    finally:
        host.cpu_features.cache_clear()


def test_damaged_library_is_noticed(tmp_path, members):
    damaged = bytearray(members["mod.so"])
    damaged[len(damaged) // 2] ^= 1
    members["mod.so"] = bytes(damaged)
    package = Package.open(make_tar(tmp_path / "m.tar", members.items()))
    with pytest.raises(PackageError, match="damaged"):
        package.load()


def test_cache_is_repaired(package, inputs, private_cache):
    package.load()
    (cached,) = private_cache.glob("*")
    assert cached.stem == package.metadata["library"]["sha256"]
    for damage in (b"", b"\x7fELF", cached.read_bytes()[:-1]):
        # As a crashed or full machine would leave it: another file, since the loaded one is mapped.
        cached.unlink()
        cached.write_bytes(damage)
        assert package.load().run(inputs)
    assert [path.name for path in private_cache.glob("*")] == [cached.name]


def test_unwritable_cache_is_no_obstacle(package, inputs, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file where the cache folder should be")
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path / "occupied"))
    assert package.load().run(inputs)


def test_least_recently_used_libraries_are_dropped(package, private_cache, monkeypatch):
    private_cache.mkdir(parents=True)
    private_cache.chmod(0o700)
    hour = cache._MIN_AGE_SECONDS
    for name, hours in (("oldest", 3), ("older", 2), ("recent", 0)):
        path = private_cache / f"{name}.so"
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - hours * hour - 60,) * 2 if hours else None)
    (private_cache / "other").write_bytes(bytes(5000))
    monkeypatch.setattr(cache, "_MAX_BYTES", package.metadata["library"]["bytes"] + 2500)
    package.load()
    left = {path.stem for path in private_cache.glob("*.so")}
    assert left == {package.metadata["library"]["sha256"], "older", "recent"}


def test_cache_that_others_can_write_is_not_used(package, inputs, private_cache):
    private_cache.mkdir(parents=True)
    private_cache.chmod(0o777)
    assert package.load().run(inputs)
    assert not list(private_cache.iterdir())


def test_plain_library_needs_its_metadata(plain):
    plain.path.with_suffix(".json").unlink()
    with pytest.raises(PackageError, match="lacks its metadata"):
        Package.open(plain.path)


def test_plain_library_of_another_model(plain):
    plain.path.write_bytes(plain.path.read_bytes() + b"x")
    with pytest.raises(PackageError, match="doesn't match its metadata"):
        Package.open(plain.path).load()


def test_library_without_a_model(metadata, tmp_path):
    source = tmp_path / "empty.c"
    source.write_text("int nothing(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "empty.so", source], check=True)
    package = Package.write(tmp_path / "module.tar", tmp_path / "empty.so", metadata)
    with pytest.raises(PackageError, match="cannot be loaded|holds no compiled model"):
        package.load()


def test_unwritable_outputs(library, metadata, tmp_path):
    for path, message in [
        (tmp_path / "none" / "m.tar", "folder .* doesn't exist"),
        (tmp_path, "is a directory"),
        ("/dev/null", "not a regular file"),
    ]:
        with pytest.raises(TvmSparseError, match=message):
            Package.write(path, library, metadata)
    assert not os.path.isfile("/dev/null")


def test_folder_without_permission(library, metadata, tmp_path, monkeypatch):
    if os.geteuid() == 0:
        # Root may write everywhere: the system's answer to others stands in.
        def refuse(**_options):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(TvmSparseError, match="Permission denied"):
        Package.write(folder / "m.tar", library, metadata)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["module.tar", "module.so"])
def test_full_disk_leaves_nothing(library, metadata, tmp_path, name):
    """A limit on the size of files fails a write in the middle, as a full disk does."""
    target = tmp_path / "out" / name
    target.parent.mkdir()
    target.write_bytes(b"what was there before")
    script = "\n".join(
        [
            "import json, resource, sys",
            "from tvm_sparse.errors import TvmSparseError",
            "from tvm_sparse.runtime import Package",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))",
            "try:",
            "    Package.write(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))",
            "except TvmSparseError as error:",
            "    sys.exit(str(error))",
        ]
    )
    assert library.stat().st_size > 8192
    done = subprocess.run(
        [sys.executable, "-c", script, target, library, json.dumps(metadata)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Cannot write" in done.stderr and "File too large" in done.stderr
    assert [path.name for path in target.parent.iterdir()] == [name]
    assert target.read_bytes() == b"what was there before"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 8192


def test_missing_runtime_library(monkeypatch, tmp_path):
    monkeypatch.delenv("TVM_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(library_module, "_tvm_folder", lambda: tmp_path)
    with pytest.raises(TvmSparseError, match='Package "apache-tvm" is not installed. Hint: pip install'):
        library_module.find_runtime()
    (tmp_path / "libtvm_runtime.so").touch()
    monkeypatch.setenv("TVM_LIBRARY_PATH", str(tmp_path))
    assert library_module.find_runtime() == tmp_path / "libtvm_runtime.so"
