"""JSON objects from model folders, read with a cap on their size; says nothing of what the fields mean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loquent.errors import ConfigError
from loquent.hub.resolve import check_name, resolve_file

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loquent.hub.resolve import HubKeywords

CONFIG_FILE = "config.json"

# The largest configs in use, with long label maps, are well under 4 MB.
_MAX_BYTES = 32 * 2**20


def read_config_dict(
    name_or_path: str | os.PathLike[str], filename: str = CONFIG_FILE, **hub: Unpack[HubKeywords]
) -> dict[str, Any]:
    """The fields of a model's `config.json` (or of another JSON file of its) as they stand in the file.

    Args:
        name_or_path: a folder, a repository on the hub, or the path of the JSON file itself.
        filename: the file in the folder or the repository.
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, `force_download`.

    Raises:
        ConfigError: the file is not a JSON object, or too large to be one that describes a model.
        CheckpointError: a local folder has no such file.
        HubError: the name could not be resolved.
    """
    check_name(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        # Required files are found or raise, so the fallback only narrows the type.
        path = resolve_file(name_or_path, filename, required=True, **hub) or path
    return read_json_object(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises:
        ConfigError: the file is too large, not UTF-8, not JSON, or not an object.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ConfigError(f"{path} has {size:,} bytes; a config has at most {_MAX_BYTES:,}. It may be another file.")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({error}). Download or write it again.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a JSON {type(value).__name__}, where an object with fields is expected.")
    return value
