"""Writes `golden/strategies.json`: what `generate()` of transformers 5.23 makes of checkpoints of `golden/`.

Run it with transformers 5.23 installed (torch 2.13 made the present file), after `make_golden_5_23.py`:

    python tests/parity/make_golden_strategies_5_23.py

A case has the arguments (`assistant` names a checkpoint) and, for each prompt, the ids up to the end and the scores:
those of the chosen tokens, those of beams, or where tokens are drawn, of all that are left in the first step. Prompts
are read one at a time and as a batch, padded on the left; the script ends where 5.23 gives the batch other results.
The rules hold fixed rows, and which tokens each sampling processor leaves of them.

Left out, because 5.23 has it no more: contrastive search, DoLa, diverse and constrained beams. Left out, because ours
draws by its own numbers: what is drawn behind the first step's scores. Left out of batches, because 5.23 is wrong there
or refuses them: what `ALONE` and `DRAFTED` name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.generation import logits_process

GOLDEN = Path(__file__).parent / "golden"
PAD = 1
DEFAULTS = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": [4, 19, 22, 27], "pad_token_id": PAD}
PROMPTS = [[3, 5, 9, 5, 3, 5], [7, 8], [30, 2, 11, 2, 11]]
MODELS = {"llama": "llama-llama3", "gpt2": "gpt_bigcode", "gpt_neox": "llama"}  # and who assists them

_BEAMS = {"num_beams": 4, "num_return_sequences": 3}
GREEDY: dict[str, dict[str, Any]] = {
    "greedy": {},
    "without an end": {"eos_token_id": None},
    "repetition": {"repetition_penalty": 1.5},
    "no repeated pairs": {"no_repeat_ngram_size": 2, "eos_token_id": None},
    "biased": {"sequence_bias": [[[6], 1.5], [[5, 9], 3.0], [[8, 10], -9.0]]},
    "suppressed": {"suppress_tokens": [30, 16, 22, 10], "begin_suppress_tokens": [26, 17, 27, 31]},
    "bad words": {"bad_words_ids": [[5], [9, 12], [2, 11]]},
    "at least so long": {"min_new_tokens": 7},
    "forced to end": {"forced_eos_token_id": 19, "eos_token_id": 19},
    "ends wanted later": {"exponential_decay_length_penalty": [3, 1.4]},
    "normalised": {"renormalize_logits": True, "repetition_penalty": 0.8},
    "guided": {"guidance_scale": 1.8, "eos_token_id": None},
    "guided, repetition": {"guidance_scale": 0.4, "repetition_penalty": 1.3},
    "in all": {"max_length": 11, "max_new_tokens": None, "eos_token_id": None},
    "at least so long in all": {"min_length": 11, "max_new_tokens": 12},
    "repetition of the prompt": {"encoder_repetition_penalty": 1.6},
    "nothing of the prompt": {"encoder_no_repeat_ngram_size": 1, "eos_token_id": None},
}
BEAMS: dict[str, dict[str, Any]] = {
    "beams": _BEAMS,
    "beams, short": {**_BEAMS, "length_penalty": -1.0},
    "beams, long": {**_BEAMS, "length_penalty": 2.5},
    "beams, stopping early": {**_BEAMS, "early_stopping": True},
    "beams, never stopping early": {**_BEAMS, "early_stopping": "never", "length_penalty": 0.5},
    "beams, without an end": {**_BEAMS, "eos_token_id": None},
    "beams, repetition": {**_BEAMS, "repetition_penalty": 1.5},
    "beams, no repeated pairs": {**_BEAMS, "no_repeat_ngram_size": 2},
    "beams, biased": {**_BEAMS, "sequence_bias": [[[6], 1.5], [[5, 9], 3.0], [[8, 10], -9.0]]},
}
DRAFTED: dict[str, dict[str, Any]] = {
    "assisted": {"assistant": True},
    "assisted by itself": {"assistant": False},
    "assisted, repetition": {"assistant": True, "repetition_penalty": 1.5},
    "lookup": {"prompt_lookup_num_tokens": 4},
    "lookup, no repeated triples": {"prompt_lookup_num_tokens": 2, "no_repeat_ngram_size": 3},
}
DRAWN: dict[str, dict[str, Any]] = {
    "typical": {"typical_p": 0.6},
    "min-p": {"min_p": 0.2},
    "eta": {"eta_cutoff": 0.05},
    "epsilon": {"epsilon_cutoff": 0.03},
    "top-h": {"top_h": 0.5},
    "all in their order": {
        "repetition_penalty": 1.2,
        "temperature": 1.4,
        "top_h": 0.9,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.05,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.01,
        "eta_cutoff": 0.01,
        "renormalize_logits": True,
    },
}
ALONE = {
    # The padding counts as tokens of the prompt.
    *("in all", "at least so long in all", "repetition of the prompt", "nothing of the prompt"),
    *DRAFTED,  # a single row at a time
}
RULES: dict[str, tuple[str, list[float]]] = {
    "typical_p": ("TypicalLogitsWarper", [0.2, 0.6, 0.95]),
    "min_p": ("MinPLogitsWarper", [0.01, 0.2, 1.0]),
    "eta_cutoff": ("EtaLogitsWarper", [0.0005, 0.01, 0.3]),
    "epsilon_cutoff": ("EpsilonLogitsWarper", [0.0005, 0.01, 0.3]),
    "top_h": ("TopHLogitsWarper", [0.1, 0.5, 0.9]),
}


def padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids (rows, width) and their attention mask."""
    width = max(map(len, prompts))
    ids = [[PAD] * (width - len(prompt)) + prompt for prompt in prompts]
    return torch.tensor(ids), torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])


def load(name: str) -> Any:
    """A checkpoint in float32."""
    folder = GOLDEN / name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


@torch.no_grad()
def made(name: str, asked: dict[str, Any], prompts: list[list[int]]) -> list[dict[str, Any]]:
    """What 5.23 makes of one batch, for each prompt."""
    chosen = {**DEFAULTS, **asked}
    ids, mask = padded(prompts)
    if "assistant" in chosen:
        # Loaded anew each time: assisted generation leaves its pace with the assistant.
        chosen["assistant_model"] = load(chosen.pop("assistant"))
    output = load(name).generate(ids, attention_mask=mask, return_dict_in_generate=True, output_scores=True, **chosen)
    if chosen["do_sample"]:
        return [{"first": of_kept(row)} for row in output.scores[0]]
    copies = chosen.get("num_return_sequences", 1)
    rows = [ended(row, chosen["eos_token_id"]) for row in output.sequences[:, ids.shape[1] :].tolist()]
    if "num_beams" in chosen:
        scores: list[Any] = [shortened(score) for score in output.sequences_scores]
    else:
        scores = [
            [shortened(output.scores[at][row, id_]) for at, id_ in enumerate(new)] for row, new in enumerate(rows)
        ]
    slices = [slice(at, at + copies) for at in range(0, len(rows), copies)]
    return [{"ids": rows[mine], "scores": scores[mine]} for mine in slices]


def ended(row: list[int], ends: int | list[int] | None) -> list[int]:
    """A row up to its end, without the padding behind it."""
    ends = [ends] if isinstance(ends, int) else ends or []
    return row[: next((at + 1 for at, token in enumerate(row) if token in ends), len(row))]


def of_kept(row: Tensor) -> list[list[float]]:
    """The tokens that are left and their scores."""
    return [[token, shortened(row[token])] for token in row.isfinite().nonzero()[:, 0].tolist()]


def shortened(score: Tensor) -> float:
    return float(f"{score.item():.6g}")


def same(found: Any, expected: Any) -> bool:
    """Equal but for the last digits of scores."""
    if isinstance(found, dict):
        return all(same(found[name], expected[name]) for name in found)
    if isinstance(found, list):
        return len(found) == len(expected) and all(same(one, other) for one, other in zip(found, expected))
    return bool(abs(found - expected) < 1e-5 * max(1.0, abs(expected)))


def case(model: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What each prompt gives, alone and in a batch."""
    if "assistant" in asked:
        asked = {**asked, "assistant": MODELS[model] if asked["assistant"] else model}
    if name in DRAWN:
        # The scores of the first step do not depend on what is drawn.
        asked = {"do_sample": True, "top_k": 0, "max_new_tokens": 1, **asked}
    rows = [made(model, asked, [prompt])[0] for prompt in PROMPTS]
    if name not in ALONE and not same(made(model, asked, PROMPTS), rows):
        raise SystemExit(f"a batch gives other results than its rows: {name} of {model}")
    return {"model": model, "name": name, "asked": asked, "rows": rows}


def rules() -> dict[str, Any]:
    """Fixed rows past the 100 tokens that top-h looks at, and the tokens that are left of each."""
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(3, 120, generator=generator) * torch.tensor([[0.5], [2.0], [4.0]])).mul(1000).round().div(1000)
    left: dict[str, list[Any]] = {}
    for name, (processor, settings) in RULES.items():
        for setting in settings:
            scores = getattr(logits_process, processor)(setting)(torch.zeros(3, 1, dtype=torch.long), rows)
            assert torch.equal(scores.isfinite() * rows, scores.nan_to_num(neginf=0.0))
            tokens = [row.isfinite().nonzero()[:, 0].tolist() for row in scores]
            left.setdefault(name, []).append({"setting": setting, "left": tokens})
    return {"rows": [[float(f"{score:.3f}") for score in row] for row in rows.tolist()], "left": left}


if __name__ == "__main__":
    if not transformers.__version__.startswith("5.23."):
        raise SystemExit(f"this needs transformers 5.23, not {transformers.__version__}")
    asked_for = {**GREEDY, **BEAMS, **DRAFTED, **DRAWN}
    found = {"prompts": PROMPTS, "pad": PAD, "defaults": DEFAULTS, "rules": rules()}
    found["cases"] = [case(model, name, asked) for model in MODELS for name, asked in asked_for.items()]
    (GOLDEN / "strategies.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
