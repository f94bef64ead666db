"""A run: it resumes exactly, evaluates, stops early, keeps the best, and refuses what cannot work."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor

from loquent import AutoModelForCausalLM, DogeConfig, DogeForCausalLM, DogeModel, GPT2Config, GPT2LMHeadModel
from loquent.config.lora import LoraConfig
from loquent.errors import ArgumentError, CheckpointError, ContextLengthError, TrainingError
from loquent.training import Evaluated, Event, Examples, Finished, Saved, Started, Stepped, TrainingArguments, train
from loquent.training.compiling import check_compiler
from loquent.training.starting import adapt

VOCABULARY = 60


def documents(count: int = 80, seed: int = 0) -> Examples:
    """Sequences in which each token but the first follows from the one before it, more or less."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        steps = random.choice([1, 1, 1, 7], random.integers(3, 30))
        texts.append(np.cumsum(steps) % VOCABULARY)
    return Examples.of_ids(texts, VOCABULARY)


def backwards() -> Examples:
    """Sequences that go the other way: what is learned from the others makes them less likely."""
    return Examples.of_ids([np.arange(30, 30 - length, -1) for length in range(5, 25)], VOCABULARY)


def tiny(seed: int = 0, **fields: Any) -> DogeForCausalLM:
    """A model with dropout, so that random numbers matter."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return DogeForCausalLM(DogeConfig(**{**shape, "vocab_size": VOCABULARY, "hidden_dropout": 0.1, **fields}))


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    """Twelve steps of two batches, with a checkpoint after every third."""
    usual = {
        "max_steps": 12,
        "max_length": 24,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "save_steps": 3,
        "logging_steps": 1,
    }
    return TrainingArguments(folder, **{**usual, **changes})


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_at(step: int) -> Any:
    """A listener that ends the run at a step."""

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise KilledError

    return listen


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(optim: str, step: int, tmp_path: Path) -> None:
    whole = train(tiny(), documents(), arguments(tmp_path / "whole", optim=optim))
    with pytest.raises(KilledError):
        train(tiny(), documents(), arguments(tmp_path / "cut", optim=optim), listeners=[killed_at(step)])
    model = tiny(seed=9)
    saved = (step - 1) // 3 * 3
    if not saved:
        model = tiny()
    resumed = train(model, documents(), arguments(tmp_path / "cut", optim=optim, resume_from_checkpoint="auto"))
    assert resumed.losses == whole.losses[saved:]
    assert resumed.steps == 12
    files = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert files[0] == files[1]


def test_half_written_checkpoints_are_not_taken_for_whole_ones(tmp_path: Path) -> None:
    train(tiny(), documents(), arguments(tmp_path, save_total_limit=None))
    whole = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert whole == ["checkpoint-12", "checkpoint-3", "checkpoint-6", "checkpoint-9"]
    # What a kill leaves: a folder under another name, and one that is being deleted.
    (tmp_path / "checkpoint-12").rename(tmp_path / ".checkpoint-12.partial")
    (tmp_path / "checkpoint-9" / "training.json").unlink()
    resumed = train(tiny(seed=5), documents(), arguments(tmp_path, resume_from_checkpoint=True))
    assert len(resumed.losses) == 6


def test_two_checkpoints_are_kept_and_the_best(tmp_path: Path) -> None:
    run = arguments(tmp_path, eval_steps=3, learning_rate=0.03, lr_scheduler_type="constant")
    run = run.replace(load_best_model_at_end=True)
    result = train(tiny(), documents(), run, evaluation=backwards())
    assert result.best_step == 3
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-12", "checkpoint-3"]
    best = (tmp_path / "checkpoint-3" / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == best


def test_it_stops_early(tmp_path: Path) -> None:
    run = arguments(tmp_path, eval_steps=1, learning_rate=0.03, lr_scheduler_type="constant", early_stopping_patience=2)
    seen: list[Event] = []
    result = train(tiny(), documents(), run, evaluation=backwards(), listeners=[seen.append])
    assert result.reason == "early stop"
    evaluations = [event for event in seen if isinstance(event, Evaluated)]
    assert [event.best for event in evaluations[-3:]] == [True, False, False]
    assert evaluations[-1].step == result.steps < 12
    assert seen[-1] == Finished(result.steps, "early stop")


def test_what_listeners_are_told(tmp_path: Path) -> None:
    seen: list[Event] = []
    data, held_out = documents(), documents(20, seed=1)
    result = train(tiny(), data, arguments(tmp_path, logging_steps=4), evaluation=held_out, listeners=[seen.append])
    assert [type(event) for event in seen] == [
        *(Started, Saved, Stepped, Saved, Stepped, Saved, Stepped, Evaluated, Saved, Finished),
    ]
    steps = [event for event in seen if isinstance(event, Stepped)]
    assert [event.step for event in steps] == [4, 8, 12]
    assert steps[0].loss == pytest.approx(np.mean(result.losses[:4]), rel=0.05)  # by tokens, not by steps
    assert steps[-1].seconds_left == 0
    assert steps[-1].learning_rate == pytest.approx(0.01 * 0.5 * (1 + np.cos(np.pi * 11 / 12)))
    assert result.losses[-1] < result.losses[0]


def test_the_evaluation_is_the_mean_over_tokens(tmp_path: Path) -> None:
    held_out = documents(20, seed=1)
    result = train(tiny(), documents(), arguments(tmp_path, per_device_eval_batch_size=3), evaluation=held_out)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32")
    total, count = 0.0, 0
    for index in range(len(held_out)):
        tokens = torch.from_numpy(held_out.document(index)[0].astype(np.int64))
        for piece in (tokens[:24], tokens[23:]):
            if len(piece) > 1:
                total += model(piece[None], labels=piece[None]).loss.item() * (len(piece) - 1)
                count += len(piece) - 1
    assert result.evaluations[-1].loss == pytest.approx(total / count, abs=1e-5)


def test_epochs_become_steps(tmp_path: Path) -> None:
    result = train(tiny(), documents(16), arguments(tmp_path, max_steps=-1, num_train_epochs=1.5, packing=False))
    # 16 documents in 2 x 2 rows, and those longer than a pack have several.
    assert result.steps == int(np.ceil(1.5 * _pieces(documents(16), 24) / 4))


def _pieces(examples: Examples, length: int) -> int:
    return sum(int(np.ceil((n - 1) / (length - 1))) for n in np.diff(examples.starts))


def test_mixed_precision_and_checkpointing_learn_the_same(tmp_path: Path) -> None:
    plain = train(tiny(), documents(), arguments(tmp_path / "plain", max_steps=4))
    model = tiny()
    checkpointed = train(model, documents(), arguments(tmp_path / "again", max_steps=4, gradient_checkpointing=True))
    assert not model.is_gradient_checkpointing
    assert not model.training
    assert checkpointed.losses == pytest.approx(plain.losses, abs=1e-5)
    rounded = train(tiny(), documents(), arguments(tmp_path / "rounded", max_steps=4, bf16=True))
    assert rounded.losses != plain.losses
    assert rounded.losses == pytest.approx(plain.losses, abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # by torch, of its own code
def test_compiled_blocks_learn_the_same(tmp_path: Path) -> None:
    plain = train(tiny(hidden_dropout=0.0), documents(), arguments(tmp_path / "plain", max_steps=4))
    model = tiny(hidden_dropout=0.0)
    compiled = train(model, documents(), arguments(tmp_path / "fast", max_steps=4, torch_compile=True))
    assert compiled.losses == pytest.approx(plain.losses, abs=1e-4)
    assert model.describe_backend().startswith("native")


def test_only_what_wants_gradients_is_trained(tmp_path: Path) -> None:
    model = tiny()
    model.stack.tokens.weight.requires_grad = False
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    train(model, documents(), arguments(tmp_path, max_steps=2))
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert "model.tokens.weight" not in changed
    assert "model.blocks.0.attention.qkv.weight" in changed


class TestRefusals:
    def test_another_runs_checkpoint(self, tmp_path: Path) -> None:
        train(tiny(), documents(), arguments(tmp_path))
        with pytest.raises(CheckpointError, match=r"went another way: seed was 42 and is 1\. Repeat these"):
            train(tiny(), documents(), arguments(tmp_path, seed=1, resume_from_checkpoint=True))
        with pytest.raises(CheckpointError, match="data was"):
            train(tiny(), documents(seed=2), arguments(tmp_path, resume_from_checkpoint=True))

    def test_an_adapter_on_another_base_model(self, tmp_path: Path) -> None:
        def adapted(seed: int, adapter: int = 0) -> DogeForCausalLM:
            model = tiny(seed)
            adapt(model, LoraConfig(r=2), adapter)
            return model

        first = adapted(0)
        train(first, documents(), arguments(tmp_path, max_steps=6))
        for other in (adapted(1), adapted(0).to(torch.bfloat16)):
            with pytest.raises(CheckpointError, match=r"another way: base_model was '\w{32}' and is '\w{32}'\."):
                train(other, documents(), arguments(tmp_path, resume_from_checkpoint=True))
        with pytest.raises(CheckpointError, match=r"base_model was '\w{32}' and is None\."):
            train(tiny(), documents(), arguments(tmp_path, resume_from_checkpoint=True))
        # What is learned of the adapter is no part of it, nor is the random half that it began with.
        for same in (first, adapted(0, adapter=7)):
            assert train(same, documents(), arguments(tmp_path, max_steps=7, resume_from_checkpoint=True)).steps == 7
            shutil.rmtree(tmp_path / "checkpoint-7")

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match="has no checkpoint"):
            train(tiny(), documents(), arguments(tmp_path, resume_from_checkpoint=True))
        with pytest.raises(ArgumentError, match=r"is no checkpoint of a training run"):
            train(tiny(), documents(), arguments(tmp_path, resume_from_checkpoint=str(tmp_path)))

    def test_damaged_checkpoints(self, tmp_path: Path) -> None:
        train(tiny(), documents(), arguments(tmp_path))
        optimizer = tmp_path / "checkpoint-12" / "optimizer.safetensors"
        kept = optimizer.read_bytes()
        optimizer.write_bytes(kept[:-7])
        with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is missing or damaged"):
            train(tiny(), documents(), arguments(tmp_path, resume_from_checkpoint=True))
        optimizer.write_bytes(kept)
        progress = tmp_path / "checkpoint-12" / "training.json"
        progress.write_text(json.dumps({**json.loads(progress.read_text()), "unheard_of": 1}))
        with pytest.raises(CheckpointError, match=r"training\.json is damaged"):
            train(tiny(), documents(), arguments(tmp_path, resume_from_checkpoint=True))
        shutil.rmtree(tmp_path / "checkpoint-12")
        assert len(train(tiny(), documents(), arguments(tmp_path, resume_from_checkpoint=True)).losses) == 3

    def test_a_loss_that_is_not_finite(self, tmp_path: Path) -> None:
        model = tiny()
        with torch.no_grad():
            model.stack.norm.weight.fill_(float("nan"))
        with pytest.raises(TrainingError, match=r"The loss of step 1 is nan"):
            train(model, documents(), arguments(tmp_path))

    def test_models_that_cannot_be_trained(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match="model is a DogeModel"):
            train(DogeModel(tiny().config), documents(), arguments(tmp_path))
        with pytest.raises(ArgumentError, match="there is nothing to train"):
            train(tiny().requires_grad_(False), documents(), arguments(tmp_path))
        short = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=16))
        with pytest.raises(ContextLengthError, match="max_length=24 exceeds the 16 positions"):
            train(short, documents(), arguments(tmp_path))

    def test_muon_without_a_matrix_of_the_blocks(self, tmp_path: Path) -> None:
        model = tiny()
        for weight in model.stack.blocks.parameters():
            weight.requires_grad = weight.dim() != 2
        with pytest.raises(ArgumentError, match=r"optim='muon' moves the matrices of the blocks, and none of them"):
            train(model, documents(), arguments(tmp_path / "muon", optim="muon"))
        assert not (tmp_path / "muon").exists()
        train(model, documents(), arguments(tmp_path / "adamw", max_steps=1))

    def test_compiling_without_a_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(
            ArgumentError, match=r"torch_compile=True needs a C\+\+ compiler on a CPU, and .+ is not on"
        ):
            train(tiny(), documents(), arguments(tmp_path / "out", torch_compile=True))
        assert not (tmp_path / "out").exists()
        check_compiler("cuda:0")  # is not asked for one
        named = tmp_path / "my-compiler"
        named.touch(0o700)
        with inductor.patch({"cpp.cxx": (None, str(named))}):
            check_compiler("cpu")

    def test_data_that_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r"data has the id 59, but the model's vocabulary is 0 to 49"):
            train(tiny(vocab_size=50), documents(), arguments(tmp_path))
        with pytest.raises(ArgumentError, match=r"data is a list\. Pass Examples"):
            train(tiny(), ["text"], arguments(tmp_path))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"learning_rate": -1.0}, r"learning_rate=-1\.0 must be at least 0"),
            ({"max_steps": 0}, "max_steps=0 must be 1 or more, or -1"),
            ({"optim": "adam"}, r"optim='adam' is not known\. It is one of 'adamw', 'muon'\. Did you mean 'adamw'"),
            ({"bf16": 1}, "bf16=1 must be True or False"),
            ({"max_length": 2.5}, r"max_length=2\.5 must be a whole number"),
            ({"warmup_ratio": 1.5}, r"warmup_ratio=1\.5 must be at least 0 and at most 1"),
            ({"warmup_steps": 3, "warmup_ratio": 0.1}, "say the same thing"),
            ({"early_stopping_patience": 2}, "Give eval_steps"),
            ({"load_best_model_at_end": True, "eval_steps": 3, "save_steps": 0}, "Give save_steps"),
            ({"save_total_limit": 0}, "save_total_limit=0 must be 1 or more"),
            ({"output_dir": 3}, "output_dir=3 must be the path of a folder"),
            ({"learning_rate": float("nan")}, "learning_rate=nan must be a number"),
        ],
    )
    def test_arguments(self, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=message):
            TrainingArguments(**{"output_dir": tmp_path, **changes})

    def test_a_misspelt_field(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r"no field 'learning_rat'\. Did you mean 'learning_rate'"):
            arguments(tmp_path).replace(learning_rat=1)


def test_what_a_killed_process_left_half_done_is_cleared_away(tmp_path: Path) -> None:
    for name in (".checkpoint-9.partial", ".checkpoint-3.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    train(tiny(), documents(), arguments(tmp_path, save_steps=12))
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == ["checkpoint-12"]


def test_a_run_that_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    patience = {"eval_steps": 1, "early_stopping_patience": 2, "early_stopping_threshold": 9.0}
    first = train(tiny(), documents(), arguments(tmp_path, **patience), evaluation=documents(5, 1))
    again = train(
        tiny(), documents(), arguments(tmp_path, **patience, resume_from_checkpoint=True), evaluation=documents(5, 1)
    )
    assert (first.steps, first.reason) == (again.steps, again.reason) == (3, "early stop")
    assert again.losses == []


def test_an_interrupt_between_the_halves_of_a_step_waits_for_its_end(tmp_path: Path) -> None:
    def at_five(event: Event) -> None:
        # A listener is told within the part of a step that is done as a whole.
        if isinstance(event, Stepped) and event.step == 5:
            signal.raise_signal(signal.SIGINT)
            told.append(event.step)

    told: list[int] = []
    whole = train(tiny(), documents(), arguments(tmp_path / "whole"))
    first = train(tiny(), documents(), arguments(tmp_path / "broken"), listeners=[at_five])
    assert (first.reason, first.steps, told) == ("interrupted", 5, [5])
    rest = train(tiny(), documents(), arguments(tmp_path / "broken", resume_from_checkpoint=True))
    assert [*first.losses, *rest.losses] == whole.losses
