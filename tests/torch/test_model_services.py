"""What models do besides computing: sizes, embeddings, printing, copying, and records of outputs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tiny_models import ALL, VOCABULARY, distinct_ids, oracle, tiny
from torch import nn

from loquent.errors import ArgumentError
from loquent.torch.classes import GPT2Model, LlamaForCausalLM
from loquent.torch.outputs import CausalLMOutputWithPast


@pytest.mark.parametrize("name", ALL)
def test_numbers_of_parameters_are_those_of_transformers(name: str) -> None:
    ours, theirs = tiny(name), oracle(name)
    assert ours.num_parameters() == theirs.num_parameters()
    assert ours.num_parameters(exclude_embeddings=True) == theirs.num_parameters(exclude_embeddings=True)
    ours.get_input_embeddings().weight.requires_grad_(False)
    assert ours.num_parameters(only_trainable=True) < ours.num_parameters()
    assert ours.get_memory_footprint() == 4 * ours.num_parameters()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_resizing_keeps_the_old_tokens(name: str) -> None:
    model = tiny(name)
    ids = distinct_ids(1, 7)
    before = model(ids).logits
    assert model.resize_token_embeddings(80).num_embeddings == 80
    assert model.config.vocab_size == model(ids).logits.shape[-1] == 80
    torch.testing.assert_close(model(ids).logits[..., :VOCABULARY], before)
    assert model(torch.tensor([[79]])).logits.isfinite().all()
    assert model.resize_token_embeddings(None, pad_to_multiple_of=64).num_embeddings == 128
    model.get_output_embeddings().weight.requires_grad_(False)
    model.resize_token_embeddings(VOCABULARY)
    assert not model.get_output_embeddings().weight.requires_grad
    torch.testing.assert_close(model(ids).logits, before)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    with pytest.raises(ArgumentError, match="at least 1"):
        model.resize_token_embeddings(0)


def test_new_tokens_start_at_the_mean_or_at_random() -> None:
    model = tiny("llama")
    mean = model.get_input_embeddings().weight.mean(0)
    model.resize_token_embeddings(VOCABULARY + 2)
    torch.testing.assert_close(model.get_input_embeddings().weight[-1], mean)
    model.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    last = model.get_input_embeddings().weight[-2:]
    assert not torch.equal(last[0], last[1])


def test_replacing_the_embedding() -> None:
    model = tiny("gpt2")
    model.set_input_embeddings(nn.Embedding.from_pretrained(torch.randn(VOCABULARY, 32)))
    assert model.head.weight is model.get_input_embeddings().weight


def test_copies_are_apart_and_equal() -> None:
    model = tiny("doge")
    ids = distinct_ids(1, 7)
    twin = copy.deepcopy(model)
    restored = pickle.loads(pickle.dumps(model))
    for other in (twin, restored):
        assert torch.equal(other(ids).logits, model(ids).logits)
    with torch.no_grad():
        twin.head.weight.zero_()
    assert model(ids).logits.any()


def test_a_config_of_another_family_is_refused() -> None:
    with pytest.raises(ArgumentError, match="GPT2Config"):
        GPT2Model(tiny("llama").config)


def test_state_dicts_have_one_vocabulary_for_all_families() -> None:
    for name in ALL:
        keys = tiny(name).base_model.state_dict()
        assert {"tokens.weight", "blocks.1.attention.qkv.weight", "norm.weight"} <= keys.keys()


def test_models_work_under_inference_mode_and_on_other_types() -> None:
    ids = distinct_ids(1, 7)
    for name in ALL:
        model = tiny(name)
        with torch.inference_mode():
            expected = model(ids).logits
        for dtype in (torch.bfloat16, torch.float64):
            found = tiny(name).to(dtype)(ids)
            assert found.logits.dtype == dtype
            if dtype == torch.float64:
                torch.testing.assert_close(found.logits.float(), expected, atol=3e-5, rtol=1e-3)


def test_a_model_made_under_inference_mode_generates_rows() -> None:
    with torch.inference_mode():
        model = LlamaForCausalLM(tiny("llama").config).eval()
        assert model(distinct_ids(1, 4)).logits.shape == (1, 4, VOCABULARY)


def test_records_are_tuples_dictionaries_and_attributes() -> None:
    record = CausalLMOutputWithPast(logits=torch.ones(2))
    assert list(record) == ["logits"]
    assert record[0] is record["logits"] is record.logits
    assert record.to_tuple() == (record.logits,)
    record.loss = torch.zeros(())
    assert record[0] is record.loss
    record["logits"] = None
    assert record.logits is None
    assert record.to_tuple() == (record.loss,)
    with pytest.raises(TypeError, match="fixed"):
        del record["loss"]
    again = pickle.loads(pickle.dumps(record))
    assert torch.equal(again.loss, record.loss)
    mapped = torch.utils._pytree.tree_map(lambda tensor: tensor + 1, record)
    assert isinstance(mapped, CausalLMOutputWithPast)
    assert mapped.loss == 1
