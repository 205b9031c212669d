"""Shared fixtures: tiny random bases on disk, and a machine without hub, cache or spare threads."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs remember of their test splits stays out of the user's home."""
    os.environ["TAILOR_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal LM's folder."""
    import tiny

    return tiny.save_llama(tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked LM's folder."""
    import tiny

    return tiny.save_bert(tmp_path_factory.mktemp("bases") / "tiny-bert")


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder's folder."""
    import tiny

    return tiny.save_t5(tmp_path_factory.mktemp("bases") / "tiny-t5")


@pytest.fixture(scope="session")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another kind of encoder-decoder."""
    import tiny

    return tiny.save_bart(tmp_path_factory.mktemp("bases") / "tiny-bart")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image pipeline of Stable Diffusion's shape."""
    import tiny_pipelines

    return tiny_pipelines.saved("sd", tmp_path_factory.mktemp("bases") / "tiny-sd")
