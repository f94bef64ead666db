"""Training: gradients are those of transformers, whatever of caching, checkpointing and padding is on."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, copy_weights, distinct_ids, pair, tiny

from loquent.errors import ArgumentError


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_transformers(name: str) -> None:
    ours, theirs = pair(name)
    ids = distinct_ids(2, 12)
    labels = ids.clone()
    labels[0, :4] = -100
    own_loss, their_loss = ours(ids, labels=labels).loss, theirs(ids, labels=labels).loss
    assert own_loss.item() == pytest.approx(their_loss.item(), abs=1e-5)
    own_loss.backward()
    their_loss.backward()
    expected = tiny(name)
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters() if parameter.grad is not None}
    if theirs.config.tie_word_embeddings:
        gradients.pop("lm_head.weight", None)
    copy_weights(gradients, expected)
    for (key, parameter), (_, wanted) in zip(ours.named_parameters(), expected.named_parameters()):
        assert parameter.grad is not None, key
        assert torch.allclose(parameter.grad, wanted, atol=2e-5, rtol=1e-3), key


@pytest.mark.parametrize("name", ["llama", "doge-keep"])
def test_checkpointing_and_caching_change_no_gradient(name: str) -> None:
    model = tiny(name).train()
    ids = distinct_ids(2, 10)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0

    def gradients(**arguments: object) -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, attention_mask=mask, labels=ids, **arguments).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    plain = gradients()
    cached = gradients(use_cache=True)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    checkpointed = gradients(use_cache=True)
    for one, two, three in zip(plain, cached, checkpointed, strict=True):
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(three, one)


def test_gradients_reach_new_tokens_behind_a_cache() -> None:
    model = tiny("llama")
    ids = distinct_ids(1, 8)
    with torch.no_grad():
        cache = model(ids[:, :5]).past_key_values
    embeds = model.get_input_embeddings()(ids[:, 5:]).detach().requires_grad_(True)
    output = model(inputs_embeds=embeds, past_key_values=cache).logits[0, -1, 3]
    output.backward()
    found = embeds.grad.clone()
    whole = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    model(inputs_embeds=whole).logits[0, -1, 3].backward()
    torch.testing.assert_close(found, whole.grad[:, 5:], atol=1e-5, rtol=1e-4)


def test_dropout_acts_in_training_alone() -> None:
    model = tiny("gpt2", resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    ids = distinct_ids(1, 8)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits)


def test_num_items_in_batch_divides_the_sum() -> None:
    model = tiny("llama")
    ids = distinct_ids(2, 6)
    mean = model(ids, labels=ids).loss
    assert model(ids, labels=ids, num_items_in_batch=20).loss.item() == pytest.approx(mean.item() * 10 / 20)
    assert model(ids, labels=ids, num_items_in_batch=torch.tensor(20)).loss.item() == pytest.approx(mean.item() / 2)


def test_loss_leaves_padding_out() -> None:
    model = tiny("llama")
    ids = distinct_ids(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    labels = ids.masked_fill(mask == 0, -100)
    losses = [model(ids[:1], labels=ids[:1]).loss * 5, model(ids[1:, 2:], labels=ids[1:, 2:]).loss * 3]
    assert model(ids, attention_mask=mask, labels=labels).loss.item() == pytest.approx(sum(losses).item() / 8, abs=1e-5)


def test_unknown_checkpointing_settings_are_refused() -> None:
    with pytest.raises(ArgumentError, match="speed"):
        tiny("llama").gradient_checkpointing_enable({"speed": 9})


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_dropout_can_be_switched_off_in_the_modules(name: str) -> None:
    dropout = {
        "llama": {"attention_dropout": 0.5},
        "gpt2": dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5),
    }
    model, ids = tiny(name, **dropout[name]), distinct_ids(1, 8)
    expected = model(ids).logits
    assert not torch.equal(model.train()(ids).logits, expected)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert torch.equal(model(ids).logits, expected)
