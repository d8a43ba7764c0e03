"""Every benchmark runs at its smallest size and writes rows of the agreed form; the times themselves are not judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("features.py", ["--clips", "2", "--repeats", "1"]),
        ("quantizers.py", ["--scale", "0.01", "--repeats", "1"]),
        ("motion_tokenizers.py", ["--width", "32", "--clips", "8", "--repeats", "1"]),
    ],
)
def test_benchmark_writes_its_rows(tmp_path, script, arguments):
    out = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / script), "--quick", *arguments, "--json", str(out)]
    # compiling takes half a minute and has no bearing on the form of the rows
    environment = {**os.environ, "TORCH_COMPILE_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert rows
    for row in rows:
        assert set(row) - {"peak_mb", "peer_peak_mb"} == {"name", "peer", "ours_s", "peer_s", "ratio"}
        assert row["ours_s"] > 0 and row["peer_s"] > 0
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
        assert row["name"] in done.stdout
    assert "1 thread" in done.stdout
