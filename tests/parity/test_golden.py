"""Checkpoints and logits of transformers 5.23: Doge's mixture of experts, and the newer spellings of configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import assert_close, config_fields, tensors_of
from safetensors.torch import load_file
from torch import Tensor

import loquent

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
EXPERTS = [name for name in CASES if "experts" in name]


def _model(name: str, **overrides: Any) -> Any:
    return loquent.AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32, **overrides)


def _reference(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / name / "reference.safetensors")


def _in_pieces(model: Any, tokens: Tensor, sizes: list[int]) -> Tensor:
    cache, pieces = None, []
    for piece in tokens.split(sizes, dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(output.logits)
    return torch.cat(pieces, 1)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if name not in EXPERTS])
def test_newer_spellings_mean_the_same(name: str) -> None:
    reference, model = _reference(name), _model(name)
    assert_close(model(reference["ids"]).logits, reference["logits"])
    assert_close(_in_pieces(model, reference["ids"], [1] * reference["ids"].shape[1]), reference["step_logits"])


@torch.no_grad()
@pytest.mark.parametrize("name", EXPERTS)
def test_flattened_routing_is_their_full_forward_pass(name: str) -> None:
    reference = _reference(name)
    model = _model(name, router_layout="flattened")
    assert_close(model(reference["ids"]).logits, reference["logits"])
    assert (reference["logits"] - reference["step_logits"]).abs().max() > 0.01, "the two layouts agree: nothing shown"


@torch.no_grad()
@pytest.mark.parametrize("name", EXPERTS)
def test_routing_per_token_is_their_reading_token_by_token(name: str) -> None:
    reference, model = _reference(name), _model(name)
    assert model.config.router_layout == "per_token"
    assert_close(model(reference["ids"]).logits, reference["step_logits"])
    assert_close(_in_pieces(model, reference["ids"], [5, 1, 1, 9]), reference["step_logits"])


@torch.no_grad()
@pytest.mark.parametrize("name", EXPERTS)
def test_flattened_routing_does_not_depend_on_the_batch(name: str) -> None:
    reference, model = _reference(name), _model(name, router_layout="flattened")
    tokens = torch.cat([reference["ids"], reference["ids"].flip(1)])
    mask = torch.ones_like(tokens)
    mask[1, :6] = 0
    found = model(tokens, attention_mask=mask).logits
    assert_close(found[:1], reference["logits"])
    assert_close(found[1:, 6:], model(tokens[1:, 6:]).logits)


@torch.no_grad()
@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("layout", ["per_token", "flattened"])
def test_generating_reads_what_one_forward_pass_reads(name: str, layout: str) -> None:
    model, prompt = _model(name, router_layout=layout), _reference(name)["ids"][:, :5]
    found = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    expected = prompt
    for _ in range(8):
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    assert found.tolist() == expected.tolist()


@torch.no_grad()
@pytest.mark.parametrize("name", EXPERTS)
def test_every_tensor_of_experts_matters(name: str) -> None:
    model, tokens = _model(name), _reference(name)["ids"]
    expected = model(tokens).logits
    for own, parameter in model.named_parameters():
        before = parameter.clone()
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        assert (model(tokens).logits - expected).abs().max() > 1e-4, f"{own} has no effect"
        parameter.copy_(before)


@pytest.mark.parametrize("name", CASES)
def test_saving_loses_nothing(name: str, tmp_path: Path) -> None:
    overrides = {"router_layout": "flattened"} if name in EXPERTS else {}
    model = loquent.AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype="auto", **overrides)
    assert model.dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    fields, saved = config_fields(GOLDEN / name), config_fields(tmp_path)
    assert {field: saved.get(field) for field in fields} == fields
    assert saved.get("router_layout") == overrides.get("router_layout")
    before = load_file(GOLDEN / name / "model.safetensors")
    after = tensors_of(tmp_path)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[tensor], before[tensor]) for tensor in before)
