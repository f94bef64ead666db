"""LoRA adapters give what PEFT gives on transformers' models: outputs, gradients, merged weights, files."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft_models import FAMILIES, IDS, adapted_pair, gradients, ours_with, randomize_adapters, theirs_with
from safetensors.torch import load_file
from tiny_models import pair, tiny

from loquent import AutoModelForCausalLM, LoraConfig, add_lora, save_adapter
from loquent.errors import ArgumentError, CheckpointError
from loquent.torch.adapters.layer import AdaptedLinear

WITH_DEFAULT = [name for name in FAMILIES if name != "doge"]  # where PEFT knows what to adapt
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(name, wanted) for name in FAMILIES for wanted in ("all-linear", None) if wanted or name in WITH_DEFAULT],
)
def test_an_adapter_of_peft_gives_its_logits(name: str, wanted: str | None, tmp_path: Path) -> None:
    ours, theirs = adapted_pair(name, tmp_path, target_modules=wanted)
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    ours.disable_adapters()
    assert (logits(ours) - logits(theirs)).abs().max() > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_our_adapter_gives_its_logits_in_peft(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name)
    ours_with(ours)
    save_adapter(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_what_is_adapted_without_targets_is_what_peft_adapts(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name)
    theirs_with(theirs).save_pretrained(tmp_path / "theirs")
    add_lora(ours, LoraConfig(r=4))
    save_adapter(ours, tmp_path / "ours")
    files = [load_file(tmp_path / whose / "adapter_model.safetensors") for whose in ("ours", "theirs")]
    assert {name: tensor.shape for name, tensor in files[0].items()} == {
        name: tensor.shape for name, tensor in files[1].items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_steps_gradients_are_those_of_peft(name: str, tmp_path: Path) -> None:
    ours, theirs = adapted_pair(name, tmp_path, target_modules="all-linear")
    our_loss = ours(IDS, labels=IDS).loss
    their_loss = theirs(input_ids=IDS, labels=IDS).loss
    torch.testing.assert_close(our_loss, their_loss, **CLOSE)
    our_loss.backward()
    their_loss.backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    found = gradients(ours)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], **CLOSE)
    trained = {name for name, parameter in ours.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj", "down_proj"], "use_rslora": True},
        {"target_modules": "all-linear", "rank_pattern": {"down_proj": 2, r".*0\.self_attn.q_proj": 7}},
        {"target_modules": "all-linear", "alpha_pattern": {"layers.1.mlp.up_proj": 3, "o_proj": 5}, "r": 3},
        {"target_modules": ["v_proj", "gate_proj"], "layers_to_transform": [1]},
        {"target_modules": ["v_proj", "gate_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
        {"target_modules": r".*layers\.0\..*(k|up)_proj"},
        {"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj", "k_proj"]},
        {"target_modules": "all-linear", "exclude_modules": r".*\.1\..*"},
        {"target_modules": ["lm_head", "o_proj"]},
    ],
    ids=lambda fields: "-".join(fields)[:60],
)
def test_every_way_to_say_what_is_adapted_means_what_it_means_to_peft(fields: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = pair("llama")
    ours_with(ours, **fields)
    save_adapter(ours, tmp_path / "ours")
    wrapped = theirs_with(theirs, **fields)
    wrapped.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    found, expected = (load_file(tmp_path / whose / "adapter_model.safetensors") for whose in ("ours", "theirs"))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    ours.delete_adapter("default")
    ours.load_adapter(tmp_path / "theirs")
    torch.testing.assert_close(logits(ours), logits(wrapped.eval()), **CLOSE)
    wrapped.load_adapter(tmp_path / "ours", "ours")
    wrapped.set_adapter("ours")
    ours.load_adapter(tmp_path / "ours", "again")
    torch.testing.assert_close(logits(ours), logits(wrapped.eval()), **CLOSE)


def test_dropout_is_on_the_inputs_of_a(tmp_path: Path) -> None:
    ours, theirs = adapted_pair("gpt_neo", tmp_path, target_modules=r".*0.*c_proj", lora_dropout=0.4)
    still = logits(ours)
    ours.train()
    theirs.train()
    assert (logits(ours) - still).abs().max() > 1e-3
    for model in (ours, theirs):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout) and module.p != 0.4:
                module.p = 0.0
    torch.manual_seed(5)
    expected = logits(theirs)
    torch.manual_seed(5)
    torch.testing.assert_close(logits(ours), expected, **CLOSE)


@pytest.mark.parametrize("name", FAMILIES)
def test_merged_is_what_was_live_and_loads_in_transformers(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name)
    before = {key: weight.clone() for key, weight in ours.state_dict().items()}
    ours_with(ours)
    live = logits(ours)
    done = ours.merge_adapter()
    assert done.lost < 1e-6
    assert done.layers == sum(isinstance(module, AdaptedLinear) for module in ours.modules())
    torch.testing.assert_close(logits(ours), live, **CLOSE)
    ours.save_pretrained(tmp_path)
    saved = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(logits(saved), live, **CLOSE)
    ours.unmerge_adapter()
    assert torch.equal(logits(ours), live)
    ours.delete_adapter("default")
    after = ours.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], weight) for key, weight in before.items())


def test_merging_into_a_half_type_says_what_it_rounds_and_is_undone_exactly() -> None:
    model = ours_with(tiny("llama").bfloat16(), r=8)
    assert {part.dtype for name, part in model.named_parameters() if "lora_" in name} == {torch.float32}
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    live = logits(model)
    assert live.dtype == torch.bfloat16
    done = model.merge_adapter()
    assert 1e-4 < done.lost < 0.05
    torch.testing.assert_close(logits(model), live, atol=0.3, rtol=0.1)
    model.unmerge_adapter()
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
    # An update a thousand times smaller than the weights' steps is gone.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-5)
    assert model.merge_adapter().lost > 0.9


def test_several_adapters_add_up_as_in_peft(tmp_path: Path) -> None:
    ours, theirs = adapted_pair("llama", tmp_path, target_modules=["q_proj", "down_proj"])
    ours.delete_adapter("default")
    theirs.add_adapter("two", peft.LoraConfig(r=3, lora_alpha=9, target_modules=["q_proj", "v_proj"]))
    randomize_adapters(theirs)
    theirs.save_pretrained(tmp_path)
    ours.load_adapter(tmp_path, "one")
    ours.load_adapter(tmp_path / "two", "two")
    for names in (["one"], ["two"], ["one", "two"]):
        ours.set_adapter(names)
        assert ours.active_adapters() == names
        theirs.base_model.set_adapter(["default" if name == "one" else name for name in names])
        torch.testing.assert_close(logits(ours), logits(theirs.eval()), **CLOSE)
    ours.merge_adapter(["one", "two"])
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    ours.unmerge_adapter()
    ours.delete_adapter("two")
    assert ours.active_adapters() == ["one"]
    theirs.base_model.set_adapter(["default"])
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    with theirs.disable_adapter():
        ours.disable_adapters()
        torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    ours.enable_adapters()
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)


def test_a_new_adapter_changes_nothing_and_follows_the_seed() -> None:
    model = tiny("gpt2")
    before, trainable = logits(model), [p for p in model.parameters() if p.requires_grad]
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        add_lora(model, LoraConfig(r=4, target_modules="all-linear"))
        assert torch.equal(logits(model), before)
        drawn.append({name: p.detach().clone() for name, p in model.named_parameters() if "lora_A" in name})
        assert {name for name, p in model.named_parameters() if p.requires_grad} == {
            name for name, _ in model.named_parameters() if "lora_" in name
        }
        model.delete_adapter("default")
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not any(torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])
    # Kaiming uniform with PEFT's slope: 1 / sqrt(inputs).
    widest = max(float(a.abs().max()) * a.shape[1] ** 0.5 for a in drawn[0].values())
    assert 0.9 < widest <= 1
    assert [p for p in model.parameters() if p.requires_grad] == trainable
    assert model.peft_config == {}


def test_a_new_adapter_acts_though_others_were_switched_off() -> None:
    model = ours_with(tiny("llama"))
    model.disable_adapters()
    before = logits(model)
    ours_with(model, "new", seed=2)
    assert (logits(model) - before).abs().max() > 0.1


def test_an_adapter_loaded_for_inference_is_not_trained(tmp_path: Path) -> None:
    model = ours_with(tiny("llama"))
    model.save_adapter(tmp_path)
    model.delete_adapter("default")
    model.load_adapter(tmp_path)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.load_adapter(tmp_path, "trained", is_trainable=True)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"trained"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_adapters_of_their_own(copied: Any) -> None:
    model = ours_with(tiny("gpt_neox"))
    live = logits(model)
    twin = copied(model)
    model.merge_and_unload()
    assert torch.equal(logits(twin), live)
    twin.merge_adapter()
    twin.unmerge_adapter()
    assert torch.equal(logits(twin), live)
    assert twin.active_adapters() == ["default"]


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = ours_with(tiny("llama")).train()
    model(IDS, labels=IDS).loss.backward()
    expected = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(IDS, labels=IDS).loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name])


def test_autocast_computes_updates_in_the_half_type_and_gradients_in_float32() -> None:
    model = ours_with(tiny("llama"), target_modules=["q_proj", "v_proj", "down_proj"])
    exact = model(IDS, labels=IDS, use_cache=False)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(IDS, labels=IDS, use_cache=False)
        with torch.no_grad():
            # Attention with gradients and without rounds to bfloat16 at other places.
            torch.testing.assert_close(model(IDS, use_cache=False).logits, output.logits, atol=0.15, rtol=0.05)
    assert output.logits.dtype == torch.bfloat16
    assert 1e-4 < (output.logits - exact.logits).abs().mean() < 0.05
    output.loss.backward()
    assert {gradient.dtype for gradient in gradients(model).values()} == {torch.float32}


def test_training_reaches_what_full_training_of_the_update_would() -> None:
    model, losses = tiny("doge"), []
    torch.manual_seed(0)
    add_lora(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02, weight_decay=0)
    for _ in range(30):
        loss = model(IDS, labels=IDS).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_twenty_steps_lose_what_they_lose_in_peft(name: str, tmp_path: Path) -> None:
    ours, theirs = adapted_pair(name, tmp_path, target_modules="all-linear", use_rslora=True)
    losses: list[list[float]] = []
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        losses.append([])
        for step in range(20):
            ids = IDS.roll(step, 1)
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    torch.testing.assert_close(*map(torch.tensor, losses), atol=1e-4, rtol=1e-4)
    assert losses[0][-1] < losses[0][0]


def test_a_model_without_a_head_takes_the_adapter_of_one_with_it(tmp_path: Path) -> None:
    model = ours_with(tiny("gpt2"))
    model.save_adapter(tmp_path / "adapter")
    base = copy.deepcopy(model).merge_and_unload().base_model
    model.delete_adapter("default")
    headless = model.base_model
    headless.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(headless(IDS).last_hidden_state, base(IDS).last_hidden_state, **CLOSE)
    headless.save_adapter(tmp_path / "again")
    headless.delete_adapter("default")
    model.load_adapter(tmp_path / "again")
    torch.testing.assert_close(model.base_model(IDS).last_hidden_state, base(IDS).last_hidden_state, **CLOSE)


def test_hooks_and_references_survive() -> None:
    model, seen = tiny("llama"), []
    layer = model.base_model.blocks[0].mlp.down
    layer.register_forward_hook(lambda module, args, output: seen.append(1))
    ours_with(model)
    assert model.base_model.blocks[0].mlp.down is layer
    logits(model)
    model.merge_and_unload()
    logits(model)
    assert len(seen) == 2
    assert type(layer) is torch.nn.Linear


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"target_modules": ["q_prj", "v_proj"]}, r"'q_prj', which no linear layer .* k_proj, .*Did you mean 'q_proj'\?"),
    ({"target_modules": ["embed_tokens"]}, "'embed_tokens', which no linear layer"),
    ({"target_modules": "q_proj"}, "leaves no linear layer of the model. Their names are such as 'model.layers.0"),
    ({"target_modules": ["q_proj"], "layers_to_transform": [7]}, r"layers_to_transform=\(7,\) leaves no linear layer"),
    ({"modules_to_save": ["lm_haed"]}, r"'lm_haed', which no module with weights .* Did you mean 'lm_head'\?"),
    (
        {"modules_to_save": ["k_proj"]},
        r"'k_proj', whose weights are some rows of blocks\.0\.attention",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_adapted_is_refused_and_nothing_is_changed(fields: dict[str, Any], message: str) -> None:
    model = tiny("llama")
    with pytest.raises(ArgumentError, match=message):
        add_lora(model, LoraConfig(**fields))
    assert model.peft_config == {}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, AdaptedLinear) for module in model.modules())


def test_what_cannot_be_done_says_what_can() -> None:
    model = tiny("gpt2")
    for call in (model.merge_adapter, model.disable_adapters, model.active_adapters, model.merge_and_unload):
        with pytest.raises(ArgumentError, match=r"no adapters\. add_lora"):
            call()
    with pytest.raises(ArgumentError, match=r"config is a dict\. Pass a loquent\.LoraConfig"):
        add_lora(model, {"r": 8})  # type: ignore[arg-type]
    for name in ("", "a.b", "keys", "two words", 3):
        with pytest.raises(ArgumentError, match=r"adapter_name=.* cannot be one"):
            add_lora(model, LoraConfig(), name)  # type: ignore[arg-type]
    add_lora(model, LoraConfig())
    with pytest.raises(ArgumentError, match="'default' is an adapter of the model already"):
        add_lora(model, LoraConfig())
    with pytest.raises(ArgumentError, match=r"'defualt' is no adapter .* Did you mean 'default'\?"):
        model.set_adapter("defualt")
    with pytest.raises(ArgumentError, match="No adapter is merged"):
        model.unmerge_adapter()
    with pytest.raises(ArgumentError, match="names no adapter"):
        model.set_adapter([])
    model.merge_adapter()
    for refused in (
        model.merge_adapter,
        model.disable_adapters,
        lambda: model.set_adapter("default"),
        lambda: model.delete_adapter("default"),
        lambda: add_lora(model, LoraConfig(), "other"),
    ):
        with pytest.raises(ArgumentError, match=r"default is merged into the weights\. Call unmerge_adapter"):
            refused()


def test_a_tied_head_can_have_an_adapter_but_not_be_merged() -> None:
    model = ours_with(tiny("gpt2"), target_modules=["lm_head"])
    ours_with(model, "other", target_modules=["c_attn"])
    model.set_adapter("default")
    live = logits(model)
    with pytest.raises(ArgumentError, match="shares its memory with the token embedding"):
        model.merge_adapter()
    assert torch.equal(logits(model), live)
    with pytest.raises(ArgumentError, match="An adapter has head, made for the vocabulary"):
        model.resize_token_embeddings(80)
    model.merge_adapter("other")


def test_a_replaced_layer_is_no_linear_layer(tmp_path: Path) -> None:
    model = ours_with(tiny("llama"))
    model.save_adapter(tmp_path)
    model.delete_adapter("default")
    for block in model.base_model.blocks:
        block.mlp.down = torch.nn.Sequential(block.mlp.down)
    with pytest.raises(ArgumentError, match="'down_proj', which no linear layer"):
        add_lora(model, LoraConfig(target_modules=["down_proj"]))
    with pytest.raises(CheckpointError, match=r"4 unexpected:\n.*layers.0.mlp.down_proj.lora_A"):
        model.load_adapter(tmp_path)


def test_the_base_of_transformers_methods_are_there() -> None:
    methods = {"add_adapter", "load_adapter", "set_adapter", "disable_adapters", "enable_adapters", "active_adapters"}
    theirs = set(dir(transformers.PreTrainedModel))
    assert methods | {"delete_adapter"} <= theirs & set(dir(AutoModelForCausalLM._classes["gpt2"]))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("llama", ["lm_head", "embed_tokens"]),
        ("gpt_neox", ["final_layer_norm", "mlp.dense_4h_to_h"]),
        ("gpt2", ["ln_f", "c_fc"]),
    ],
)
def test_modules_that_an_adapter_has_whole(name: str, modules: list[str], tmp_path: Path) -> None:
    ours, theirs = pair(name)
    untouched = logits(ours)
    wrapped = theirs_with(theirs, target_modules="all-linear", modules_to_save=modules)
    with torch.no_grad():
        for key, parameter in wrapped.named_parameters():
            if "modules_to_save" in key:
                parameter.mul_(1.1).add_(0.02)
    wrapped.save_pretrained(tmp_path / "theirs")
    ours.load_adapter(tmp_path / "theirs", is_trainable=True)
    live = logits(ours)
    torch.testing.assert_close(live, logits(wrapped.eval()), **CLOSE)
    ours.disable_adapters()
    assert torch.equal(logits(ours), untouched)
    ours.enable_adapters()
    assert torch.equal(logits(ours), live)
    twin = copy.deepcopy(ours)

    ours(IDS, labels=IDS).loss.backward()
    wrapped(input_ids=IDS, labels=IDS).loss.backward()
    expected = {key: p.grad for key, p in wrapped.named_parameters() if p.requires_grad}
    found = gradients(ours)
    assert ours._adapters
    for whole, parameter in ours._adapters.wholes["default"].items():
        module, _, kind = f"base_model.model.{whole.name}".rpartition(".")
        assert parameter.grad is not None
        found[f"{module}.modules_to_save.default.{kind}"] = whole.layout.to_theirs(parameter.grad)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], **CLOSE)

    ours.save_adapter(tmp_path / "ours")
    files = [load_file(tmp_path / whose / "adapter_model.safetensors") for whose in ("ours", "theirs")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())
    ours.merge_adapter()
    torch.testing.assert_close(logits(ours), live, **CLOSE)
    ours.unmerge_adapter()
    assert torch.equal(logits(ours), live)
    ours.delete_adapter("default")
    assert torch.equal(logits(ours), untouched)
    assert all(parameter.requires_grad for parameter in ours.parameters())

    assert torch.equal(logits(twin), live)
    twin.double().float().merge_and_unload()
    torch.testing.assert_close(logits(twin), live, **CLOSE)
    assert all(parameter.requires_grad for parameter in twin.parameters())
    twin.save_pretrained(tmp_path / "merged")
    merged = type(theirs).from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    torch.testing.assert_close(logits(merged), live, **CLOSE)


def test_a_module_cannot_be_whole_in_two_active_adapters_nor_resized_nor_tied() -> None:
    model = tiny("llama")
    for name in ("one", "two"):
        add_lora(model, LoraConfig(modules_to_save=("lm_head",)), name)
    with pytest.raises(ArgumentError, match=r"several have head\.weight whole"):
        model.set_adapter(["one", "two"])
    assert model.active_adapters() == ["two"]
    with pytest.raises(ArgumentError, match=r"An adapter has head\.weight, made for the vocabulary"):
        model.resize_token_embeddings(80)
    model.delete_adapter(["one", "two"])
    assert model.resize_token_embeddings(80).num_embeddings == 80
    with pytest.raises(ArgumentError, match="share their memory"):
        add_lora(tiny("gpt2"), LoraConfig(modules_to_save=("lm_head",)))


def test_what_is_aside_follows_the_models_type() -> None:
    model = tiny("llama")
    add_lora(model, LoraConfig(modules_to_save=("lm_head",)))
    model.bfloat16().disable_adapters()
    assert model.head.weight.dtype == torch.bfloat16
    assert logits(model).dtype == torch.bfloat16
