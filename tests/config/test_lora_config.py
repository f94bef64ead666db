"""LoraConfig: PEFT's fields, names that mean what they mean there, and files that cannot do harm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import peft
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from loquent import ConfigError, LoraConfig

MODULES = [
    f"{prefix}{lists}.{layer}.{module}"
    for prefix in ("", "model.")
    for lists in ("layers", "h")
    for layer in (0, 1, 11)
    for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.c_proj", "attn.c_proj", "mlp.experts.1.up_proj")
] + ["lm_head", "score"]
ENDS = ["q_proj", "c_proj", "mlp.c_proj", "roj", "layers.0.self_attn.q_proj", "model.h.1.mlp.c_proj", "lm_head", "1"]
REGULAR = [r".*q_proj", r".*\.(0|11)\..*_proj", r"model\.layers\.1\..*", r"lm_head", r"c_proj"]
PATTERNS = ["q_proj", r".*0.*c_proj", r"^model.layers.0.self_attn.q_proj", r"layers.\d+.mlp.c_proj", "h.1.*proj"]

wanted = st.one_of(st.sampled_from(REGULAR), st.lists(st.sampled_from(ENDS), min_size=1, max_size=3))
patterns = st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 64), max_size=3)


@given(
    target_modules=wanted,
    exclude_modules=st.one_of(st.none(), wanted),
    layers_to_transform=st.one_of(st.none(), st.sampled_from([0, 11]), st.lists(st.sampled_from([0, 1, 11]))),
    layers_pattern=st.one_of(st.none(), st.just("layers"), st.lists(st.sampled_from(["h", "layers"]))),
    modules_to_save=st.one_of(st.none(), st.lists(st.sampled_from(["lm_head", "mlp", "1"]), min_size=1)),
    rank_pattern=patterns,
    alpha_pattern=patterns,
    use_rslora=st.booleans(),
)
def test_what_is_selected_and_scaled_is_what_peft_does(**fields: Any) -> None:
    if isinstance(fields["target_modules"], str):  # which PEFT refuses with these
        fields["layers_to_transform"] = fields["layers_pattern"] = None
    if fields["layers_to_transform"] is None:
        fields["layers_pattern"] = None
    ours, theirs = LoraConfig(r=8, lora_alpha=3, **fields), peft.LoraConfig(r=8, lora_alpha=3, **fields)
    for module in MODULES:
        assert ours.selects(module) == bool(check_target_module_exists(theirs, module)), module
        rank = theirs.rank_pattern.get(get_pattern_key(list(theirs.rank_pattern), module), 8)
        alpha = theirs.alpha_pattern.get(get_pattern_key(list(theirs.alpha_pattern), module), 3)
        assert ours.rank(module) == rank
        assert ours.scaling(module) == alpha / (rank**0.5 if theirs.use_rslora else rank)


def test_files_go_both_ways(tmp_path: Path) -> None:
    theirs = peft.LoraConfig(
        r=5,
        lora_alpha=7,
        lora_dropout=0.25,
        target_modules=["q_proj", "mlp.c_proj"],
        use_rslora=True,
        task_type="CAUSAL_LM",
        layers_to_transform=[0, 2],
        layers_pattern="h",
        rank_pattern={"q_proj": 2},
        alpha_pattern={"q_proj": 9},
        base_model_name_or_path="org/name",
        inference_mode=True,
    )
    theirs.save_pretrained(tmp_path)
    ours = LoraConfig.from_pretrained(tmp_path)
    for name in LoraConfig.__dataclass_fields__:
        expected = getattr(theirs, name)
        expected = tuple(sorted(expected)) if isinstance(expected, set | list) else expected
        found = getattr(ours, name)
        assert (tuple(sorted(found)) if isinstance(found, tuple) else found) == expected, name
    ours.save_pretrained(tmp_path / "again")
    again = peft.LoraConfig.from_pretrained(tmp_path / "again")
    assert {**again.to_dict(), "peft_version": None} == {**theirs.to_dict(), "peft_version": None}
    assert LoraConfig.from_pretrained(tmp_path / "again") == ours


def test_null_means_nothing_is_said() -> None:
    config = LoraConfig.from_dict(
        {"rank_pattern": None, "alpha_pattern": None, "modules_to_save": [], "loftq_config": {}}
    )
    assert config == LoraConfig(modules_to_save=())
    assert config.rank("x") == 8


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "peft_type='IA3' is not available: Loquent has LORA alone"),
    ({"use_dora": True}, "use_dora=True is not available: Loquent has plain LoRA only"),
    ({"target_parameters": ["mlp.experts"]}, r"target_parameters=\['mlp.experts'\] is not available"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ({"lora_alhpa": 3}, r"lora_alhpa=3 is not available.* Did you mean 'lora_alpha'\?"),
    ({"bias": "all"}, "bias='all' is not available: only 'none' is"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not available"),
    ({"r": 0}, "r=0 is no rank"),
    ({"r": 2**40}, "r=1099511627776 is no rank"),
    ({"r": "8"}, "r='8' is of type str, but int is expected"),
    ({"r": True}, "r=True is of type bool"),
    ({"rank_pattern": {"q_proj": 0}}, "q_proj=0 is no rank"),
    ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
    ({"lora_dropout": 1.0}, "lora_dropout=1.0 must be in 0 to 1"),
    ({"target_modules": []}, r"target_modules=\[\] names nothing"),
    ({"target_modules": "("}, r"target_modules='\(' is no regular expression"),
    ({"target_modules": [3]}, r"target_modules=\[3\] is of type list, but str \| tuple"),
    ({"alpha_pattern": {"*": 3}}, r"alpha_pattern='\*' is no regular expression"),
    ({"modules_to_save": ["a b"]}, "modules_to_save='a b' is not the name of a module"),
    ({"layers_pattern": "(a+)+"}, r"layers_pattern='\(a\+\)\+' is not the name"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraConfig.from_dict(fields)


HARMLESS = ["q_proj", "^model.layers.0.self_attn.q_proj", r".*\.layers\.\d+\.mlp.*", "layers.[0-9]+.mlp.up_proj$"]
HARMFUL = ["(a+)+$", r"(.|.)" * 40, ".*.*.*x", "a{1000}", r"(\w+\.)*x", "x" * 2000, r"(a)\1", "[a-z]+", "a?" * 30]


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_patterns_of_files_are_run_only_where_they_are_quick(field: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    for pattern in HARMLESS:
        path.write_text(json.dumps({field: {pattern: 4}}))
        before = time.perf_counter()
        assert LoraConfig.from_pretrained(tmp_path).rank("model.layers.0.self_attn.q_proj" * 8) in (4, 8)
        assert time.perf_counter() - before < 1
    for pattern in HARMFUL:
        path.write_text(json.dumps({field: {pattern: 4}}))
        with pytest.raises(ConfigError, match=r"more than names, numbers and 2 times '\.\*'"):
            LoraConfig.from_pretrained(tmp_path)
