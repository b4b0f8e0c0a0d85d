"""The Hugging Face Hub: files and saved pipelines from it, and to it. Everything fetched goes to its own cache.

Names, revisions, tokens, the cache, mirrors (`HF_ENDPOINT`) and offline use (`HF_HUB_OFFLINE`) are as users of
diffusers know them; an interrupted download goes on where it stopped. Only data is fetched: safetensors, JSON,
tokenizer texts, and a single published file where it is named. Whatever goes wrong is a `StudioError` of one line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import InputError, MissingWeightsError, WeightsError

ID = re.compile(r"[\w.-]+/[\w.-]+")
FILE = re.compile(r"([\w.-]+/[\w.-]+)/([\w./ +-]+\.\w+)")  # owner/name/folder/file.suffix
DATA = ("model_index.json", "*/*.json", "*.json", "*.safetensors", "*/*.safetensors", "*/*.txt", "README.md")


def file(
    repository: str,
    name: str,
    *,
    kind: str = "model",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """One file of a repository, in the Hub's cache.

    Args:
        repository: owner/name.
        name: of the file in it.
        kind: "model" or "dataset".
        revision: branch, tag or commit; None is the main branch.
        token: of the user; None takes the one that is stored.
        cache_dir: another cache than the Hub's own.
        local_files_only: fetch nothing.

    Raises:
        MissingWeightsError: it is not there, or may not be had, or there is no connection.
        WeightsError: it cannot be written.
    """
    from huggingface_hub import hf_hub_download

    with one_line(repository, name, revision):
        return Path(
            hf_hub_download(
                repository,
                name,
                repo_type=kind,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only or offline(),
                endpoint=endpoint(),
            )
        )


def folder(
    repository: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The data of a repository (`DATA`), in the Hub's cache; never code, never pickles.

    Args:
        repository: owner/name.
        revision: see `file`, like the next three.
        token: see `file`.
        cache_dir: see `file`.
        local_files_only: see `file`.

    Raises:
        MissingWeightsError, WeightsError: see `file`.
    """
    from huggingface_hub import snapshot_download

    with one_line(repository, "its files", revision):
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only or offline(),
                allow_patterns=list(DATA),
                endpoint=endpoint(),
            )
        )


def names(
    repository: str, suffixes: tuple[str, ...], *, revision: str | None = None, token: str | bool | None = None
) -> list[str]:
    """The files of a repository with one of these suffixes.

    Raises:
        MissingWeightsError: see `file`.
    """
    from huggingface_hub import HfApi

    with one_line(repository, "its list of files", revision):
        found = HfApi(endpoint=endpoint(), token=token).list_repo_files(repository, revision=revision)
    return sorted(name for name in found if name.endswith(suffixes))


def push(local: Path, repository: str, *, token: str | None, private: bool, message: str) -> str:
    """Put a saved folder onto the Hub; the repository is made if needed.

    Returns:
        The address of the commit.

    Raises:
        InputError: no such name.
        MissingWeightsError: no permission, or no connection.
    """
    from huggingface_hub import HfApi

    if not ID.fullmatch(repository):
        raise InputError(f"a repository must be owner/name, got {repository!r}: give both")
    with one_line(repository, "the repository", None):
        api = HfApi(endpoint=endpoint(), token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=str(local), commit_message=message)
    return str(done.commit_url)


def endpoint() -> str | None:
    """The mirror that the user set, read anew for every call."""
    return os.environ.get("HF_ENDPOINT") or None


def offline() -> bool:
    """Whether nothing may be fetched: `STUDIO_OFFLINE`; huggingface_hub looks at `HF_HUB_OFFLINE` itself."""
    return os.environ.get("STUDIO_OFFLINE", "0") not in ("", "0")


@contextmanager
def one_line(repository: str, what: str, revision: str | None) -> Iterator[None]:
    """Turns what huggingface_hub raises, several lines as a rule, into one of this project's errors."""
    from huggingface_hub import errors

    at = f"{repository}@{revision}" if revision else repository
    try:
        yield
    except errors.GatedRepoError as error:
        raise MissingWeightsError(
            f"{at} must be open to you, it asks for consent on its page first: accept there, then give a token"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingWeightsError(f"{repository} must have the revision {revision!r}: name another") from error
    except errors.LocalEntryNotFoundError as error:
        # The cause tells a broken connection from "offline", which both end here.
        raise MissingWeightsError(
            f"{what} of {at} must be in the Hub's cache or within reach, and is not ({cause(error)}): go online once"
        ) from error
    except errors.EntryNotFoundError as error:
        raise MissingWeightsError(f"{at} must hold {what}, and does not: look on its page what it holds") from error
    except errors.RepositoryNotFoundError as error:
        raise MissingWeightsError(
            f"{at} must be a repository on the Hub that you may read, got {status(error)}: check the name, or give a"
            " token"
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"a repository must be owner/name, got {repository!r}: correct it") from error
    except errors.HfHubHTTPError as error:
        raise MissingWeightsError(f"{what} of {at} must be within reach, got {status(error)}: try later") from error
    except (errors.HTTPError, ConnectionError) as error:  # its client's, and OfflineModeIsEnabled
        raise MissingWeightsError(f"{what} of {at} must be within reach ({cause(error)}): go online") from error
    except OSError as error:
        raise WeightsError(f"{what} of {at} must be read and kept whole ({cause(error)}): try again") from error


def status(error: Exception) -> str:
    """What the server answered."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {code}" if code else type(error).__name__


def cause(error: BaseException) -> str:
    """The first line of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:120] if lines else type(error).__name__
