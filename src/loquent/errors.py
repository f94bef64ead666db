"""The exceptions that Loquent raises for its users' mistakes and for broken data; bugs surface as Python's own.

LoquentError
├── ArgumentError        (ValueError)    an argument that cannot work: names it, its value and the remedy
│   └── ContextLengthError               the prompt and what it asks for exceed the model's positions
├── ConfigError          (ValueError)    a config whose fields have wrong types or contradict one another
├── CheckpointError      (OSError)       a model folder that is missing files, damaged, or does not fit its config
├── HubError             (OSError)       a name that neither a folder, the cache nor the hub could resolve
├── TokenizerError       (ValueError)    a tokenizer whose files are missing or damaged, or a text it cannot take
├── TemplateError        (ValueError)    a chat template that is absent, fails, or exceeds its caps
├── DataError            (ValueError)    a file of texts, conversations or tasks that is damaged or has a wrong form
├── CapacityError        (RuntimeError)  a request that cannot fit into the KV store even alone
├── RequestCancelledError (RuntimeError) the request was cancelled before its result was complete
├── NativeError       (RuntimeError)  the native core is not there, or cannot run a model: says what can
└── MissingExtraError    (ImportError)   an optional library is not installed: gives the pip command
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """What a message says behind a misspelt name: " Did you mean 'x'?", nothing where no known name is near."""
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


class LoquentError(Exception):
    """The base of every exception that Loquent raises on purpose."""


class ArgumentError(LoquentError, ValueError):
    """An argument that cannot work; the message names the argument, its value and the remedy."""


class ContextLengthError(ArgumentError):
    """The prompt and the tokens asked for exceed the positions that the model has."""


class ConfigError(LoquentError, ValueError):
    """A configuration with fields of wrong types, or fields that contradict one another."""


class CheckpointError(LoquentError, OSError):
    """A model folder that lacks files, is damaged, or does not fit its configuration."""


class HubError(LoquentError, OSError):
    """A name that could not be resolved to files, or an upload that failed."""


class TokenizerError(LoquentError, ValueError):
    """Tokenizer files that are missing or damaged, or input that the tokenizer cannot take."""


class TemplateError(LoquentError, ValueError):
    """A chat template that is absent, fails, or exceeds its caps on time or output."""


class DataError(LoquentError, ValueError):
    """A file of texts, conversations or tasks that cannot be read; the message names the file, the line, the remedy."""


class CapacityError(LoquentError, RuntimeError):
    """A request that cannot fit into the KV store even when it is alone."""


class RequestCancelledError(LoquentError, RuntimeError):
    """The request was cancelled before its result was complete."""


class NativeError(LoquentError, RuntimeError):
    """The native CPU core is turned off or was not built, or has no plan for a model; the message says what to do."""


class MissingExtraError(LoquentError, ImportError):
    """An optional library is not installed; the message gives the command that installs it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {library}, which is not installed. Run: pip install "loquent[{extra}]"')
