"""Fuzzes targets, one process each, for a given time; or shrinks a corpus, or runs one input again.

Comes in: names of targets (none: all) and seconds. Goes out: a line a target with runs, coverage and
findings; exit 1 if one of them has a finding. New inputs are left in .fuzz/corpus/NAME, findings in
.fuzz/findings.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
WORK = TOP / ".fuzz"
MAX_BYTES = 4096
MAX_CORPUS_BYTES = 8000
"""Of the inputs kept for a target, before they are packed: 22 targets stay below 200 KB."""
ONE_INPUT_S = 20
RSS_MB = 2048


@dataclass(frozen=True)
class Result:
    """What a target has done."""

    name: str
    runs: int
    coverage: int
    cpu_s: float
    finding: Path | None
    log: Path

    def __str__(self) -> str:
        state = f"FOUND {self.finding or self.log}" if self.finding or not self.runs else "nothing found"
        work = f"{self.runs:>10} runs {self.coverage:>6} edges {self.cpu_s:7.1f} s of a core"
        return f"{self.name:16} {work}  {state}"

    @property
    def is_good(self) -> bool:
        return self.finding is None and self.runs > 0


def environment() -> dict[str, str]:
    """Of a process with a target: the sanitizer's library first, and its blocks from malloc alone."""
    import atheris

    library = Path(atheris.__file__).parent.parent / "asan_with_fuzzer.so"
    paths = os.pathsep.join(str(TOP / each) for each in ("fuzz", "tests"))
    return os.environ | {
        "LD_PRELOAD": str(library),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=0:handle_abort=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": paths,
    }


def fuzz(name: str, seconds: float, *options: str) -> Result:
    """Runs a target. Its first inputs are the seeds, the corpus, and what earlier runs have found."""
    corpus = _unpacked(name)
    findings = WORK / "findings"
    findings.mkdir(exist_ok=True)
    log = WORK / f"{name}.log"
    before = set(findings.glob(f"{name}-*"))
    command = [sys.executable, str(TOP / "fuzz/child.py"), name, str(corpus)]
    command += [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={ONE_INPUT_S}",
    ]
    command += [
        f"-rss_limit_mb={RSS_MB}",
        f"-artifact_prefix={findings}/{name}-",
        "-print_final_stats=1",
        *options,
    ]
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment(), stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    found = sorted(set(findings.glob(f"{name}-*")) - before)
    text = log.read_text(errors="replace")
    covered = re.findall(r"cov: (\d+)", text)
    runs = re.search(r"stat::number_of_executed_units: (\d+)", text)
    failed = found[0] if found else (log if code else None)
    done = int(runs[1]) if runs else 0
    return Result(
        name, done, int(covered[-1]) if covered else 0, usage.ru_utime + usage.ru_stime, failed, log
    )


def _unpacked(name: str) -> Path:
    import seeds

    folder = WORK / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for each, content in seeds.corpus(name).items():
        (folder / each).write_bytes(content)
    return folder


def shrink(name: str) -> str:
    """Keeps of a target's inputs the smallest that reach what all of them reach, within MAX_CORPUS_BYTES."""
    import seeds

    least = WORK / "least" / name
    least.mkdir(parents=True, exist_ok=True)
    for each in least.iterdir():
        each.unlink()
    command = [sys.executable, str(TOP / "fuzz/child.py"), name, "-merge=1", str(least), str(_unpacked(name))]
    subprocess.run(command, env=environment(), capture_output=True, check=False)
    kept = seeds.keep(name, _within((each.read_bytes() for each in least.iterdir()), MAX_CORPUS_BYTES))
    return f"{name:16} {kept:>7} bytes"


def _within(inputs: Iterable[bytes], most: int) -> list[bytes]:
    """The shortest of `inputs` that have `most` bytes together."""
    kept = []
    for each in sorted(inputs, key=len):
        most -= len(each)
        if most < 0:
            break
        kept.append(each)
    return kept


def main() -> int:
    """See above."""
    if "LD_PRELOAD" not in os.environ:  # seeds.py imports p2pcore, which this build cannot load without it
        os.execve(sys.executable, [sys.executable, *sys.argv], environment())
    import seeds

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(seeds.SEEDS))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="1 or more: the same choices in each run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shrink", action="store_true", help="write the corpora anew from what was found")
    parser.add_argument("--input", help="run this file again, with the target named")
    options = parser.parse_args()
    names = options.names or list(seeds.SEEDS)
    if unknown := set(names) - set(seeds.SEEDS):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(seeds.SEEDS)}")
    if options.input:
        command = [sys.executable, str(TOP / "fuzz/child.py"), names[0], options.input]
        return subprocess.run(command, env=environment(), check=False).returncode
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.shrink:
            for line in pool.map(shrink, names):
                print(line, flush=True)
            return 0
        results = []
        for result in pool.map(lambda name: fuzz(name, options.seconds, f"-seed={options.seed}"), names):
            print(result, flush=True)
            results.append(result)
    return 0 if all(each.is_good for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
