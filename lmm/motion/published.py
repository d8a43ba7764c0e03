"""The published statistics of HumanML3D's features, told apart by the sha256 of their files.

Three pairs go by the names mean.npy and std.npy. What a model sees depends on which of them it is given, and nothing in
the figures that follow says that it was the wrong one: so they are known by digest and by role, never by name.
"""

import hashlib
from pathlib import Path

HUMANML3D = "HumanML3D's own pair"  # Mean.npy and Std.npy beside the data: what MDM, MLD, MotionGPT3 train in
EVALUATOR_T2M = "the evaluator's pair (t2m)"  # deviations of root and contacts 25 times smaller
EVALUATOR_KIT = "the evaluator's pair (KIT)"
_SHA256 = {
    "26e136555dab04c94a129d446c26e6b9939cbf045fbf77bcf5462c1fb5a2001c": ("mean", HUMANML3D),
    "6565a65ed9b31e23c328829a309e1c482be8b85fd23b43d65451a9b19a917f40": ("std", HUMANML3D),
    "0bdb5ba69a3a9e34d71990db15bc535ebc024c8d95ddb5574196f96058faa7d3": ("mean", EVALUATOR_T2M),
    "6a5f7d60301c9465972fc225f8ad0ee8f957e7720431189123eb6d15873a9557": ("std", EVALUATOR_T2M),
    "9e23fac51db2215ab5666324226be48f27efd6a6e7b22ebd17c28e0f056a7c22": ("mean", EVALUATOR_KIT),
    "296a60656cea07e65ee64512d73d47c0412df0698b35194116330661be32fa90": ("std", EVALUATOR_KIT),
}


def sha256(*files: Path) -> str:
    """Digest of the bytes of files, one after the other.

    Raises:
        ValueError: a file that is not there.
    """
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file}: there is no such file; give its path, from the folder in which you run lmm")
        digest.update(file.read_bytes())
    return digest.hexdigest()


def published_pair(mean: Path, std: Path) -> str:
    """Which published pair two files are; empty if either is none of them.

    Raises:
        ValueError: they are exchanged, of two pairs, or not there.
    """
    (first, mine), (second, other) = (_SHA256.get(sha256(file), ("", "")) for file in (mean, std))
    if first == "std" or second == "mean":
        raise ValueError(f"mean {mean} and std {std} are exchanged")
    if mine and other and mine != other:
        raise ValueError(f"{mean} is from {mine}, {std} from {other}; give two files of one pair")
    return mine if mine and other else ""
