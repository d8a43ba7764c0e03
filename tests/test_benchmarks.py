"""Every benchmark runs at its smallest size and writes rows of the agreed form; the times themselves are not judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("features.py", ["--clips", "2", "--repeats", "1"]),
        ("quantizers.py", ["--scale", "0.01", "--repeats", "1"]),
        ("motion_tokenizers.py", ["--width", "32", "--clips", "8", "--repeats", "1"]),
        ("metrics.py", ["--motions", "320", "--dim", "16", "--repeats", "1"]),
        ("llm.py", ["--layers", "1", "--width", "64", "--repeats", "1", "--scale", "0.01"]),
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


def test_tokenizer_study_goes_on_where_it_was(tmp_path):
    out = tmp_path / "study"
    study = [sys.executable, str(BENCHMARKS / "tokenizer_study.py"), "--quick", "--bits", "8", "-o", str(out)]

    def run(*kinds: str) -> str:
        done = subprocess.run([*study, "--kinds", *kinds], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "1 cells, 0 done before" in run("FSQ")
    first = (out / "FSQ_2^8_seed0" / "result.json").read_bytes()
    assert "2 cells, 1 done before" in run("FSQ", "2D-residual")
    assert (out / "FSQ_2^8_seed0" / "result.json").read_bytes() == first
    rows = {row["kind"]: row for row in json.loads((out / "study.json").read_text())["rows"]}
    assert [rows[kind]["codes"] for kind in ("FSQ", "2D-residual")] == [240, 256]
    assert [rows[kind]["codes_a_step"] for kind in ("FSQ", "2D-residual")] == [1, 10]
    for row in rows.values():
        assert 0 < row["usage"][0] <= 1 and 0 < row["test_mpjpe_root_mm"][0] < row["test_mpjpe_mm"][0]
    assert "| 2D-residual | 256 |" in (out / "study.md").read_text()
    assert "2D-residual" in (out / "study.svg").read_text()
    assert (out / "FSQ_2^8_seed0" / "commands.txt").read_text().startswith("lmm fit --config tokenizer_vq.yaml")
