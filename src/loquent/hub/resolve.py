"""From a name to files on this disk: a local folder, the hub's cache, or a download; does not open what it finds.

A name is a folder if one exists there, and otherwise a repository like "org/name" that `huggingface_hub` fetches into
its cache (https://huggingface.co/docs/huggingface_hub/guides/download). That library is imported only when it is
needed: it costs more time than everything else here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn, TypedDict

from loquent.errors import ArgumentError, CheckpointError, HubError
from loquent.hub.failures import hub_failure

if TYPE_CHECKING:
    from typing_extensions import Unpack


class HubKeywords(TypedDict, total=False):
    """The keyword arguments of every `from_pretrained` that are for the hub; a local folder heeds `subfolder` alone.

    revision: a branch, a tag or a commit ("main" if None).
    cache_dir: a cache other than the usual one (HF_HOME, HF_HUB_CACHE).
    token: an access token, True for the stored one, False for none, None for the stored one if there is one.
    local_files_only: never ask the hub, as HF_HUB_OFFLINE=1 does.
    subfolder: the folder inside the repository that holds the files.
    force_download: download even what is cached.
    """

    revision: str | None
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool
    subfolder: str | None
    force_download: bool


HUB_KEYWORDS = frozenset(HubKeywords.__annotations__)

_REPOSITORY = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


def resolve_file(
    name_or_path: str | os.PathLike[str],
    filename: str,
    *,
    required: bool = True,
    **hub: Unpack[HubKeywords],
) -> Path | None:
    """The path of `filename` of a model, downloaded if need be; None where it is absent and not `required`.

    Raises:
        ArgumentError: `filename` or `subfolder` leads out of the model's folder, or a download is forced offline.
        CheckpointError: a local folder lacks the required file.
        HubError: the name is neither a folder nor anything the cache or the hub has; a hub that cannot be asked is
            an error even for a file that is not required, unless the cache knows that the repository has no such file.
    """
    _check_keywords(hub)
    name = _checked_name(filename, "filename")
    subfolder = hub.get("subfolder")
    if subfolder:
        name = f"{_checked_name(subfolder, 'subfolder')}/{name}"
    folder = local_folder(name_or_path)
    if folder is not None:
        return _local_file(folder, name, required)
    return _download(str(name_or_path), name, required, hub)


def resolve_folder(
    name_or_path: str | os.PathLike[str],
    patterns: Sequence[str] | None = None,
    **hub: Unpack[HubKeywords],
) -> Path:
    """The folder of a model with the files that match `patterns` ("*.json"; all files if None) in it.

    A local folder is returned as it is; a repository is downloaded, several files at a time with a progress bar.

    Raises:
        ArgumentError: `subfolder` leads out of the model's folder.
        CheckpointError: a local folder has no such subfolder.
        HubError: the name is neither a folder nor anything the cache or the hub has.
    """
    _check_keywords(hub)
    subfolder = _checked_name(hub.get("subfolder") or ".", "subfolder")
    folder = local_folder(name_or_path)
    if folder is None:
        folder = _snapshot(str(name_or_path), patterns, subfolder, hub)
    inside = folder / subfolder
    if not inside.is_dir() or not _contains(folder, inside):
        raise CheckpointError(f"{folder} has no folder {subfolder!r} in it. Check subfolder=...")
    return inside


def check_name(name_or_path: object) -> None:
    """Refuse what is neither a string nor a path.

    Raises:
        ArgumentError: it says what was given instead.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ArgumentError(
            f'The name is a {type(name_or_path).__name__}. Pass a folder, or the name of a repository like "org/name".'
        )


def local_folder(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The folder that a name means on this disk, or None where it reads as the name of a repository.

    Raises:
        HubError: the name reads as a path, but there is no folder.
    """
    check_name(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    text = str(name_or_path)
    if path.exists():
        raise HubError(f"{text!r} is a file, where the folder of a model or the name of a repository was expected.")
    if isinstance(name_or_path, os.PathLike) or not is_repository(text):
        raise HubError(
            f'{text!r} is neither a folder on this machine nor the name of a repository like "org/name". '
            "Check the path; it is looked up from the working directory "
            f"{os.getcwd()!r}."
        )
    return None


def is_repository(name: str) -> bool:
    """Whether `name` reads as a repository's: "name" or "owner/name"."""
    return bool(_REPOSITORY.fullmatch(name)) and not set(name.split("/")) & {".", ".."}


def is_offline(hub: HubKeywords) -> bool:
    """Whether the hub must not be asked: by argument, or by HF_HUB_OFFLINE at this moment."""
    return bool(hub.get("local_files_only")) or os.environ.get("HF_HUB_OFFLINE", "").upper() in {
        "1",
        "ON",
        "YES",
        "TRUE",
    }


def is_plain_name(name: str) -> bool:
    """Whether `name` names a file in its folder and cannot lead elsewhere: no separator, drive or control character."""
    return (
        name not in {"", ".", ".."}
        and not set(name) & set('/\\:*?"<>|')
        and all(ord(character) >= 32 for character in name)
        and len(name) <= 255
    )


def _checked_name(name: str, argument: str) -> str:
    parts = PurePosixPath(name).parts
    if name == "." or (parts and all(is_plain_name(part) for part in parts)):
        return name
    raise ArgumentError(
        f"{argument}={name!r} does not stay inside the model's folder. Pass a relative name with '/' and without '..'."
    )


def _check_keywords(hub: HubKeywords) -> None:
    unknown = sorted(set(hub) - HUB_KEYWORDS)
    if unknown:
        raise TypeError(f"unexpected keyword arguments {unknown}; for the hub there are {sorted(HUB_KEYWORDS)}")
    if hub.get("force_download") and is_offline(hub):
        raise ArgumentError("force_download=True cannot work in offline mode. Pass False, or allow downloads.")


def _contains(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _local_file(folder: Path, name: str, required: bool) -> Path | None:
    path = folder / name
    # The file itself may be a link, as in the hub's cache or a store of large files; the folder it lies in may not.
    if not _contains(folder, path.parent):
        raise CheckpointError(f"{name} in {folder} leads out of the folder through a link. Pass the folder it lies in.")
    if path.is_file():
        return path
    if required:
        raise CheckpointError(f"{folder} has no file {name}. Is this the folder of a model, and is it complete?")
    return None


def _download(repository: str, name: str, required: bool, hub: HubKeywords) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    offline = is_offline(hub)
    try:
        path = hf_hub_download(
            repository,
            name,
            revision=hub.get("revision"),
            cache_dir=hub.get("cache_dir"),
            token=hub.get("token"),
            local_files_only=offline,
            force_download=hub.get("force_download", False),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            library_name="loquent",
        )
    except Exception as error:
        absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if not required and (absent or _is_cached_repository(repository, hub, offline)):
            return None
        _raise_hub_failure(error, f"download {name} of {_described(repository, hub)}", offline)
    return Path(path)


def _is_cached_repository(repository: str, hub: HubKeywords, offline: bool) -> bool:
    """Offline, whether the cache holds this revision at all, so that a file not in it may be taken as absent."""
    if not offline:
        return False
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            repository, revision=hub.get("revision"), cache_dir=hub.get("cache_dir"), local_files_only=True
        )
    except OSError:
        return False
    return True


def _snapshot(repository: str, patterns: Sequence[str] | None, subfolder: str, hub: HubKeywords) -> Path:
    from huggingface_hub import snapshot_download

    offline = is_offline(hub)
    prefix = "" if subfolder == "." else f"{subfolder}/"
    allowed = [prefix + pattern for pattern in (patterns if patterns is not None else ["*"])]
    try:
        path = snapshot_download(
            repository,
            revision=hub.get("revision"),
            cache_dir=hub.get("cache_dir"),
            token=hub.get("token"),
            local_files_only=offline,
            force_download=hub.get("force_download", False),
            allow_patterns=allowed,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            library_name="loquent",
        )
    except Exception as error:
        _raise_hub_failure(error, f"download {', '.join(allowed)} of {_described(repository, hub)}", offline)
    return Path(path)


def _described(repository: str, hub: HubKeywords) -> str:
    revision = hub.get("revision")
    return f'"{repository}"' if revision is None else f'"{repository}" (revision {revision!r})'


def _raise_hub_failure(error: Exception, asked: str, offline: bool) -> NoReturn:
    failure = hub_failure(error, asked, offline=offline)
    if failure is None:
        raise error
    raise failure from error
