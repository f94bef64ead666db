"""The options of the commands, as data: each is written once, and a command takes the groups that it needs.

`with_groups` turns a command that takes groups into one whose options are all of theirs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.text import TextModel


class PrecisionName(str, Enum):
    """What `--precision` takes."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    int4 = "int4"


def group_option(panel: str, *names: str, **settings: Any) -> Any:
    """An option of a group, listed in a panel of the help; what it defaults to is told only where that is said."""
    return typer.Option(*names, rich_help_panel=panel, show_default=settings.pop("show_default", False), **settings)


_MODEL, _WRITING, _OUTPUT = "Model", "Writing", "Output"


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: Annotated[
        str | None,
        group_option(
            _MODEL, "--model", "-m", metavar="TEXT", help="A folder, or a name on the hub. (default: the package's own)"
        ),
    ] = None
    revision: Annotated[
        str | None, group_option(_MODEL, metavar="TEXT", help="A branch, tag or commit of the model.")
    ] = None
    precision: Annotated[
        PrecisionName,
        group_option(_MODEL, "--precision", "--dtype", help="How the weights are held.", show_default=True),
    ] = PrecisionName.auto
    device: Annotated[str | None, group_option(_MODEL, metavar="TEXT", help="cpu, cuda, cuda:1. (default: cpu)")] = None
    offline: Annotated[bool, group_option(_MODEL, "--offline", help="Never ask the hub.")] = False


@dataclass(frozen=True)
class WritingOptions:
    """How the model writes: what is left out is as the model's own generation config says."""

    max_new_tokens: Annotated[
        int | None,
        group_option(_WRITING, "--max-new-tokens", "-n", min=1, metavar="N", help="The most to write. (default: 256)"),
    ] = None
    min_new_tokens: Annotated[int | None, group_option(_WRITING, min=0, metavar="N", help="The least to write.")] = None
    max_time: Annotated[
        float | None, group_option(_WRITING, min=0, metavar="X", help="Stop after so many seconds.")
    ] = None
    stop: Annotated[
        list[str] | None,
        group_option(_WRITING, "--stop", metavar="TEXT", help="Stop before this text. May be given several times."),
    ] = None
    do_sample: Annotated[
        bool | None,
        group_option(_WRITING, "--sample/--greedy", help="Draw tokens at random, or take the likeliest ones."),
    ] = None
    seed: Annotated[int | None, group_option(_WRITING, min=0, metavar="N", help="Makes random choices repeatable.")] = (
        None
    )
    temperature: Annotated[
        float | None,
        group_option(_WRITING, "--temperature", "-t", min=0, metavar="X", help="Below 1: bolder; above: more varied."),
    ] = None
    top_k: Annotated[
        int | None, group_option(_WRITING, min=0, metavar="N", help="Draw among the k likeliest tokens.")
    ] = None
    top_p: Annotated[
        float | None,
        group_option(_WRITING, min=0, max=1, metavar="X", help="Draw among the likeliest tokens that sum to p."),
    ] = None
    min_p: Annotated[
        float | None,
        group_option(
            _WRITING, min=0, max=1, metavar="X", help="Draw among tokens of p times the best one's probability."
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        group_option(_WRITING, metavar="X", help="Above 1: make tokens that were there already less likely."),
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None,
        group_option(
            _WRITING, "--no-repeat-ngram", min=0, metavar="N", help="Never write so many tokens in a row twice."
        ),
    ] = None
    bad_words: Annotated[
        list[str] | None,
        group_option(_WRITING, "--bad-word", metavar="TEXT", help="Never write this. May be given several times."),
    ] = None
    num_beams: Annotated[int | None, group_option(_WRITING, min=1, metavar="N", help="Search with so many beams.")] = (
        None
    )
    length_penalty: Annotated[
        float | None,
        group_option(_WRITING, metavar="X", help="With beams: above 0 favours long texts, below 0 short ones."),
    ] = None
    num_return_sequences: Annotated[
        int | None,
        group_option(_WRITING, "--num-return-sequences", "-k", min=1, metavar="N", help="Texts for each prompt."),
    ] = None

    typical_p: Annotated[
        float | None,
        group_option(_WRITING, min=0, max=1, metavar="X", help="Draw among tokens about as surprising as expected."),
    ] = None

    def for_generation(self, model: TextModel, strategy: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `generate()` that these options and those of a strategy mean; only what was given.

        What shapes random choices asks for them too; what does not go with any (contrastive search, beams in groups,
        forced words) asks for none, whatever the model's own generation config says.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in given.items() if value not in (None, [])}
        stop, bad_words = given.pop("stop", None), given.pop("bad_words", None)
        if stop:
            given["stop_strings"] = stop
        if bad_words:
            given["bad_words_ids"] = _ids_of_words(bad_words, model.tokenizer)
        if twice := sorted(set(given) & set(strategy)):
            raise ArgumentError(f"--set {twice[0]} says again what another option says. Leave one of them out.")
        given |= strategy
        _check_beams(given, model)
        return {**given, **_choosing(given)}


def _choosing(given: Mapping[str, Any]) -> dict[str, bool]:
    """Whether tokens are drawn, where what was given leaves no choice."""
    draws, idle = _draws(given), _WITHOUT_DRAWS & set(given)
    if draws and given.get("do_sample") is False:
        raise ArgumentError(
            f"--greedy takes no random choices, which {_flags(draws)} would shape. Leave one of them out."
        )
    if idle and (draws or given.get("do_sample")):
        asking = _flags(draws) if draws else "--sample"
        raise ArgumentError(f"{_flags(idle)} goes without random choices, and {asking} asks for them. Leave one out.")
    return {"do_sample": True} if draws else {"do_sample": False} if idle else {}


_WITHOUT_DRAWS = frozenset({"num_beam_groups", "force_words_ids", "penalty_alpha"})
_OF_BEAMS = frozenset({"num_beam_groups", "diversity_penalty", "early_stopping", "length_penalty", "force_words_ids"})
_FLAGS = {"force_words_ids": "force-word"}


def _draws(given: Mapping[str, Any]) -> frozenset[str]:
    """The arguments that shape random choices."""
    from loquent.config.generation_checks import SHAPE_DRAWS

    # Contrastive search weighs `top_k` candidates, and draws none.
    contrastive = frozenset({"top_k"}) if given.get("penalty_alpha") else frozenset[str]()
    return (SHAPE_DRAWS & set(given)) - contrastive


def _check_beams(given: Mapping[str, Any], model: TextModel) -> None:
    idle = _OF_BEAMS & set(given)
    if idle and given.get("num_beams", model.model.generation_config.num_beams) == 1:
        verb = "are" if len(idle) > 1 else "is"
        raise ArgumentError(f"{_flags(idle)} {verb} about beams, and there is one. Pass --num-beams, such as 4.")


def _flags(names: Collection[str]) -> str:
    return ", ".join(f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in sorted(names))


@dataclass(frozen=True)
class OutputOptions:
    """What is printed besides the text."""

    json: Annotated[bool, group_option(_OUTPUT, "--json", help="Print one JSON object a result.")] = False
    quiet: Annotated[bool, group_option(_OUTPUT, "--quiet", "-q", help="No statistics and notices on stderr.")] = False
    debug: Annotated[bool, group_option(_OUTPUT, "--debug", help="Show the traceback of an error.")] = False


def _ids_of_words(words: list[str], tokenizer: Any) -> list[list[int]]:
    # A word is another token at the beginning of a text than behind a space.
    spelled = [text for word in words for text in (word, f" {word.lstrip()}")]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spelled]
    return [list(row) for row in dict.fromkeys(map(tuple, ids)) if row]


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are option groups are replaced by the groups' fields."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    hints = _hints_of(command)
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters += _parameters_of(hints[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    def flat(**values: Any) -> None:
        made = {name: _made(group, values) for name, group in groups.items()}
        taken = {field.name for group in groups.values() for field in fields(group)}
        command(**{name: value for name, value in values.items() if name not in taken}, **made)

    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return flat


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    hints = _hints_of(group)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]


def _hints_of(item: Any) -> dict[str, Any]:
    """The annotations of a function or class, as they are written.

    Before Python 3.11 `get_type_hints` makes Optional what defaults to None, also around Annotated, where typer does
    not look for the option.
    """
    hints = get_type_hints(item, include_extras=True)
    inside = {name: [part for part in get_args(hint) if get_origin(part) is Annotated] for name, hint in hints.items()}
    return {name: inside[name][0] if inside[name] else hint for name, hint in hints.items()}


def _made(group: Any, values: Mapping[str, Any]) -> Any:
    return group(**{field.name: values[field.name] for field in fields(group)})
