"""Run the node tests and add those that pass now to passing.txt; rewrite failing.md.

``python -m tests.onnx_backend.update [PATTERN]`` runs the tests that are not listed as passing (and match
the regular expression); ``--all`` runs the listed ones too. A listed test is never removed: when one
fails, it is named and the exit code is 1. A worker process runs the tests, so that a crash costs one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import onnx

from tests.onnx_backend.cases import Case, all_cases
from tests.onnx_backend.lists import load_failing, load_passing, save


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--all", action="store_true", help="run the tests listed as passing too")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options.worker)
        return 0
    passing = set(load_passing())
    chosen = [
        name
        for name in all_cases()
        if re.search(options.pattern, name) and (options.all or name not in passing)
    ]
    reasons = _run(chosen)
    regressions = {name: reasons[name] for name in chosen if name in passing and reasons[name] is not None}
    passing |= {name for name in chosen if reasons[name] is None}
    failing = load_failing()[1] if options.pattern else {}
    failing |= {name: reason for name, reason in reasons.items() if reason is not None}
    save(sorted(passing), {k: v for k, v in failing.items() if k not in passing}, onnx.__version__)
    print(f"{len(passing)} pass; {sum(reasons[name] is None for name in chosen)} of {len(chosen)} run now")
    for name, reason in regressions.items():
        print(f"listed as passing but fails: {name}: {reason}")
    return 1 if regressions else 0


def _run(names: list[str]) -> dict[str, str | None]:
    """Reason of failure, or None, of each test, run by workers that replace one another when one dies."""
    reasons: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        while len(reasons) < len(names):
            todo = [name for name in names if name not in reasons]
            journal.write_text("".join(f"{name}\n" for name in todo))
            command = [sys.executable, "-m", "tests.onnx_backend.update", "--worker", str(journal)]
            status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
            results = (Path(folder) / "journal.results").read_text().splitlines()
            reasons |= dict(json.loads(line) for line in results)
            if status != 0 and len(reasons) < len(names):
                # The next one in the order is the one it died of.
                reasons[next(name for name in todo if name not in reasons)] = "crashes the compiler"
    return reasons


def _work(journal: Path) -> None:
    """Run the tests named in a file, each result at once written to the file beside it."""
    warnings.simplefilter("ignore")
    from tests.onnx_backend.runner import check

    with open(journal.with_name("journal.results"), "w") as results:
        for name in journal.read_text().split():
            case = all_cases()[name]
            reason = case if isinstance(case, str) else _reason(case, check)
            results.write(json.dumps([name, reason]) + "\n")
            results.flush()


def _reason(case: Case, check) -> str | None:
    try:
        check(case)
    except AssertionError as error:
        kind = str(error).strip().splitlines()[0]
        return (
            "wrong values" if "tolerance" in kind or "not equal" in kind else re.sub(r"output \S+ ", "", kind)
        )
    except Exception as error:  # noqa: BLE001  (every failure has a reason)
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        # Names of nodes and positions differ from test to test: without them tests share a reason.
        line = re.sub(r" \((node|fn)[^)]*\)|'output [^']*'|/\S+:\d+:? ?", "", line)
        return f"{type(error).__name__}: {line}"[:160]
    return None


if __name__ == "__main__":
    sys.exit(main())
