"""Adapters' folders: found, checked whole before the model is touched, loaded with their base model, and saved."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft_models import IDS, ours_with
from safetensors.torch import load_file, save_file
from tiny_models import tiny

from hub.stand_in import StandInHub
from loquent import (
    ArgumentError,
    AutoModel,
    AutoModelForCausalLM,
    CheckpointError,
    ConfigError,
    GPT2LMHeadModel,
    HubError,
    LlamaForCausalLM,
    LoraConfig,
    load_adapter,
    save_adapter,
)
from loquent.torch.causal import CausalLM

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model."""
    tiny("llama").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """A folder with an adapter of it."""
    ours_with(LlamaForCausalLM.from_pretrained(base), target_modules=["q_proj", "v_proj"]).save_adapter(tmp_path / "it")
    return tmp_path / "it"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def rewrite(adapter: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, adapter / WEIGHTS)


def reconfigure(adapter: Path, **fields: Any) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, **fields}))


def assert_untouched(model: CausalLM) -> None:
    assert model.peft_config == {}
    assert all(type(m).__name__ != "AdaptedLinear" for m in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_folder_with_an_adapter_is_its_base_model_with_it(base: Path, adapter: Path) -> None:
    expected = LlamaForCausalLM.from_pretrained(base)
    expected.load_adapter(adapter)
    theirs = peft.PeftModel.from_pretrained(transformers.LlamaForCausalLM.from_pretrained(base), adapter)
    for cls in (AutoModelForCausalLM, LlamaForCausalLM):
        model = cls.from_pretrained(adapter)
        assert torch.equal(logits(model), logits(expected))
        assert model.name_or_path == str(base)
        assert list(model.peft_config) == ["default"]
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-5, rtol=1e-5)
    assert torch.equal(AutoModel.from_pretrained(adapter)(IDS).last_hidden_state, expected.base_model(IDS)[0])
    half = AutoModelForCausalLM.from_pretrained(adapter, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    with pytest.raises(ArgumentError, match="a quantized model cannot have"):
        AutoModelForCausalLM.from_pretrained(adapter, quantization="int8")
    with pytest.raises(ArgumentError, match="GPT2LMHeadModel is for model_type='gpt2'"):
        GPT2LMHeadModel.from_pretrained(adapter)


def test_a_folder_without_a_base_or_with_another_adapter_for_one_is_refused(adapter: Path) -> None:
    reconfigure(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(ConfigError, match="which holds one itself"):
        AutoModelForCausalLM.from_pretrained(adapter)
    reconfigure(adapter, base_model_name_or_path=None)
    with pytest.raises(ConfigError, match=r"names no base model\. Load the model, and then the adapter"):
        AutoModelForCausalLM.from_pretrained(adapter)


def test_saving_a_model_with_a_live_adapter_saves_the_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(adapter)
    live = logits(model)
    model.save_pretrained(tmp_path / "live")
    assert sorted(path.name for path in (tmp_path / "live").iterdir()) == [CONFIG, WEIGHTS]
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "live")), live)
    with pytest.raises(ArgumentError, match="holds a model, which would be loaded instead"):
        model.save_pretrained(base)
    model.load_adapter(adapter, "other")
    model.set_adapter(["default", "other"])
    with pytest.raises(ArgumentError, match=r"2 adapters are active \(default, other\). Say which"):
        model.save_pretrained(tmp_path / "two")
    model.disable_adapters()
    model.save_pretrained(tmp_path / "off")
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "off")), logits(plain))
    model.enable_adapters()
    model.set_adapter("default")
    model.merge_adapter()
    merged = logits(model)
    model.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), merged)
    model.save_adapter(tmp_path / "of merged")
    model.unmerge_adapter()
    model.save_adapter(tmp_path / "of live")
    assert (tmp_path / "of merged" / WEIGHTS).read_bytes() == (tmp_path / "of live" / WEIGHTS).read_bytes()


def test_a_live_adapter_on_a_model_without_a_name_is_not_half_saved(tmp_path: Path) -> None:
    model = ours_with(tiny("gpt2"))
    with pytest.raises(ArgumentError, match=r"no name by which .* merge_and_unload\(\) first"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    save_adapter(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    assert json.loads((tmp_path / CONFIG).read_text())["fan_in_fan_out"] is True


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[FIRST]


def every_kind(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[FIRST]
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = torch.zeros(3)
    tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"] = torch.zeros(4, 16)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (missing, [r"1 missing:\n    " + FIRST]),
        (
            every_kind,
            [
                r"1 missing:\n    " + FIRST,
                r"2 unexpected:\n.*lora_magnitude_vector\n.*layers\.9",
                r"1 of another shape:\n.*v_proj.lora_B.weight: \[4, 16\], but the model has \[16, 4\]",
                "Check that the adapter was trained on this model",
            ],
        ),
        (lambda tensors: tensors.clear() or tensors.update(x=torch.zeros(1)), ["8 missing", r"1 unexpected:\n.*x"]),
    ],
)
def test_one_error_lists_all_that_does_not_fit(adapter: Path, base: Path, change: Any, messages: list[str]) -> None:
    rewrite(adapter, change)
    model = LlamaForCausalLM.from_pretrained(base)
    for message in messages:
        with pytest.raises(CheckpointError, match=message):
            load_adapter(model, adapter)
    assert_untouched(model)


def test_the_config_and_the_tensors_must_agree(adapter: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    reconfigure(adapter, r=5)
    with pytest.raises(CheckpointError, match=r"8 of another shape:\n.*\[4, 32\], but the model has \[5, 32\]"):
        load_adapter(model, adapter)
    reconfigure(adapter, r=4, target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match=r"4 unexpected:\n.*v_proj"):
        load_adapter(model, adapter)
    reconfigure(adapter, target_modules=["q_proj", "v_proj", "o_proj"])
    with pytest.raises(CheckpointError, match=r"4 missing:\n.*o_proj"):
        load_adapter(model, adapter)
    # What other models call their layers is no mistake.
    reconfigure(adapter, target_modules=["q_proj", "v_proj", "query_key_value"])
    load_adapter(model, adapter)


def test_a_regular_expression_of_a_file_is_not_run(adapter: Path, base: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    load_adapter(model, adapter)
    live = logits(model)
    model.delete_adapter("default")
    reconfigure(adapter, target_modules=r"(([\w.]+)+)+!", exclude_modules=r"(\w|\w)*!")
    load_adapter(model, adapter)
    assert torch.equal(logits(model), live)
    save_adapter(model, tmp_path / "again")
    assert LoraConfig.from_pretrained(tmp_path / "again").target_modules == r"(([\w.]+)+)+!"
    rewrite(adapter, missing)
    with pytest.raises(CheckpointError, match=r"1 missing:\n    " + FIRST):
        load_adapter(model, adapter, "other")


def test_tensors_of_other_types(adapter: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    rewrite(adapter, lambda tensors: tensors.update({FIRST: tensors[FIRST].bfloat16()}))
    load_adapter(model, adapter)
    model.delete_adapter("default")
    rewrite(adapter, lambda tensors: tensors.update({FIRST: tensors[FIRST].int()}))
    with pytest.raises(CheckpointError, match="is of type I32, which weights cannot have"):
        load_adapter(model, adapter)
    assert_untouched(model)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/loquent-was-here"),))


def test_pickled_adapters_are_read_without_running_them(adapter: Path, base: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    model = LlamaForCausalLM.from_pretrained(base)
    load_adapter(model, adapter)
    live = logits(model)
    model.delete_adapter("default")
    (adapter / WEIGHTS).unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    load_adapter(model, adapter)
    assert torch.equal(logits(model), live)
    torch.save({**tensors, "evil": _Evil()}, adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="may be an attack"):
        load_adapter(model, adapter, "other")
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_adapter(model, adapter, "other")
    assert not Path("/tmp/loquent-was-here").exists()
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no file adapter_model\.safetensors"):
        load_adapter(model, adapter, "other")
    assert list(model.peft_config) == ["default"]


def test_damaged_files_are_named(adapter: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="is not a sound safetensors file"):
        load_adapter(model, adapter)
    (adapter / WEIGHTS).write_bytes(whole)
    (adapter / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        load_adapter(model, adapter)
    (adapter / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"has no file adapter_config\.json"):
        load_adapter(model, adapter)
    assert_untouched(model)


def test_what_peft_saves_of_an_adapted_head_loads(base: Path, tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM.from_pretrained(base)
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        wrapped.save_pretrained(tmp_path / "theirs")
    model = LlamaForCausalLM.from_pretrained(base)
    load_adapter(model, tmp_path / "theirs")
    torch.testing.assert_close(logits(model), logits(wrapped), atol=1e-5, rtol=1e-5)
    other = LlamaForCausalLM.from_pretrained(base)
    torch.nn.init.normal_(other.head.weight)
    with pytest.raises(CheckpointError, match=r"1 unexpected:\n.*lm_head.base_layer.weight"):
        load_adapter(other, tmp_path / "theirs")


def test_adapters_come_from_the_hub_and_go_there(
    stand_in_hub: StandInHub, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", StandInHub.token)
    AutoModelForCausalLM.from_pretrained(base).push_to_hub("me/base")
    reconfigure(adapter, base_model_name_or_path="me/base")
    model = AutoModelForCausalLM.from_pretrained(adapter)
    live = logits(model)
    model.push_to_hub("me/adapter")
    assert {CONFIG, WEIGHTS} <= set(stand_in_hub.files("me/adapter"))
    assert not {"config.json", "model.safetensors"} & set(stand_in_hub.files("me/adapter"))
    for _ in range(2):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained("me/adapter")), live)
        plain = AutoModelForCausalLM.from_pretrained("me/base")
        plain.load_adapter("me/adapter", "named")
        assert torch.equal(logits(plain), live)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError):
        plain.load_adapter("me/nothing", "nothing")
