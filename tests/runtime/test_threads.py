"""Thread counts: where they come from and what they do to the process."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tvm_sparse.errors import InputError
from tvm_sparse.runtime import Package, host, threads


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS", *threads._POOL_SETTINGS):
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
import os, sys, threading, warnings
from tvm_sparse.runtime import load
from tvm_sparse.runtime.arrays import fill_inputs
def tasks():
    return len(os.listdir("/proc/self/task"))
warnings.simplefilter("error")
before, affinity, environment = tasks(), os.sched_getaffinity(0), dict(os.environ)
inputs = None
for count, workers in [(1, 0), (3, 2), (2, 2), (1, 2), (3, 2)]:
    module = load(sys.argv[1], num_threads=count)
    inputs = inputs or fill_inputs(module.inputs)
    module.run(inputs)
    assert tasks() - before == workers, (count, tasks() - before)
assert os.sched_getaffinity(0) == affinity and dict(os.environ) == environment
try:
    load(sys.argv[1], num_threads=4).run(inputs)
except RuntimeWarning as warning:
    assert "cannot grow to 4" in str(warning)
else:
    raise AssertionError("no warning")
# Another Python thread has a pool of its own.
module, seen = load(sys.argv[1], num_threads=4), []
other = threading.Thread(target=lambda: (module.run(inputs), seen.append(tasks() - before)))
other.start()
other.join()
assert seen == [2 + 1 + 3], seen
"""


@pytest.mark.parametrize("users", [{}, {"TVM_THREAD_POOL_SPIN_COUNT": "7"}, {"TVM_BIND_THREADS": "1"}])
def test_settings_of_pools(monkeypatch, users):
    """Our settings hold while a pool is made, the user's before ours, and the environment is left as it was."""
    seen = []

    def get_global_func(_name):
        return lambda *_args: seen.append({name: os.environ.get(name) for name in threads._POOL_SETTINGS})

    monkeypatch.setattr(threads, "tvm_ffi", SimpleNamespace(get_global_func=get_global_func))
    monkeypatch.setattr(threads, "_calling", SimpleNamespace(current=0, pool=2))
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    threads.use(2)
    assert seen == [{**threads._POOL_SETTINGS, **users}]
    assert dict(os.environ) == before


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
    # Seconds of CPU, not of time: TVM's own setting burns 0.1 a worker where a core is free, ours less than 0.001.
    environment = {key: value for key, value in os.environ.items() if key not in threads._POOL_SETTINGS}
    printed = subprocess.check_output([sys.executable, "-c", IDLE, package.path], env=environment, text=True)
    assert max(map(float, printed.split())) < 0.05


def test_workers_and_affinity(package):
    """Worker threads appear only when needed, and the process's own affinity and environment stay."""
    one_cpu = {min(os.sched_getaffinity(0))}
    command = [sys.executable, "-c", PROCESS, package.path]
    # Idle workers that spin would take turns with the rest on the one CPU.
    environment = {**os.environ, "TVM_THREAD_POOL_SPIN_COUNT": "0"}
    subprocess.run(command, check=True, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, one_cpu))
