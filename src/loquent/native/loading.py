"""From a name to a `NativeModel`: a packed folder is mapped, a plain checkpoint packed tensor by tensor; no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loquent.config import GenerationConfig
from loquent.config.generation import GENERATION_CONFIG_FILE
from loquent.config.json_file import saving_folder
from loquent.config.packing import PRECISIONS, packed_precision
from loquent.errors import ArgumentError, NativeError
from loquent.families import family_of
from loquent.families.auto import AutoConfig
from loquent.hub.checkpoint import Checkpoint, open_checkpoint, resolve_checkpoint
from loquent.hub.resolve import HubKeywords, local_folder, resolve_folder
from loquent.native.checkpoint import CheckpointWeights, automatic_precision
from loquent.native.extension import core, why_unavailable
from loquent.native.lowering import why_not
from loquent.native.mapping import MappedWeights
from loquent.native.model import NativeModel, Source, packed_config

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loquent.config import PretrainedConfig

_TOO_OLD = "is packed in {}. Leave precision out, or pass the model that it was made from."


def obstacle_to(config: PretrainedConfig) -> str | None:
    """Why the native core cannot run a model here, in a few words; None where it can."""
    return why_unavailable() or why_not(family_of(config).compose(config))


def load_native(
    name_or_path: str | os.PathLike[str],
    precision: str = "auto",
    config: PretrainedConfig | None = None,
    key_values: str | None = None,
    **hub: Unpack[HubKeywords],
) -> NativeModel:
    """A trained model for the native core.

    The memory it takes at its peak is about that of the packed weights; those of a packed folder stay in its files.

    Args:
        name_or_path: a folder, plain or packed, or a repository on the hub.
        precision: one of `PRECISIONS`, or "auto" for what the checkpoint is stored in.
        config: used instead of the folder's.
        key_values: how keys and values are stored; see `NativeModel`.
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, `force_download`.

    Raises:
        ArgumentError: the precision is unknown, or not the packed folder's, or `key_values` is unknown.
        HubError: the name could not be resolved.
        CheckpointError, ConfigError: the files are missing or damaged, do not fit the config, or hold numbers that the
            precision cannot.
        NativeError: the native core is not there, or cannot run the model.
    """
    check_precision(precision)
    if config is None:
        config = read_config(name_or_path, **hub)
    packed = packed_precision(config.to_dict(), name_or_path)
    if packed and precision not in ("auto", packed):
        raise ArgumentError(f"precision={precision!r}, but {os.fspath(name_or_path)!r} " + _TOO_OLD.format(packed))
    _check_runs(config)
    checkpoint = open_checkpoint(resolve_checkpoint(name_or_path, **hub))
    source: Source
    if packed:
        source = MappedWeights(family_of(config).compose(config), checkpoint, packed, name_or_path)
    else:
        source = _from_plain(config, checkpoint, precision, name_or_path)
    return NativeModel(config, source, GenerationConfig.of_model(name_or_path, config, **hub), key_values)


def quantize(
    name_or_path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    precision: str = "int8",
    max_shard_size: int | str = "5GB",
    **hub: Unpack[HubKeywords],
) -> Path:
    """Write a model as a packed folder: config, generation config and tokenizer files, and weights that map from disk.

    One matrix is in memory at a time.

    Args:
        name_or_path: a folder with a plain checkpoint, or a repository on the hub.
        folder: where to write, made if need be.
        precision: one of `PRECISIONS`, or "auto".
        max_shard_size: bytes, or such as "5GB"; a larger model is cut into several files.
        **hub: as in `load_native`.

    Returns:
        The folder.

    Raises:
        ArgumentError: the precision is unknown, the model is packed already, or the folder is its own or a file.
        HubError, CheckpointError, ConfigError, NativeError: as in `load_native`.
    """
    from loquent.native.packing import write_packed

    check_precision(precision)
    config = read_config(name_or_path, **hub)
    packed = packed_precision(config.to_dict(), name_or_path)
    if packed:
        raise ArgumentError(f"{os.fspath(name_or_path)!r} {_TOO_OLD.format(packed)}")
    _check_runs(config)
    own = local_folder(name_or_path)
    if own is not None and Path(folder).expanduser().resolve() == own.resolve():
        raise ArgumentError(f"{os.fspath(folder)!r} is the model's own folder. Name another one to write to.")
    source = _from_plain(config, open_checkpoint(resolve_checkpoint(name_or_path, **hub)), precision, name_or_path)
    target = saving_folder(folder)
    write_packed(target, source, source.decoder, source.precision, max_shard_size)
    _copy_companions(name_or_path, target, hub)
    # Last, so that a folder that was not finished is no model.
    packed_config(config, source.precision).save_pretrained(target)
    return target


def check_precision(precision: str) -> None:
    """Refuse what is neither "auto" nor one of `PRECISIONS`.

    Raises:
        ArgumentError: it lists them.
    """
    if precision not in ("auto", *PRECISIONS):
        known = ", ".join(map(repr, ("auto", *PRECISIONS)))
        raise ArgumentError(f"precision={precision!r} is unknown. Use one of {known}.")


def read_config(name_or_path: str | os.PathLike[str], **hub: Unpack[HubKeywords]) -> PretrainedConfig:
    """The config of a model; errors as in `AutoConfig.from_pretrained`."""
    config: PretrainedConfig = AutoConfig.from_pretrained(name_or_path, **hub)
    return config


def _check_runs(config: PretrainedConfig) -> None:
    core()
    obstacle = obstacle_to(config)
    if obstacle:
        raise NativeError(
            f'The native core cannot run this model: {obstacle}. PyTorch can: pip install "loquent[torch]"'
        )


def _from_plain(
    config: PretrainedConfig, checkpoint: Checkpoint, precision: str, name: str | os.PathLike[str]
) -> CheckpointWeights:
    chosen = automatic_precision(config, checkpoint) if precision == "auto" else precision
    return CheckpointWeights(config, checkpoint, chosen, name)


def _copy_companions(name_or_path: str | os.PathLike[str], target: Path, hub: Any) -> None:
    """Copy what belongs to a model besides its config and weights."""
    import shutil

    from loquent.tokenization.loading import PATTERNS

    wanted = [pattern for pattern in (*PATTERNS, GENERATION_CONFIG_FILE) if pattern != "config.json"]
    folder = resolve_folder(name_or_path, wanted, **hub)
    for path in (path for pattern in wanted for path in folder.glob(pattern)):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
