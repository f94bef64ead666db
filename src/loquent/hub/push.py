"""Uploading a folder to the hub; what is in the folder is its caller's."""

from __future__ import annotations

import os
from pathlib import Path

from loquent.errors import ArgumentError, HubError
from loquent.hub.failures import hub_failure


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads the files of `folder` to the repository `repo_id`, made if need be; returns the commit's address.

    Args:
        folder: a folder on this disk; files that start with a dot are left out.
        repo_id: "name" or "owner/name".
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
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
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
            ignore_patterns=[".*", "**/.*"],
        )
    except Exception as error:
        failure = hub_failure(error, f'push to "{repo_id}"', offline=False)
        if failure is None:
            raise
        raise failure from error
    return str(commit.pr_url or commit.commit_url)
