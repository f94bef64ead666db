"""Uploading a folder to the hub; what is in the folder is its caller's."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from loquent.errors import ArgumentError, HubError
from loquent.hub.failures import hub_failure
from loquent.hub.resolve import is_offline, is_repository


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    files: Iterable[str | os.PathLike[str]] | None = None,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads `files` of a folder to the repository `repo_id`, made if need be; returns the commit's address.

    Args:
        folder: a folder on this disk; files that start with a dot are left out.
        repo_id: "name" or "owner/name".
        files: which of its files, as paths or as names in the folder; all of them if None.
        commit_message: what the commit says.
        private: whether a repository that this makes is private (the account's default if None).
        token: an access token; the stored one if None.
        revision: the branch to commit to, made from "main" if need be.
        create_pr: propose the commit as a pull request instead of making it.

    Raises:
        ArgumentError: there is no such folder.
        HubError: offline mode is on, the hub refused, or it could not be reached.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ArgumentError(f"folder={str(folder)!r} is not a folder. Save into it first.")
    if is_offline({}):
        raise HubError(f'Could not push to "{repo_id}": offline mode is on. Unset HF_HUB_OFFLINE.')
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token, library_name="loquent")
    try:
        # The hub completes a bare name with the account that the token belongs to.
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr/"):
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=path,
            commit_message=commit_message or "Upload with loquent",
            revision=revision,
            create_pr=create_pr,
            allow_patterns=None if files is None else [_escaped(path, file) for file in files],
            ignore_patterns=[".*", "**/.*"],
        )
    except Exception as error:
        failure = hub_failure(error, f'push to "{repo_id}"', offline=False)
        if failure is None:
            raise
        raise failure from error
    return str(commit.pr_url or commit.commit_url)


def repository_of(save_directory: str | os.PathLike[str]) -> str:
    """The repository that a folder is pushed to where none is named: a relative "owner/name", or the folder's name."""
    name = "/".join(Path(save_directory).parts)
    return name if name.count("/") == 1 and is_repository(name) else Path(save_directory).resolve().name


def _escaped(folder: Path, file: str | os.PathLike[str]) -> str:
    """A pattern that matches this file of the folder alone."""
    path = Path(file)
    name = (path.relative_to(folder) if path.is_absolute() or path.is_relative_to(folder) else path).as_posix()
    return glob.escape(name)
