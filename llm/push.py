"""Uploading an export to a model hub: Hugging Face's, or the one of $HF_ENDPOINT."""

from pathlib import Path

from core.errors import RunError, UsageError


def checked_name(repository: str) -> str:
    """OWNER/NAME as a hub takes it; raises UsageError."""
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415 - a second
    from huggingface_hub.utils import validate_repo_id  # noqa: PLC0415

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"--push: expected OWNER/NAME, got {repository!r}: {error}") from error
    if repository.count("/") != 1:
        raise UsageError(f"--push: expected OWNER/NAME, got {repository!r}")
    return repository


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a folder's files in one commit to a repository, which is made where there is none; returns its URL.

    The token is $HF_TOKEN, or that of `hf auth login`. Raises RunError when the hub refuses or cannot be reached.
    """
    from httpx import HTTPError  # noqa: PLC0415
    from huggingface_hub import HfApi  # noqa: PLC0415

    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {folder.name}")
    except (OSError, ValueError, HTTPError, RuntimeError) as error:
        cause = error.__cause__ or error  # an upload that failed says why one deeper
        why = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise RunError(f"--push: expected {repository} to take the files, got: {why}: see `hf auth login`") from error
    return str(url)
