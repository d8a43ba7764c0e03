"""Speed of the metrics of generation, at the size of HumanML3D's test set, ours against the field's procedure.

    python benchmarks/metrics.py [--quick] [--json FILE] [--motions N] [--dim E] [--repeats N]

The peer is what text-to-motion, T2M-GPT and MotionGPT do, written again as published: numpy's mean and covariance and
scipy's square root of the product of the covariances (FID), float32 distances and argsort pool by pool (R-precision,
multimodal distance), numpy's choice (diversity, multimodality). R-precision of ours is both directions, in float64.
Both sides run in one process on one thread and take turns; times are medians of CPU time. Before any timing the results
are compared: FID to 1e-6, R-precision to the pair, multimodal distance to 1e-5; what is drawn, to its noise.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import norm, sqrtm

from lmm.metrics.diversity import diversity, multimodality
from lmm.metrics.frechet import frechet_distance, gaussian
from lmm.metrics.matching import r_precision

Array = NDArray[np.floating]
POOL, TOP, REPEATS = 32, 3, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer motions, dimensions and repeats: a few seconds")
    parser.add_argument("--json", type=Path, help="write the rows {name, peer, ours_s, peer_s, ratio} to this file")
    parser.add_argument("--motions", type=int, help="motions (default 4640, quick 960)")
    parser.add_argument("--dim", type=int, help="dimensions of an embedding (default 512, quick 128)")
    parser.add_argument("--repeats", type=int, help="turns of either side (default 7, quick 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    motions = arguments.motions or (960 if arguments.quick else 4640)
    dim = arguments.dim or (128 if arguments.quick else 512)
    repeats = arguments.repeats or (3 if arguments.quick else 7)
    print(
        f"{motions:,} motions x {dim}; {torch.get_num_threads()} thread of torch {torch.__version__}, {repeats} turns "
        "each, medians"
    )
    rows = []
    for row in benchmark(*make_points(motions, dim), repeats):
        rows.append(row)
        print(f"{row['name']:<44} ours {row['ours_s'] * 1e3:9.2f} ms  peer {row['peer_s'] * 1e3:9.2f} ms", end="")
        print(f"  {row['ratio']:6.1f}x  ({row['peer']})", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def benchmark(
    texts: torch.Tensor, real: torch.Tensor, generated: torch.Tensor, many: torch.Tensor, repeats: int
) -> Iterator[dict[str, object]]:
    """The distance alone, the whole FID, R-precision, and an evaluation of 20 repeats."""
    a, b, t, m = real.numpy(), generated.numpy(), texts.numpy(), many.numpy()
    reference, statistics_b = gaussian(real), gaussian(generated)
    published = [(g.mean.numpy(), g.covariance.numpy()) for g in (reference, statistics_b)]

    def everything() -> list[float]:
        cached = gaussian(real)
        for seed in range(REPEATS):
            found = r_precision(texts, generated, pool=POOL, top=TOP)
            fid = float(frechet_distance(cached, gaussian(generated)))
            out = [float(diversity(generated, seed=seed)), float(multimodality(many, seed=seed))]
        return [fid, *found.text_to_motion.tolist(), float(found.distance), *out]

    def everything_published() -> list[float]:
        np.random.seed(0)
        for _ in range(REPEATS):
            hits, distance = matching(t, b)
            fid = whole_fid(a, b)
            out = [spread(b, 300), spread(m.swapaxes(0, 1), 10)]
        return [fid, *hits.tolist(), distance, *out]

    mine, theirs = everything(), everything_published()
    close(mine[0], theirs[0], 1e-6, "FID")
    assert abs(np.subtract(mine[1:4], theirs[1:4])).max() == 0, f"R-precision: {mine[1:4]}, {theirs[1:4]}"
    close(mine[4], theirs[4], 1e-5, "multimodal distance")
    close(mine[5], theirs[5], 0.1, "diversity")
    close(mine[6], theirs[6], 0.2, "multimodality")

    sides = {
        ("FID, the distance alone", "scipy sqrtm"): (
            lambda: frechet_distance(reference, statistics_b),
            lambda: sqrtm_distance(*published[0], *published[1]),
        ),
        ("FID, embeddings to number, reference cached", "numpy cov, scipy sqrtm"): (
            lambda: frechet_distance(reference, gaussian(generated)),
            lambda: whole_fid(a, b),
        ),
        ("R-precision and multimodal distance", "numpy argsort, one direction"): (
            lambda: r_precision(texts, generated, pool=POOL, top=TOP),
            lambda: matching(t, b),
        ),
    }
    for (name, peer), (ours, other) in sides.items():
        yield measure(name, peer, ours, other, repeats)
    yield measure(f"all metrics, {REPEATS} repeats", "numpy and scipy", everything, everything_published, 1)


def make_points(count: int, dim: int) -> tuple[torch.Tensor, ...]:
    """Texts, real and generated motions "N E", and generations of one text "100 30 E"; variances fall off as 1/i."""
    noise = torch.Generator().manual_seed(0)
    scale = 5 / torch.arange(1, dim + 1).sqrt()
    texts = torch.randn(count, dim, generator=noise) * scale
    real, generated = (texts + torch.randn(count, dim, generator=noise) * scale for _ in range(2))
    return texts, real, 1.1 * generated + 0.1, torch.randn(100, 30, dim, generator=noise) * scale


def measure(
    name: str, peer: str, ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> dict[str, object]:
    """One row: the two sides in turn, and the ratio of their median times."""
    times: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    with torch.inference_mode():
        for _ in range(repeats):
            for side, seconds in times.items():
                start = time.process_time()
                side()
                seconds.append(time.process_time() - start)
    mine, other = (statistics.median(seconds) for seconds in times.values())
    return {"name": name, "peer": peer, "ours_s": mine, "peer_s": other, "ratio": other / mine}


def close(a: float, b: float, relative: float, name: str) -> None:
    assert abs(a - b) <= relative * abs(b), f"{name}: {a}, {b}"


# The published procedure.


def whole_fid(a: Array, b: Array) -> float:
    return sqrtm_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def sqrtm_distance(mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array) -> float:
    root = sqrtm(covariance_a.dot(covariance_b))
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(covariance_a))
        root = sqrtm((covariance_a + offset).dot(covariance_b + offset))
    if np.iscomplexobj(root):
        assert np.allclose(np.diagonal(root).imag, 0, atol=1e-3)
        root = root.real
    difference = mean_a - mean_b
    return float(difference.dot(difference) + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.trace(root))


def matching(texts: Array, motions: Array) -> tuple[Array, float]:
    """Shares of hits among the nearest 1 to 3, and the mean distance, pool by pool."""
    hits, total, pools = np.zeros(TOP), 0.0, len(texts) // POOL
    for first in range(0, pools * POOL, POOL):
        a, b = texts[first : first + POOL], motions[first : first + POOL]
        squares = -2 * np.dot(a, b.T) + np.square(a).sum(1, keepdims=True) + np.square(b).sum(1)
        distances = np.sqrt(np.maximum(squares, 0))
        total += distances.trace()
        right = np.argsort(distances, axis=1) == np.arange(POOL)[:, None]
        found = np.zeros(POOL, dtype=bool)
        for k in range(TOP):
            found = found | right[:, k]
            hits[k] += found.sum()
    return hits / (pools * POOL), total / (pools * POOL)


def spread(points: Array, pairs: int) -> float:
    """Mean distance of so many pairs along the first axis."""
    first, second = (np.random.choice(len(points), pairs, replace=False) for _ in range(2))
    return float(norm(points[first] - points[second], axis=-1).mean())


if __name__ == "__main__":
    main()
