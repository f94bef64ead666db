"""Uploads to a stand-in hub over HTTP, and what they leave there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.stand_in import StandInHub
from loquent.config import GenerationConfig, PretrainedConfig
from loquent.errors import ArgumentError, HubError
from loquent.hub.push import push_folder
from loquent.hub.writing import TensorToWrite, write_checkpoint


class TinyConfig(PretrainedConfig):
    model_type = "tiny"

    vocab_size: int = 10


@pytest.fixture
def logged_in(stand_in_hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    monkeypatch.setenv("HF_TOKEN", StandInHub.token)
    return stand_in_hub


def test_a_folder_arrives_whole(logged_in: StandInHub, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, [TensorToWrite("a", "U8", (3,), lambda: b"abc")])
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.txt").write_text("x")
    (tmp_path / ".secret").write_text("not for others")
    url = push_folder(tmp_path, "me/model", commit_message="First")
    files = logged_in.files("me/model")
    assert files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    assert files["sub/x.txt"] == b"x"
    assert ".secret" not in files
    assert logged_in.repositories["me/model"].messages[-1] == "First"
    assert url.startswith(f"{logged_in.endpoint}/me/model/commit/")


def test_a_bare_name_is_the_accounts_and_a_repository_may_be_private(logged_in: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    push_folder(tmp_path, "model", private=True)
    assert logged_in.repositories["me/model"].private
    push_folder(tmp_path, "model")
    assert len(logged_in.repositories["me/model"].messages) >= 2


def test_to_a_branch_and_as_a_pull_request(logged_in: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    push_folder(tmp_path, "me/model", revision="dev")
    assert logged_in.files("me/model", "dev")["a.txt"] == b"a"
    assert "a.txt" not in logged_in.files("me/model")
    url = push_folder(tmp_path, "me/model", create_pr=True)
    assert url.endswith("/me/model/discussions/1")
    assert "a.txt" not in logged_in.files("me/model")
    assert logged_in.files("me/model", "refs/pr/1")["a.txt"] == b"a"


def test_refusals_say_what_to_do(stand_in_hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"me/model.*hf auth login"):
        push_folder(tmp_path, "me/model", token="hf_wrong")
    with pytest.raises(HubError, match="right to do so"):
        push_folder(tmp_path, "other/model", token=StandInHub.token)
    with pytest.raises(HubError, match="neither an existing folder nor"):
        push_folder(tmp_path, "a/b/c", token=StandInHub.token)
    with pytest.raises(ArgumentError, match="folder="):
        push_folder(tmp_path / "absent", "me/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        push_folder(tmp_path, "me/model", token=StandInHub.token)
    assert stand_in_hub.repositories == {}


def test_an_unreachable_hub(stand_in_hub: StandInHub, tmp_path: Path) -> None:
    stand_in_hub.close()
    with pytest.raises(HubError, match="could not be reached"):
        push_folder(tmp_path, "me/model", token=StandInHub.token)


def test_a_config_goes_up_and_comes_down(logged_in: StandInHub, tmp_path: Path) -> None:
    config = TinyConfig(vocab_size=7, extra=[1])
    config.push_to_hub("me/tiny")
    assert TinyConfig.from_pretrained("me/tiny") == config
    TinyConfig(8).save_pretrained(tmp_path / "tiny2", push_to_hub=True, private=True)
    assert json.loads(logged_in.files("me/tiny2")["config.json"])["vocab_size"] == 8
    assert logged_in.repositories["me/tiny2"].private


def test_a_generation_config_goes_up_as_documented(
    logged_in: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = GenerationConfig(max_new_tokens=50, do_sample=True, top_k=40, eos_token_id=2)
    config.save_pretrained("me/my_model", push_to_hub=True)
    assert (tmp_path / "me" / "my_model" / "generation_config.json").is_file()
    other = GenerationConfig(num_beams=4)
    other.save_pretrained("me/my_model", "beams.json", push_to_hub=True, repo_id="me/my_model")
    monkeypatch.chdir("/")
    assert GenerationConfig.from_pretrained("me/my_model") == config
    assert GenerationConfig.from_pretrained("me/my_model", "beams.json") == other


def test_arguments_for_uploading_are_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="push_to_hub=True"):
        TinyConfig().save_pretrained(tmp_path, repo_id="me/x")
    with pytest.raises(ArgumentError, match="push_to_hub=True"):
        GenerationConfig().save_pretrained(tmp_path, commit_message="x")
