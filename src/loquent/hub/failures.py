"""What a failed hub call means to the person who made it; the calls themselves are elsewhere.

`huggingface_hub` reports a dozen kinds of failure, through two HTTP libraries depending on its version. Here each
becomes one `HubError` that says what was looked for, why it failed and what to do.
"""

from __future__ import annotations

from loquent.errors import HubError

_NETWORK_MODULES = ("requests", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2")


def hub_failure(error: Exception, asked: str, *, offline: bool) -> HubError | None:
    """The `HubError` for `error`, or None where the failure is not the hub's (a bug, a full disk).

    Args:
        error: what `huggingface_hub` raised.
        asked: what was wanted, as it reads after "Could not ...", such as `download config.json of "org/name"`.
        offline: whether offline mode kept the hub from being asked.
    """
    from huggingface_hub import errors as hf

    # "Not in the cache" and "forced download failed" wrap what went wrong with the hub, where it answered at all.
    if isinstance(error, hf.LocalEntryNotFoundError | ValueError) and isinstance(error.__cause__, hf.HfHubHTTPError):
        return hub_failure(error.__cause__, asked, offline=offline)
    # The order matters: gated is a kind of not-found, and so is "not in the cache".
    if isinstance(error, hf.GatedRepoError):
        reason = "access to it is gated. Accept its conditions on the hub, then run `hf auth login` or pass a token"
    elif isinstance(error, hf.RepositoryNotFoundError):
        reason = (
            "the hub has no such repository, or it is private. Check the spelling; for a private one log in with "
            "`hf auth login` or pass a token; for a folder on this machine pass a path that exists"
        )
    elif isinstance(error, hf.RevisionNotFoundError):
        reason = "the repository has no such revision. Pass revision= a branch, a tag or a commit that it has"
    elif isinstance(error, hf.LocalEntryNotFoundError):
        reason = _not_cached(offline)
    elif isinstance(error, hf.EntryNotFoundError):
        reason = "the repository has no such file at this revision. Check the name, the subfolder and the revision"
    elif isinstance(error, hf.OfflineModeIsEnabled):
        reason = _not_cached(offline=True)
    elif isinstance(error, hf.HFValidationError):
        reason = f'that is neither an existing folder nor a repository name like "org/name" ({error})'
    elif isinstance(error, hf.HfHubHTTPError):
        reason = _refused(error)
    elif isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.split(".")[0] in _NETWORK_MODULES:
        reason = f"the hub could not be reached ({error}). Check the network, or HF_ENDPOINT where it is set"
    else:
        return None
    return HubError(f"Could not {asked}: {reason}.")


def _not_cached(offline: bool) -> str:
    if offline:
        return (
            "it is not in the local cache, and offline mode keeps the hub from being asked. Download it once while "
            "online: unset HF_HUB_OFFLINE and do not pass local_files_only=True"
        )
    return (
        "it is not in the local cache and the hub could not be reached. Check the network, or HF_ENDPOINT where it is "
        "set, or pass a folder on this machine"
    )


def _refused(error: Exception) -> str:
    # Both HTTP libraries put the answer on the exception; neither type may be imported here.
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401:
        return "the hub did not accept the token (401). Log in with `hf auth login` or pass a valid token"
    if status == 403:
        return "the token does not allow that (403). Pass a token with the right to do so"
    return f"the hub answered with an error ({error}). Try again later, or check HF_ENDPOINT where it is set"
