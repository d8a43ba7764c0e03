"""Language models that read text and write motion tokens."""

import logging

# bitsandbytes, which peft imports, warns at every start about a faster 4-bit kernel for CPUs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from lmm.llm.backbone import EmbeddedBackbone  # noqa: E402
from lmm.llm.base import MotionLanguageModel  # noqa: E402
from lmm.llm.frozen import FrozenFinetune  # noqa: E402
from lmm.llm.full import FullFinetune  # noqa: E402
from lmm.llm.lora import LoRAFinetune  # noqa: E402

__all__ = ["EmbeddedBackbone", "FrozenFinetune", "FullFinetune", "LoRAFinetune", "MotionLanguageModel"]
