"""Curves over time: the few ways in which every value of a procedural motion changes.

All functions take a time (or phase) array of any shape and are vectorised over it.
"""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FPS = 20


def clock(seconds: float) -> Array:
    """Times of the frames of a stretch of ``seconds``, in seconds."""
    return np.arange(round(seconds * FPS) + 1) / FPS


def ease(u: ArrayLike) -> Array:
    """Minimum-jerk step from 0 (u <= 0) to 1 (u >= 1)."""
    u = np.clip(u, 0.0, 1.0)
    return u * u * u * (10 + u * (6 * u - 15))


def bump(u: ArrayLike) -> Array:
    """Smooth hill over u in [0, 1]: 0 at and beyond the ends, 1 in the middle."""
    return np.sin(np.pi * np.clip(u, 0.0, 1.0)) ** 2


def keys(time: Array, times: Sequence[float], values: ArrayLike) -> Array:
    """Minimum-jerk interpolation from key to key, held before the first and after the last.

    ``values`` is (num_keys, ...); the result is ``time.shape + values.shape[1:]``.
    """
    values = np.asarray(values, dtype=np.float64)
    starts, lengths = np.asarray(times[:-1]), np.diff(times)
    weights = ease((time[..., None] - starts) / np.maximum(lengths, 1e-9))
    return values[0] + np.tensordot(weights, np.diff(values, axis=0), axes=1)


def hermite(time: Array, times: Sequence[float], values: ArrayLike, speeds: ArrayLike) -> Array:
    """Cubic segments with given values and speeds at the keys; a constant acceleration is reproduced exactly."""
    knots, y, v = np.asarray(times), np.asarray(values), np.asarray(speeds)
    k = np.clip(np.searchsorted(knots, time, side="right") - 1, 0, len(knots) - 2)
    h = np.maximum(knots[k + 1] - knots[k], 1e-9)
    u = np.clip((time - knots[k]) / h, 0.0, 1.0)
    return (
        y[k] * (1 + 2 * u) * (1 - u) ** 2
        + y[k + 1] * u * u * (3 - 2 * u)
        + h * (v[k] * u * (1 - u) ** 2 - v[k + 1] * u * u * (1 - u))
    )


def envelope(time: Array, start: float, end: float, rise: float = 0.5) -> Array:
    """0 before ``start`` and after ``end``, 1 between, with smooth flanks of ``rise`` seconds inside."""
    return ease((time - start) / rise) * ease((end - time) / rise)


def wobble(time: Array, rng: random.Random, amplitude: float, period: float = 4.0) -> Array:
    """Slow aimless drift: three sines of random phase and nearby periods, about ``amplitude`` in size."""
    curve = np.zeros_like(time)
    for harmonic in (1.0, 1.7, 2.6):
        rate = 2 * np.pi * harmonic / (period * rng.uniform(0.8, 1.25))
        curve += np.sin(rate * time + rng.uniform(0, 2 * np.pi)) / harmonic
    return amplitude * curve / 1.5


def blur(values: Array, sigma: float) -> Array:
    """Gaussian blur over the first axis (frames), the ends held; ``sigma`` in frames."""
    radius = int(3 * sigma + 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.concatenate([np.repeat(values[:1], radius, 0), values, np.repeat(values[-1:], radius, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis=0)
    return windows @ kernel
