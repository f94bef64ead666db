"""Writes a shape as a folder in the Hugging Face format: seeded random weights and a tokenizer of the right size.

Run in an environment that has loquent[torch]: python -m cpu.checkpoints SHAPE FOLDER
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from cpu.shapes import Shape, shape_named

END = "<|endoftext|>"
LONGEST_WORD = 12  # bytes of the longest token that is made up


def byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: printable ones stand for themselves."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def made_up_merges(count: int) -> list[tuple[str, str]]:
    """Merges of a tokenizer that nobody trained: each joins two earlier tokens into a new one."""
    draw = random.Random(0)
    tokens = byte_letters()
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        left, right = draw.choice(tokens), draw.choice(tokens)
        if left + right in known or len(left + right) > LONGEST_WORD:
            continue
        merges.append((left, right))
        tokens.append(left + right)
        known.add(left + right)
    return merges


def write_tokenizer(vocabulary: int, folder: Path) -> None:
    """A byte-level BPE of exactly `vocabulary` tokens, the last of which is special."""
    merges = made_up_merges(vocabulary - 257)
    tokens = [*byte_letters(), *(left + right for left, right in merges), END]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary - 1, "content": END, **special}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [" ".join(merge) for merge in merges],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def write(shape: Shape, folder: Path) -> None:
    """The whole folder.

    Weights are drawn as the family draws them, and those of the layers doubled: attention is then not flat, so that an
    engine which gets positions or heads wrong writes other tokens.
    """
    import torch

    import loquent

    torch.manual_seed(0)
    config = getattr(loquent, f"{shape.family}Config")(**shape.config)
    model = getattr(loquent, shape.model)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and parameter.shape[0] != shape.vocabulary and ".wpe." not in name:
                parameter.mul_(2)
    model.save_pretrained(folder)
    write_tokenizer(shape.vocabulary, folder)


if __name__ == "__main__":
    write(shape_named(sys.argv[1]), Path(sys.argv[2]))
