"""An exported model by its folder or its name on the Hugging Face hub, and the way to the hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NATIVE_FILE = "panollava.json"
"""Of a native model that panollava has saved: its settings, beside the family's own files."""
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def local_folder(name: str | Path, options: Mapping[str, Any]) -> Path:
    """The folder itself, or a snapshot of a repository; of `options` those that the hub knows count."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    chosen = {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}
    return Path(snapshot_download(str(name), **chosen))


def upload(
    save: Callable[[Path], None],
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> Any:
    """Write a folder with `save` and upload it by huggingface_hub, which makes the repository where there is none."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    made = api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        return api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message=commit_message or "Upload by panollava",
            revision=revision, create_pr=create_pr,
        )  # fmt: skip
