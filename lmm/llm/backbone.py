"""Where the pretrained language model comes from: a hub name, a folder, or one that is made on the spot.

`EmbeddedBackbone` makes a plain Hugging Face folder (a byte-level BPE and a small Llama, both trained on captions of
procedural motions), so that everything downstream runs offline through the one path `load_llm`.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from lmm.llm.prompts import TEXT_TO_MOTION

_NUM_CAPTIONS = 4096
_CONTEXT = 1024
_VERSION = 1  # raised when the same arguments would make another model


@dataclass(frozen=True)
class EmbeddedBackbone:
    """A small language model that needs no download; on one machine the same arguments make the same model.

    Args:
        folder: where it is kept; built there when missing.
        hidden_size: width, a multiple of 32.
        num_layers: decoder layers.
        vocab_size: byte-level BPE entries, special ones included.
        steps: pretraining steps on captions.
        seed: seed of captions, weights and batches.
    """

    folder: str = "runs/backbone"
    hidden_size: int = 192
    num_layers: int = 4
    vocab_size: int = 1024
    steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % 32:
            raise ValueError(f"hidden_size must be a multiple of 32, got {self.hidden_size}")
        if self.vocab_size < 300:
            raise ValueError(f"vocab_size must leave room for 256 bytes and some merges, got {self.vocab_size}")

    def build(self) -> None:
        """Make the folder unless it is there; it appears whole or not at all.

        Raises:
            ValueError: the folder holds another model.
        """
        folder, record = Path(self.folder), Path(self.folder) / "embedded.json"
        settings = {k: v for k, v in asdict(self).items() if k != "folder"} | {"version": _VERSION}
        if folder.is_dir():
            there = json.loads(record.read_text()) if record.is_file() else None
            if there != settings:
                raise ValueError(
                    f"{folder} holds another language model ({there or 'not an embedded one'}; asked for {settings}); "
                    "give another folder (--model.backbone.folder), delete this one, or name it as a plain string"
                )
            return
        from lmm.data.sources.procedural import captions

        sentences = captions(_NUM_CAPTIONS, self.seed)
        # within the instructions they will come in, so that these are few ids too
        texts = [t.replace("{caption}", s) for t, s in zip(cycle(TEXT_TO_MOTION), sentences, strict=False)]
        tokenizer = _train_tokenizer(texts, self.vocab_size)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the same sums everywhere; so small a model gains little from more
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                llm = self._pretrain(tokenizer, texts)
        finally:
            torch.set_num_threads(threads)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            tokenizer.save_pretrained(temporary)
            llm.save_pretrained(temporary)
            (temporary / record.name).write_text(json.dumps(settings) + "\n")
            temporary.chmod(0o755)  # mkdtemp makes it private
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same result
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _pretrain(self, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> LlamaForCausalLM:
        llm = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=self.hidden_size,
                intermediate_size=3 * self.hidden_size,
                num_hidden_layers=self.num_layers,
                num_attention_heads=self.hidden_size // 32,
                max_position_embeddings=_CONTEXT,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=True,
            )
        )
        optimizer = torch.optim.AdamW(llm.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=max(self.steps, 2))
        rank_zero_info(f"pretraining a backbone of {llm.num_parameters() / 1e6:.1f} M parameters in {self.folder}")
        for step in range(1, self.steps + 1):
            chosen = [texts[i] for i in torch.randint(len(texts), (16,)).tolist()]
            lines = [f"{tokenizer.bos_token}{text}{tokenizer.eos_token}" for text in chosen]
            batch = tokenizer(lines, add_special_tokens=False, padding=True, return_tensors="pt")
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
            logits = llm(input_ids=batch["input_ids"][:, :-1]).logits  # padding is on the right: no mask needed
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 50 == 0 or step == self.steps:
                rank_zero_info(f"  backbone step {step}/{self.steps}  nll {float(loss.detach()):.3f}")
        return llm


def load_llm(source: str, dtype: torch.dtype) -> PreTrainedModel:
    """A causal language model from a hub name or folder.

    Raises:
        ValueError: there is none, with what to do.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except OSError as error:
        raise _missing(source, error) from None


def load_quantized_llm(
    source: str, storage: Literal["nf4", "int8"], dtype: torch.dtype, *, device: torch.device
) -> PreTrainedModel:
    """The same with the weights of its linear layers quantized by bitsandbytes; embedding, norms and head are not.

    ``nf4`` keeps 4 bits a weight and quantizes the blocks' scales again (Dettmers et al. 2023, QLoRA), ``int8`` keeps 8
    (Dettmers et al. 2022, LLM.int8()).

    Args:
        source: hub name or folder.
        storage: how the linear layers are kept.
        dtype: of everything else, and of products.
        device: where it is quantized; faster on a GPU.
    """
    config = BitsAndBytesConfig(
        load_in_4bit=storage == "nf4",
        load_in_8bit=storage == "int8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    try:
        llm = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, quantization_config=config, device_map={"": device}
        )
    except OSError as error:
        raise _missing(source, error) from None
    from bitsandbytes.nn import Linear4bit  # here, because importing it takes two seconds

    for module in llm.modules():
        if isinstance(module, Linear4bit):
            # Else an evaluation on a CPU with bfloat16 units repacks the weights: not exactly, and with no way back to
            # training, which then has no gradient.
            module.support_avx512bf16_for_cpu = False
    return llm


def random_llm(source: str, dtype: torch.dtype, *, seed: int) -> PreTrainedModel:
    """A model of the architecture that ``source`` describes, with random weights; raises like `load_llm`."""
    try:
        config = AutoConfig.from_pretrained(source)
    except OSError as error:
        raise _missing(source, error) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def load_text_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The text tokenizer beside a language model; raises like `load_llm`, and where motion is in it already."""
    record = Path(source) / "motion.json"
    if record.is_file():
        base = json.loads(record.read_text())["vocabulary"]["backbone"]
        raise ValueError(
            f"{source} is a model that `lmm export` wrote: its vocabulary holds motion already; set `backbone` to "
            f"{base}, which it was made from, and train on from its checkpoint (--ckpt_path, or --model.start)"
        )
    try:
        return AutoTokenizer.from_pretrained(source)
    except OSError as error:
        raise _missing(source, error) from None


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what decides which ids a text becomes."""
    probe = "A person walks 3 steps, turns LEFT & waves; émigré\n"
    content = [sorted(tokenizer.get_vocab().items()), tokenizer(probe, add_special_tokens=False)["input_ids"]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def weights_sha256(llm: PreTrainedModel) -> str:
    """Hash of a few rows of the embedding: tells base models apart without reading them whole."""
    table: torch.Tensor = llm.get_input_embeddings().weight  # type: ignore[assignment]
    rows = table[:64].detach().cpu().to(torch.bfloat16)  # one hash for every dtype
    return hashlib.sha256(rows.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _missing(source: str, error: OSError) -> ValueError:
    reason = str(error).splitlines()[0]
    return ValueError(
        f"no language model at {source!r} ({reason}); name a folder with a Hugging Face model or a model of the hub, "
        "or use lmm.llm.backbone.EmbeddedBackbone, which needs no download"
    )


def _train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<pad>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()  # every byte, so every text has ids
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, bos, eos = special
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos)
