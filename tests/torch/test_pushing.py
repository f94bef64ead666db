"""A model on a stand-in hub over HTTP: pushed, loaded by its name, and loaded again from the cache while offline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hub.stand_in import StandInHub
from loquent import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, HubError


@pytest.fixture
def logged_in(stand_in_hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    monkeypatch.setenv("HF_TOKEN", StandInHub.token)
    return stand_in_hub


@pytest.fixture
def model() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, eos_token_id=5))


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    theirs = right.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in left.state_dict().items())


def test_pushed_and_loaded_by_name_online_and_off(
    logged_in: StandInHub, model: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.generation_config.max_new_tokens = 7
    url = model.push_to_hub("me/tiny", commit_message="A model", max_shard_size=4096)
    assert url.startswith(f"{logged_in.endpoint}/me/tiny/commit/")
    assert "model.safetensors.index.json" in logged_in.files("me/tiny")
    loaded = AutoModelForCausalLM.from_pretrained("me/tiny")
    assert same(model, loaded)
    assert loaded.generation_config.max_new_tokens == 7
    logged_in.close()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert same(model, AutoModelForCausalLM.from_pretrained("me/tiny"))
    with pytest.raises(HubError, match="me/other"):
        AutoModelForCausalLM.from_pretrained("me/other")


def test_saving_with_push_uploads_what_was_saved_and_nothing_else(
    logged_in: StandInHub, model: GPT2LMHeadModel, tmp_path: Path
) -> None:
    (tmp_path / "diary.txt").write_text("not for others")
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/saved")
    assert set(logged_in.files("me/saved")) - {".gitattributes"} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }


def test_a_relative_folder_names_the_repository(
    logged_in: StandInHub, model: GPT2LMHeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("me/mine", push_to_hub=True)
    assert "model.safetensors" in logged_in.files("me/mine")
