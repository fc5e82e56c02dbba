"""Thread counts: where they come from and what they do to the process."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tvm_sparse.errors import InputError
from tvm_sparse.runtime import Package, host, threads
from tvm_sparse.runtime.shared_library import threads_setter


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_priorities(monkeypatch):
    assert threads.resolve(None, None) == host.default_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert threads.resolve(None, None) == 5
    monkeypatch.setenv("TVM_NUM_THREADS", "6")
    assert threads.resolve(None, None) == 6
    assert threads.resolve(None, 7) == 7
    assert threads.resolve(8, 7) == 8


@pytest.mark.parametrize("count", [0, -1, "many", 1.5])
def test_nonsense_is_refused(package, count):
    with pytest.raises(InputError, match="num_threads must be a positive integer"):
        package.load(num_threads=count)


def test_nonsense_in_environment(monkeypatch):
    monkeypatch.setenv("TVM_NUM_THREADS", "0")
    with pytest.raises(InputError, match="TVM_NUM_THREADS must be a positive integer"):
        threads.resolve(None)


def test_default_is_the_cores_allowed():
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "from tvm_sparse.runtime.host import default_num_threads; print(default_num_threads())"
    assert int(subprocess.check_output([sys.executable, "-c", script])) == 1
    assert 1 <= host.default_num_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_quota_of_a_container(tmp_path, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host._cpu_quota(tmp_path) == quota


def test_quota_and_hyper_threads_bound_the_default(monkeypatch):
    monkeypatch.setattr(host, "_physical_cores", lambda cpus: 8)
    for quota, threads_expected in [(None, 8), (2.5, 3), (0.2, 1), (64.0, 8)]:
        monkeypatch.setattr(host, "_cpu_quota", lambda quota=quota: quota)
        assert host.default_num_threads.__wrapped__() == threads_expected


def test_package_says_how_many(library, metadata, tmp_path):
    package = Package.write(tmp_path / "m.tar", library, {**metadata, "num_threads": 3})
    assert package.load().num_threads == 3
    assert package.load(num_threads=1).num_threads == 1


def test_results_do_not_depend_on_the_count(package, inputs, check):
    for count in (1, 2, 1, 2):
        check(package.load(num_threads=count).run(inputs), inputs)


PROCESS = """
import os, sys, threading, time
from tvm_sparse.runtime import load
from tvm_sparse.runtime.arrays import fill_inputs
def tasks():
    return len(os.listdir("/proc/self/task"))
def gone(count):
    # A thread that was joined takes a moment to disappear.
    end = time.monotonic() + 10
    while tasks() > count and time.monotonic() < end:
        time.sleep(0.001)
    return tasks() == count
before, affinity, environment = tasks(), os.sched_getaffinity(0), dict(os.environ)
inputs = None
for count, workers in [(1, 0), (3, 2), (2, 2), (1, 2), (4, 3), (3, 3)]:
    module = load(sys.argv[1], num_threads=count)
    inputs = inputs or fill_inputs(module.inputs)
    module.run(inputs)
    assert tasks() - before == workers, (count, tasks() - before)
    # Every Python thread uses the same workers.
    other = threading.Thread(target=module.run, args=(inputs,))
    other.start()
    other.join()
    assert gone(before + workers), (count, tasks() - before)
assert os.sched_getaffinity(0) == affinity and dict(os.environ) == environment
child = os.fork()
if child == 0:
    # It has no workers until it needs some.
    assert tasks() == 1
    module.run(inputs)
    assert tasks() == 3
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_workers_and_affinity(package):
    """Workers appear only when needed, forked children get their own; the process's affinity and environment stay."""
    one_cpu = {min(os.sched_getaffinity(0))}
    command = [sys.executable, "-c", PROCESS, package.path]
    subprocess.run(command, check=True, preexec_fn=lambda: os.sched_setaffinity(0, one_cpu))


IDLE = """
import sys, time
from tvm_sparse.runtime import load
from tvm_sparse.runtime.arrays import fill_inputs
module = load(sys.argv[1], num_threads=3)
inputs = fill_inputs(module.inputs)
for _ in range(2):
    module.run(inputs)
    used = time.process_time()
    time.sleep(0.3)
    print(time.process_time() - used)
"""


def test_idle_workers_sleep(package):
    # Seconds of CPU, not of time: less than a thousandth of one.
    printed = subprocess.check_output([sys.executable, "-c", IDLE, package.path], text=True)
    assert max(map(float, printed.split())) < 0.05


def test_library_without_the_launcher():
    """One that TVM linked keeps TVM's threads."""
    module = SimpleNamespace(implements_function=lambda name, imports: False)
    assert threads_setter(module)(3) is None
