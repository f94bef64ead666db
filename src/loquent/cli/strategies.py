"""The options that choose a strategy, as data: beams, contrast, drafts, DoLa, guidance, structure, and any field."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from loquent.cli.options import group_option
from loquent.errors import ArgumentError, hint

if TYPE_CHECKING:
    from loquent.text import TextModel

_STRATEGY, _STRUCTURE = "Strategy", "Structure"


class EarlyStopping(str, Enum):
    """What `--early-stopping` takes."""

    true = "true"
    false = "false"
    never = "never"


_EARLY_STOPPING = {EarlyStopping.true: True, EarlyStopping.false: False, EarlyStopping.never: "never"}


@dataclass(frozen=True)
class StrategyOptions:
    """How the next tokens are searched for; what is left out is as the model's own generation config says."""

    num_beam_groups: Annotated[
        int | None, group_option(_STRATEGY, min=1, metavar="N", help="Divide the beams into groups that differ.")
    ] = None
    diversity_penalty: Annotated[
        float | None, group_option(_STRATEGY, min=0, metavar="X", help="How much the groups shall differ.")
    ] = None
    early_stopping: Annotated[
        EarlyStopping | None, group_option(_STRATEGY, help="With beams: when to stop looking for better texts.")
    ] = None
    force_words: Annotated[
        list[str] | None,
        group_option(_STRATEGY, "--force-word", metavar="TEXT", help="With beams: write this somewhere. Repeatable."),
    ] = None
    penalty_alpha: Annotated[
        float | None,
        group_option(_STRATEGY, min=0, max=1, metavar="X", help="Search contrastively among the --top-k likeliest."),
    ] = None
    dola_layers: Annotated[
        str | None,
        group_option(_STRATEGY, metavar="TEXT", help="Contrast with early layers: low, high, or numbers as 2,4,6."),
    ] = None
    guidance_scale: Annotated[
        float | None, group_option(_STRATEGY, metavar="X", help="Above 1: follow the prompt more closely.")
    ] = None
    negative_prompt: Annotated[
        str | None, group_option(_STRATEGY, metavar="TEXT", help="With --guidance-scale: what to keep away from.")
    ] = None
    assistant: Annotated[
        str | None,
        group_option(
            _STRATEGY,
            "--assistant",
            metavar="TEXT",
            help="A smaller model that drafts: a folder or name; default-draft for the package's own model.",
        ),
    ] = None
    prompt_lookup_num_tokens: Annotated[
        int | None,
        group_option(
            _STRATEGY, "--prompt-lookup", min=1, metavar="N", help="Draft up to N tokens that the text had before."
        ),
    ] = None
    assistant_early_exit: Annotated[
        int | None,
        group_option(_STRATEGY, "--early-exit", min=1, metavar="N", help="Draft with the model's first N layers."),
    ] = None
    num_assistant_tokens: Annotated[
        int | None,
        group_option(_STRATEGY, "--draft-tokens", min=1, metavar="N", help="The most that a model drafts at once."),
    ] = None
    regex: Annotated[
        str | None, group_option(_STRUCTURE, metavar="TEXT", help="Write what matches a regular expression.")
    ] = None
    choice: Annotated[
        list[str] | None,
        group_option(_STRUCTURE, "--choice", metavar="TEXT", help="Write one of these. May be given several times."),
    ] = None
    json_schema: Annotated[
        str | None,
        group_option(_STRUCTURE, metavar="TEXT", help="Write JSON of this schema: a file, or the schema itself."),
    ] = None
    grammar: Annotated[
        str | None,
        group_option(_STRUCTURE, metavar="TEXT", help="Write what a Lark grammar says: a file, or the grammar itself."),
    ] = None
    settings: Annotated[
        list[str] | None,
        group_option(
            _STRATEGY,
            "--set",
            metavar="NAME=VALUE",
            help="Any field of GenerationConfig, its value in JSON or as text. May be given several times.",
        ),
    ] = None

    def for_generation(self, model: TextModel, load: Callable[[str], TextModel]) -> dict[str, Any]:
        """The arguments of `generate()` that the options mean; only those that were given.

        Args:
            model: the model that writes.
            load: gives the model of a name, for the assistant.
        """
        found: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                *("num_beam_groups", "diversity_penalty", "penalty_alpha", "guidance_scale", "regex"),
                *("prompt_lookup_num_tokens", "assistant_early_exit", "num_assistant_tokens"),
            )
        }
        found |= {
            "choice": self.choice or None,
            "early_stopping": None if self.early_stopping is None else _EARLY_STOPPING[self.early_stopping],
            "dola_layers": None if self.dola_layers is None else _layers(self.dola_layers),
            "grammar": None if self.grammar is None else _contents(self.grammar),
            "response_format": None if self.json_schema is None else _schema(self.json_schema),
        }
        if self.force_words:
            found["force_words_ids"] = [_forced(word, model.tokenizer) for word in self.force_words]
        if self.negative_prompt is not None:
            found["negative_prompt_ids"] = [_ids(self.negative_prompt, model.tokenizer)]
        given = {name: value for name, value in found.items() if value is not None}
        given |= _settings(self.settings or (), given)
        return given | ({} if self.assistant is None else _drafting(load(self.assistant), model))


def _layers(text: str) -> str | list[int]:
    if text in ("low", "high"):
        return text
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentError(f"--dola-layers={text!r} names no layers. Pass low, high, or numbers as 2,4,6.") from None


def _contents(text: str) -> str:
    """What a file holds, or the text itself where there is no such file."""
    try:
        return Path(text).read_text("utf-8") if Path(text).is_file() else text
    except (OSError, ValueError):  # too long for a name, or no name at all
        return text


def _schema(text: str) -> Any:
    contents = _contents(text)
    try:
        schema = json.loads(contents)
    except json.JSONDecodeError as error:
        raise ArgumentError(
            f"--json-schema={text!r:.80} is neither a file nor JSON ({error.msg}, line {error.lineno}). "
            'Pass a file with a schema, or a schema such as \'{"type": "object"}\'.'
        ) from None
    if not isinstance(schema, dict):
        raise ArgumentError(f'--json-schema={text!r:.80} is no object. Pass a schema such as \'{{"type": "object"}}\'.')
    return schema


def _ids(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    if not ids:
        raise ArgumentError(f"--negative-prompt={text!r} has no tokens. Pass some text, or leave it out.")
    return ids


def _forced(word: str, tokenizer: Any) -> list[int]:
    """The tokens of a word behind others, which is where beams write it."""
    text = word if word[:1].isspace() else f" {word}"
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not word.strip() or not ids:
        raise ArgumentError(f"--force-word={word!r} has no tokens. Pass a word.")
    return ids


def _settings(pairs: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    """The fields that `--set` names; a value that is no JSON is text."""
    from loquent.config import GenerationConfig

    known, found = GenerationConfig().to_dict(), dict[str, Any]()
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ArgumentError(f"--set {pair!r} has no value. Pass NAME=VALUE, as in --set typical_p=0.9.")
        if name not in known:
            raise ArgumentError(f"--set {pair!r}: GenerationConfig has no field {name!r}.{hint(name, set(known))}")
        if name in given:
            raise ArgumentError(f"--set {pair!r} says again what another option says. Leave one of them out.")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _drafting(assistant: TextModel, model: TextModel) -> dict[str, Any]:
    """The assistant, with its tokenizer where that is another one."""
    arguments: dict[str, Any] = {"assistant_model": assistant.model}
    if assistant.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        arguments["assistant_tokenizer"] = assistant.tokenizer
    return arguments
