import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from jaxtyping import install_import_hook

# The shapes in signatures are checked, in tests only. (lmm.data.sources speaks numpy's ArrayLike, which beartype
# takes too literally.)
CHECKED = ["batch", "training", "motion", "metrics", "render", "tokenizers", "llm"]
CHECKED += ["evaluators", "evaluation", "data.motions", "data.tokens"]
install_import_hook([f"lmm.{room}" for room in CHECKED], "beartype.beartype")

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("LMM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real motion data at {SHARED_DATA} (set LMM_SHARED_DATA to its folder)")
    return SHARED_DATA
