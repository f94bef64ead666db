"""Training gives the losses of a plain PyTorch loop with the models of transformers on the same batches."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import ALL, VOCABULARY, pair
from torch.nn import functional as F

from loquent import LoraConfig
from loquent.torch.adapters import add_lora, save_adapter
from loquent.training import Examples, TrainingArguments, train
from loquent.training.data import Order, Packs

STEPS = 20


def documents(answers_only: bool) -> Examples:
    """Texts of distinct ids, or conversations in which every other run of tokens counts."""
    random = np.random.default_rng(1)
    lengths = random.integers(2, 30, 60)
    tokens = [random.permutation(VOCABULARY)[:length] for length in lengths]
    counted = [np.arange(length) % 6 >= 3 if answers_only else np.ones(length, np.bool_) for length in lengths]
    for marks in counted:
        marks[0] = False
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return Examples(np.concatenate(tokens).astype(np.uint16), np.concatenate(counted), starts)


def plain_losses(model: torch.nn.Module, examples: Examples, arguments: TrainingArguments) -> list[float]:
    """What the loop that everybody writes makes of it: one document at a time, no packing."""
    packs = Packs(examples, arguments.max_length, packing=arguments.packing)
    order = Order(len(packs), arguments.rows_per_step, arguments.seed)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    decaying = [weight for weight in trained if weight.dim() >= 2]
    groups = [{"params": decaying, "weight_decay": arguments.weight_decay}]
    groups.append({"params": [weight for weight in trained if weight.dim() < 2], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)
    losses = []
    for step in range(STEPS):
        # Four steps of warm-up, and half a cosine.
        share = (step + 1) / 4 if step < 4 else 0.5 + 0.5 * math.cos(math.pi * (step - 4) / (STEPS - 4))
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * share
        batch = packs.batch(order.batch(step))
        total = torch.zeros(())
        for ids, targets, positions in zip(batch.ids, batch.targets, batch.positions):
            for document in np.split(np.arange(len(ids)), np.flatnonzero(positions == 0)[1:]):
                labels = torch.from_numpy(targets[document])
                if (labels == -100).all():
                    continue
                logits = model(torch.from_numpy(ids[document])[None], use_cache=False).logits[0]
                total = total + F.cross_entropy(logits.float(), labels, reduction="sum")
        loss = total / batch.counted
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, arguments.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def usual(folder: Path) -> TrainingArguments:
    """Steps of two batches, with a warm-up, decay and clipping."""
    return TrainingArguments(
        folder,
        max_steps=STEPS,
        max_length=32,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=3e-3,
        weight_decay=0.1,
        warmup_steps=4,
        save_steps=0,
    )


@pytest.mark.parametrize("answers_only", [False, True], ids=["texts", "conversations"])
@pytest.mark.parametrize("name", ALL)
def test_losses_are_those_of_a_plain_loop(name: str, answers_only: bool, tmp_path: Path) -> None:
    ours, theirs = pair(name)
    examples = documents(answers_only)
    arguments = usual(tmp_path)
    result = train(ours, examples, arguments)
    expected = plain_losses(theirs, examples, arguments)
    assert result.losses == pytest.approx(expected, abs=1e-4)
    assert result.losses[-1] < result.losses[0] - 0.3


@pytest.mark.parametrize("name", ALL)
def test_losses_of_an_adapter_are_those_of_a_plain_loop_with_peft(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    ours, theirs = pair(name)
    torch.manual_seed(0)
    add_lora(ours, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    save_adapter(ours, tmp_path / "begun")
    adapted = PeftModel.from_pretrained(theirs, str(tmp_path / "begun"), is_trainable=True)
    before = {key: weight.detach().clone() for key, weight in ours.named_parameters() if not weight.requires_grad}
    result = train(ours, documents(False), usual(tmp_path / "out"))
    assert result.losses == pytest.approx(plain_losses(adapted, documents(False), usual(tmp_path)), abs=1e-4)
    assert result.losses[-1] < result.losses[0] - 0.05
    for key, weight in ours.named_parameters():
        assert key not in before or torch.equal(before[key], weight), key
