"""Torch models generate natively over their own memory: changes are seen, and what no plan knows runs in torch."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from loquent.generation import engine_of
from loquent.native import why_unavailable
from properties.models import EVERY, VOCABULARY, tiny

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PROMPT = (torch.arange(24)[None] * 7) % VOCABULARY


@pytest.fixture
def model() -> Any:
    """A model of the test's own."""
    return copy.deepcopy(tiny("llama"))


def continued(model: Any) -> list[int]:
    ids: list[int] = model.generate(PROMPT, max_new_tokens=12, do_sample=False)[0, PROMPT.shape[1] :].tolist()
    return ids


@torch.no_grad()
def argmaxes(model: Any, new: list[int]) -> list[int]:
    """What forward() says follows each token of the continuation."""
    whole = torch.cat([PROMPT, torch.tensor([new])], 1)
    ids: list[int] = model(whole[:, :-1]).logits[0, PROMPT.shape[1] - 1 :].argmax(-1).tolist()
    return ids


def assert_native(model: Any) -> None:
    assert model.describe_backend().startswith("native"), model.describe_backend()


def test_the_description_says_what_runs(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from loquent.native import core

    threads = core().threads()
    inside = f"{core().instruction_set()}, float32 in place, {threads} thread{'s' if threads > 1 else ''}"
    assert model.describe_backend() == f"native ({inside})"
    model.pack_weights = True
    assert model.describe_backend() == f"native ({inside.replace(' in place', '')})"
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    assert model.describe_backend() == "torch (float32 on cpu; LOQUENT_NATIVE=0)"


def trained(model: Any) -> None:
    model(PROMPT, labels=PROMPT).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()


def trained_small_ones(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.linspace(-1, 1, len(parameter)))


def changed_through_data(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.3)


def one_number_through_data(model: Any) -> None:
    model.base_model.blocks[0].mlp.down.weight.data[0, 1] = 400.0


def loaded(model: Any) -> None:
    model.load_state_dict({name: tensor.flip(0) for name, tensor in model.state_dict().items()})


def assigned(model: Any) -> None:
    state = {name: tensor.flip(0).clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def replaced_data(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.flip(0).clone()


def replaced_head(model: Any) -> None:
    model.head.weight = nn.Parameter(model.head.weight.detach().roll(1, 0))


@pytest.mark.parametrize("packed", [False, True], ids=["in place", "packed"])
@pytest.mark.parametrize(
    "change",
    [
        trained,
        trained_small_ones,
        changed_through_data,
        one_number_through_data,
        loaded,
        assigned,
        replaced_data,
        replaced_head,
    ],
)
def test_changes_are_seen(model: Any, change: Callable[[Any], None], packed: bool) -> None:
    model.pack_weights = packed
    before = continued(model)
    assert before == argmaxes(model, before)
    change(model)
    after = continued(model)
    assert after == argmaxes(model, after)
    assert after != before
    assert_native(model)


def test_training_between_calls_keeps_the_engine_and_drops_what_it_remembers(model: Any) -> None:
    continued(model)
    engine = engine_of(model)
    assert engine.space.remembered
    trained(model)
    engine.refresh()
    assert not engine.space.remembered
    assert engine_of(model) is engine
    engine.refresh()
    continued(model)
    engine.refresh()
    assert engine.space.remembered


def hooked(model: Any) -> None:
    model.base_model.blocks[0].register_forward_hook(lambda module, args, output: output * 0.5)


def hooked_before(model: Any) -> None:
    model.base_model.blocks[1].mlp.down.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def patched(model: Any) -> None:
    block = model.base_model.blocks[0]
    forward = block.forward
    block.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


def replaced(model: Any) -> None:
    model.base_model.blocks[1].mlp.down = Doubled(model.base_model.blocks[1].mlp.down)


def shortened(model: Any) -> None:
    del model.base_model.blocks[1]


def parametrized(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.head)
    model.head.parametrizations.weight.original0.data.neg_()


def not_contiguous(model: Any) -> None:
    for layer in (model.head, model.base_model.blocks[0].mlp.down):
        layer.weight.data = layer.weight.data.T.contiguous().T.mul(1.5)


def one_row_for_all(model: Any) -> None:
    weight = model.base_model.blocks[0].mlp.down.weight
    weight.data = weight.data[:1].expand(weight.shape)


def made_in_inference_mode(model: Any) -> None:
    with torch.inference_mode():
        model.head.weight = nn.Parameter(model.head.weight.flip(0))


def doubled(model: Any) -> None:
    model.double()
    model.head.weight.data.mul_(-1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (hooked, "there are hooks on model.blocks.0"),
        (hooked_before, "there are hooks on model.blocks.1.mlp.down"),
        (patched, "model.blocks.0 is replaced or patched"),
        (replaced, "model.blocks.1.mlp.down is replaced or patched"),
        (shortened, "its layers are not its config's"),
        (parametrized, "head is replaced or patched"),
        (not_contiguous, "its weights are not laid out row by row"),
        (one_row_for_all, "its weights are not laid out row by row"),
        (made_in_inference_mode, "its weights are inference tensors"),
        (doubled, "its weights are float64"),
    ],
)
def test_what_a_plan_does_not_know_runs_in_torch(model: Any, change: Callable[[Any], None], reason: str) -> None:
    before = continued(model)
    change(model)
    after = continued(model)
    assert reason in model.describe_backend()
    assert after == argmaxes(model, after)
    assert after != before


def test_a_removed_hook_brings_the_plan_back(model: Any) -> None:
    before = continued(model)
    handle = model.head.register_forward_hook(lambda module, args, output: -output)
    assert continued(model) != before
    handle.remove()
    assert continued(model) == before
    assert_native(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        assert "hooks on all modules" in model.describe_backend()
    finally:
        handle.remove()
    assert_native(model)


def test_autocast_runs_in_torch(model: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast is on" in model.describe_backend()
    assert_native(model)


def test_training_mode_is_native_where_nothing_drops_out(model: Any) -> None:
    model.train()
    assert_native(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    assert "it is training with dropout 0.1" in model.describe_backend()
    model.eval()
    assert_native(model)


def test_only_dropout_that_is_active_counts(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    model.eval()
    model.set_input_embeddings(nn.Embedding(VOCABULARY, model.decoder.width))  # in training mode, as layers are made
    assert_native(model)
    attention = model.base_model.blocks[1].attention
    attention.train()
    attention.dropout.eval()  # only its `p` is looked at
    assert "it is training with dropout 0.1" in model.describe_backend()
    attention.eval()
    assert_native(model)
    model.base_model.blocks[0].train()
    assert "it is training with dropout 0.1" in model.describe_backend()


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_read_in_place(name: str) -> None:
    model = copy.deepcopy(tiny(name))
    for dtype in (torch.bfloat16, torch.float16):
        model.to(dtype)
        assert f"{str(dtype).removeprefix('torch.')} in place" in model.describe_backend()
        exact = copy.deepcopy(model).float()
        with torch.no_grad():
            expected = exact(PROMPT).logits[0, -1]
        engine = engine_of(model)
        store = engine.backend.open_store(4)
        for group in range(len(store.groups)):
            store.resize(group, 6)
        from loquent.engine.backend import Segment

        segment = Segment(PROMPT[0].numpy(), 0, (torch.arange(6).numpy(),) * len(store.groups), 1, 24)
        logits = engine.backend.run(store, [segment]).logits[0]
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, atol=0.15, rtol=0.05)


def test_a_head_that_is_no_longer_tied_runs_in_torch() -> None:
    model = copy.deepcopy(tiny("gpt2"))
    before = continued(model)
    assert_native(model)
    model.head.weight = nn.Parameter(-model.head.weight.detach())
    assert "its head is not tied" in model.describe_backend()
    after = continued(model)
    assert after == argmaxes(model, after)
    assert after != before


def test_a_resized_vocabulary_is_native(model: Any) -> None:
    before = continued(model)
    model.resize_token_embeddings(VOCABULARY + 5)
    assert_native(model)
    assert engine_of(model).backend.vocabulary == VOCABULARY + 5
    after = continued(model)
    assert after == argmaxes(model, after)
    model.resize_token_embeddings(VOCABULARY)
    assert continued(model) == before


def test_packed_copies_give_the_bits_of_the_memory_itself(model: Any) -> None:
    rows: list[torch.Tensor] = []

    def seen(ids: Any, scores: Any) -> Any:
        rows.append(scores.clone())
        return scores

    for packed in (False, True):
        model.pack_weights = packed
        model.generate(PROMPT, max_new_tokens=8, logits_processor=[seen])
    assert len(rows) == 16
    assert torch.equal(torch.cat(rows[:8]), torch.cat(rows[8:]))


def test_processors_and_criteria_are_given_tensors(model: Any) -> None:
    assert_native(model)
    kinds: set[type] = set()

    def processor(ids: Any, scores: Any) -> Any:
        kinds.update({type(ids), type(scores)})
        return torch.where(scores == scores.max(), float("-inf"), scores)

    def criterion(ids: Any, scores: Any) -> bool:
        kinds.add(type(ids))
        return False

    found = model.generate(PROMPT, max_new_tokens=3, logits_processor=[processor], stopping_criteria=[criterion])
    assert kinds == {torch.Tensor}
    assert found.shape == (1, PROMPT.shape[1] + 3)


def test_a_converted_model_frees_what_it_had(model: Any) -> None:
    continued(model)
    engine = weakref.ref(engine_of(model))
    model.to(torch.bfloat16)
    gc.collect()  # requests that are done refer to their tasks, and these to them
    assert engine() is None
    continued(model)
