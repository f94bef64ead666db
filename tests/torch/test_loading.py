"""Checkpoints in torch: both libraries read each other's, types are as asked, and what does not fit is said at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ALL, FIELDS, distinct_ids, oracle, tiny

from loquent.errors import ArgumentError, CheckpointError, ConfigError
from loquent.torch.classes import AutoModel, AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM, LlamaModel


def saved(model: object, folder: Path) -> Path:
    """The folder that the model was saved in."""
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


@pytest.mark.parametrize("name", ALL)
def test_both_libraries_read_each_others_files(name: str, tmp_path: Path) -> None:
    theirs = oracle(name)
    ids = distinct_ids(2, 9)
    ours = AutoModelForCausalLM.from_pretrained(saved(theirs, tmp_path / "theirs"))
    assert type(ours).__name__ == FIELDS[name][2]
    assert not ours.training
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids).logits, expected, atol=2e-5, rtol=1e-4)
        saved(ours, tmp_path / "ours")
        again = type(theirs).from_pretrained(tmp_path / "ours", attn_implementation="eager")
        torch.testing.assert_close(again(ids).logits, expected, atol=2e-5, rtol=1e-4)
    first, second = (load_file(tmp_path / who / "model.safetensors") for who in ("theirs", "ours"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == [FIELDS[name][2]]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_the_model_without_a_head_reads_checkpoints_with_and_without_one(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    ids = distinct_ids(1, 6)
    with torch.no_grad():
        expected = model.base_model(ids).last_hidden_state
        base = AutoModel.from_pretrained(saved(model, tmp_path / "head"))
        assert torch.equal(base(ids).last_hidden_state, expected)
        again = AutoModel.from_pretrained(saved(base, tmp_path / "bare"))
        assert torch.equal(again(ids).last_hidden_state, expected)
    bare = load_file(tmp_path / "bare" / "model.safetensors")
    assert not any(key.startswith(f"{model.base_model_prefix}.") for key in bare)


def test_a_tied_model_reads_a_bare_checkpoint_and_shares_memory(tmp_path: Path) -> None:
    model = tiny("gpt2")
    folder = saved(model.base_model, tmp_path)
    loaded = GPT2LMHeadModel.from_pretrained(folder)
    assert loaded.head.weight is loaded.transformer.tokens.weight
    ids = distinct_ids(1, 6)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_shards(tmp_path: Path) -> None:
    model = tiny("llama")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    for (key, one), (_, two) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(one, two), key


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.bfloat16),
        ({"torch_dtype": "auto"}, torch.bfloat16),
        ({"dtype": torch.float16}, torch.float16),
        ({"torch_dtype": "float16"}, torch.float16),
        ({"dtype": "float32"}, torch.float32),
    ],
)
def test_types(asked: dict[str, object], found: torch.dtype, tmp_path: Path) -> None:
    folder = saved(tiny("gpt2").to(torch.bfloat16), tmp_path)
    model = GPT2LMHeadModel.from_pretrained(folder, **asked)
    assert {parameter.dtype for parameter in model.parameters()} == {found}
    reference = load_file(folder / "model.safetensors")["transformer.wte.weight"]
    assert torch.equal(model.transformer.tokens.weight, reference.to(found))
    assert torch.get_default_dtype() == torch.float32


def test_auto_takes_the_type_of_the_files_where_the_config_names_none(tmp_path: Path) -> None:
    folder = saved(tiny("gpt2").to(torch.float16), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    assert GPT2LMHeadModel.from_pretrained(folder, dtype="auto").dtype == torch.float16


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 2)
    tensors["model.layers.0.surprise"] = torch.zeros(1)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)  # of old versions: dropped
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        LlamaForCausalLM.from_pretrained(folder)
    message = str(caught.value)
    for name in ("layers.1.self_attn.k_proj", "layers.0.mlp.up_proj.weight", "[3, 2]", "[40, 32]", "surprise"):
        assert name in message
    assert "inv_freq" not in message


def test_arguments_that_cannot_work_are_refused(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    for arguments, message in [
        ({"dtype": "float99"}, "float99"),
        ({"dtype": torch.int8}, "int8"),
        ({"dtype": "float16", "torch_dtype": "float32"}, "same argument"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2"),
        ({"device_map": "nowhere"}, "nowhere"),
        ({"device_map": {"a": 0, "b": 1}}, "splits"),
        ({"config": "gpt2"}, "config object"),
        ({"unheard_of": 1}, "LlamaConfig has no field 'unheard_of', and from_pretrained\\(\\) no such argument"),
        ({"use_safetensor": True}, "Did you mean 'use_safetensors'"),
        ({"use_safetensors": "yes"}, "use_safetensors='yes' must be True or False"),
        ({"load_in_8bit": True}, "quantization='int8' is not for classes of PyTorch. AutoModelForCausalLM"),
        ({"quantization": "int3"}, "quantization='int3' is not available. Use 'int8' or 'int4'"),
        ({"quantization": "int8", "load_in_4bit": True}, "quantization and load_in_4bit ask for int8 and int4"),
        ({"quantization_config": {}}, "quantization_config={} is not available. Use quantization='int8'"),
        ({"output_loading_info": True}, "output_loading_info=True is not available"),
        ({"state_dict": {}}, "state_dict={} is not available. .*load_state_dict"),
        ({"config": tiny("llama").config, "vocab_size": 5}, "vocab_size"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            LlamaForCausalLM.from_pretrained(folder, **arguments)
    with pytest.raises((ArgumentError, ConfigError), match="llama"):
        GPT2LMHeadModel.from_pretrained(folder)
    with pytest.raises(TypeError, match="unexpected"):
        tiny("llama").save_pretrained(tmp_path, shards=3)
    with pytest.raises(ArgumentError, match="safe_serialization"):
        tiny("llama").save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(TypeError, match="from_pretrained"):
        AutoModel()
    with pytest.raises(ArgumentError, match="'org/name' is a str"):
        AutoModelForCausalLM.from_config("org/name")
    with pytest.raises(ArgumentError, match="The name is a NoneType"):
        AutoModelForCausalLM.from_pretrained(None)
    with pytest.raises(ArgumentError, match="new_num_tokens is a str"):
        tiny("llama").resize_token_embeddings("5")


def test_arguments_that_ask_for_nothing_are_taken(tmp_path: Path) -> None:
    model = tiny("llama")
    loaded = AutoModelForCausalLM.from_pretrained(
        saved(model, tmp_path),
        use_safetensors=True,
        quantization_config=None,
        load_in_4bit=False,
        variant=None,
        output_loading_info=False,
        max_memory=None,
    )
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert loaded.name_or_path == loaded.config._name_or_path == str(tmp_path)


def test_only_safetensors_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(folder, use_safetensors=False)
    with pytest.raises(CheckpointError, match=r"use_safetensors=True, but .* has only pytorch_model\.bin"):
        LlamaForCausalLM.from_pretrained(folder, use_safetensors=True)


def test_code_in_a_folder_is_never_wanted(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    LlamaForCausalLM.from_pretrained(folder, trust_remote_code=True)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArgumentError, match="trust_remote_code"):
        LlamaForCausalLM.from_pretrained(folder, trust_remote_code=True)
    LlamaForCausalLM.from_pretrained(folder)


def test_fields_of_the_config_can_be_overridden(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    ids = distinct_ids(1, 6)
    loaded = LlamaForCausalLM.from_pretrained(folder, rope_theta=100.0, output_hidden_states=True)
    assert loaded.config.rope_theta == 100.0
    assert len(loaded(ids).hidden_states) == 3
    assert not torch.allclose(loaded(ids).logits, tiny("llama")(ids).logits)


def test_a_config_for_an_absurd_model_takes_no_memory(tmp_path: Path) -> None:
    folder = saved(tiny("gpt2"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = 2**25  # 4 GB
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="wte"):
        GPT2LMHeadModel.from_pretrained(folder)


def test_random_models_follow_the_seed_and_the_familys_habits() -> None:
    config = tiny("gpt2", n_embd=64, n_inner=256, n_layer=8, initializer_range=0.1).config
    torch.manual_seed(3)
    one = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(3)
    two = GPT2LMHeadModel(config)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    block = one.transformer.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.1 / 4, rel=0.1)
    assert block.mlp_norm.weight.eq(1).all()
    assert not block.mlp.down.bias.any()
    half = AutoModelForCausalLM.from_config(config, torch_dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    with pytest.raises(TypeError, match="unexpected"):
        AutoModelForCausalLM.from_config(config, revision="main")


def test_loading_imports_no_symbolic_mathematics(tmp_path: Path) -> None:
    """Building on the meta device the obvious way imports sympy, which costs more time than reading GPT-2."""
    folder = saved(tiny("doge"), tmp_path)
    code = (
        "import sys, torch; from loquent.torch.classes import AutoModelForCausalLM as A; "
        f"A.from_pretrained({str(folder)!r}); sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_generation_settings_come_along(tmp_path: Path) -> None:
    model = tiny("llama")
    model.generation_config.temperature = 0.3
    model.generation_config.do_sample = True
    loaded = LlamaForCausalLM.from_pretrained(saved(model, tmp_path))
    assert loaded.generation_config.temperature == 0.3
    assert LlamaModel(model.config).can_generate() is False
    assert loaded.can_generate() is True
