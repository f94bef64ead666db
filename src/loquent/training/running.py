"""`train`: what is given is checked and cut into packs here; the loop does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loquent.errors import ArgumentError, ContextLengthError
from loquent.torch.causal import CausalLM
from loquent.training.arguments import TrainingArguments
from loquent.training.compiling import check_compiler
from loquent.training.data.encoding import line_breaks
from loquent.training.data.examples import Examples
from loquent.training.data.packing import Packs
from loquent.training.devices import device_of_process
from loquent.training.events import Listener
from loquent.training.loop import Run, TrainingResult
from loquent.training.optimizers import check_optimizer

if TYPE_CHECKING:
    from loquent.tokenization import PreTrainedTokenizer


def train(
    model: CausalLM,
    data: Examples,
    arguments: TrainingArguments,
    *,
    evaluation: Examples | None = None,
    tokenizer: PreTrainedTokenizer | None = None,
    listeners: Sequence[Listener] = (),
) -> TrainingResult:
    """Train a causal language model, or the adapter that was added to it, in place.

    Documents are cut into pieces of at most `max_length` tokens, after a line where one ends near, and pieces share
    packs in which none sees another. The loss of a step is the mean over all tokens that count in all its packs, on
    however many devices. The trained model, with the tokenizer, is in `output_dir` at the end, and the checkpoints on
    the way; what is resumed goes on exactly as if it had never stopped.

    Args:
        model: a model of PyTorch with a language-model head; what has `requires_grad` is trained. In float32, or in
            bfloat16 where memory is short, which learns less well.
        data: tokenized documents (`loquent.training.data.encode_texts`, `encode_dialogues`).
        arguments: see there.
        evaluation: held-out documents.
        tokenizer: saved with the model; its line breaks are where documents are cut, and its padding id fills packs.
        listeners: called with each event, in the main process.

    Raises:
        ArgumentError: an argument cannot work; nothing has been changed then.
        ContextLengthError: `max_length` exceeds the model's positions.
        CheckpointError: the checkpoint to resume from is damaged, or of another run.
        TrainingError: the loss is not finite, or a step has no token that counts.
    """
    if not isinstance(model, CausalLM):
        raise ArgumentError(
            f"model is a {type(model).__name__}; what can be trained is a language model of PyTorch, as "
            "AutoModelForCausalLM.from_pretrained(..., dtype='float32') and from_config give."
        )
    for name, examples in (("data", data), ("evaluation", evaluation)):
        if not isinstance(examples, Examples) and (name == "data" or examples is not None):
            raise ArgumentError(f"{name} is a {type(examples).__name__}. Pass Examples, as encode_texts() gives them.")
    if evaluation is None and arguments.eval_steps:
        raise ArgumentError(f"{arguments.eval_steps=} needs held-out documents. Pass evaluation, or leave it out.")
    check_arguments(model, arguments)
    _check_vocabulary(model, data)
    packs = _packs(data, arguments, tokenizer)
    held_out = None if evaluation is None else _packs(evaluation, arguments, tokenizer)
    return Run(model, packs, arguments, held_out, tokenizer, listeners).run()


def check_arguments(model: CausalLM, arguments: TrainingArguments) -> None:
    """Refuse what cannot work with a model on this machine; what takes the data to know is `train`'s.

    Raises:
        ArgumentError: there is nothing that the optimizer could move, or no compiler for `torch_compile`.
        ContextLengthError: its positions are learned, and packs are longer.
    """
    learned = model.decoder.learned_positions
    if learned is not None and arguments.max_length > learned.count:
        raise ContextLengthError(
            f"max_length={arguments.max_length} exceeds the {learned.count} positions that the model has."
        )
    check_optimizer(model, arguments)
    if arguments.torch_compile:
        check_compiler(device_of_process(str(model.device)))


def _check_vocabulary(model: CausalLM, data: Examples) -> None:
    largest = int(data.tokens.max())
    if largest >= model.decoder.vocabulary:
        raise ArgumentError(
            f"data has the id {largest}, but the model's vocabulary is 0 to {model.decoder.vocabulary - 1}. Is the "
            "tokenizer this model's? model.resize_token_embeddings(len(tokenizer)) makes room for new tokens."
        )


def _packs(examples: Examples, arguments: TrainingArguments, tokenizer: PreTrainedTokenizer | None) -> Packs:
    padding = None if tokenizer is None else tokenizer.pad_token_id
    return Packs(
        examples,
        arguments.max_length,
        padding_id=0 if padding is None else padding,
        breaks=None if tokenizer is None else line_breaks(tokenizer),
        packing=arguments.packing,
    )
