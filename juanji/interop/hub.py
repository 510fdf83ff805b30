"""Weight files by where they are: in a folder, or in a repository of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from juanji.errors import WeightsError

HUB = "hf:"
FILES = ("model.safetensors", "pytorch_model.bin")  # the first that a repository has


def weight_file(where: str | Path) -> Path:
    """The path of a weight file: `where` itself, or, for "hf:REPOSITORY" or "hf:REPOSITORY@REVISION", that of the copy
    which huggingface_hub (`pip install huggingface_hub`) keeps of the repository's `model.safetensors`, or else its
    `pytorch_model.bin`.

    Raises WeightsError where huggingface_hub is not installed, the hub cannot be reached, or the repository has none.
    """
    text = str(where)
    if not text.startswith(HUB):
        return Path(where)
    repository, _, revision = text.removeprefix(HUB).partition("@")
    return downloaded(text, repository, revision or None)


def downloaded(where: str, repository: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise WeightsError(
            f"{where}: huggingface_hub is needed to download weights",
            fix="pip install huggingface_hub, or download the file by other means and give its path",
        ) from None
    for name in FILES:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except errors.LocalEntryNotFoundError as error:  # which is an EntryNotFoundError, too
            raise unreachable(where, error) from None
        except errors.EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise unreachable(where, error) from None
    raise WeightsError(
        f"{where}: there are no weights in the repository",
        rule="a file " + " or ".join(FILES),
        fix="another repository, or download the file and give its path",
    )


def unreachable(where: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{where}: the weights cannot be downloaded",
        received=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300],
        fix="check the name and the connection, HF_ENDPOINT=URL for a mirror, "
        "or download the file by other means and give its path",
    )
