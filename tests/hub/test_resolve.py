"""Names to files: folders, downloads from a stand-in hub over HTTP, its cache when offline, and every way to fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub.stand_in import StandInHub
from loquent.errors import ArgumentError, CheckpointError, HubError
from loquent.hub.checkpoint import open_checkpoint, resolve_checkpoint
from loquent.hub.resolve import is_plain_name, resolve_file, resolve_folder
from loquent.hub.writing import TensorToWrite, write_checkpoint


def read(name: str | Path, filename: str, **hub: object) -> bytes:
    path = resolve_file(name, filename, **hub)  # type: ignore[arg-type]
    assert path is not None
    return path.read_bytes()


def test_a_local_folder_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub" / "config.json").write_text("[]")
    assert resolve_file(tmp_path, "config.json") == tmp_path / "config.json"
    assert resolve_file(str(tmp_path), "config.json", subfolder="sub") == tmp_path / "sub" / "config.json"
    assert resolve_file(tmp_path, "absent.json", required=False) is None
    with pytest.raises(CheckpointError, match=r"absent\.json"):
        resolve_file(tmp_path, "absent.json")


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/../../b", "", "C:\\x", "a\\..\\b", "a\0b", ".."])
def test_no_filename_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "config.json").write_text("secret")
    with pytest.raises(ArgumentError, match="filename="):
        resolve_file(tmp_path / "model", name, required=False)
    with pytest.raises(ArgumentError, match="subfolder="):
        resolve_folder(tmp_path / "model", subfolder=name or "..")


def test_a_linked_subfolder_does_not_lead_out_either(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("secret")
    (tmp_path / "model" / "link").symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match="link"):
        resolve_file(tmp_path / "model", "config.json", subfolder="link")
    with pytest.raises(CheckpointError, match="link"):
        resolve_folder(tmp_path / "model", subfolder="link")


def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(stand_in_hub: StandInHub, tmp_path: Path) -> None:
    for name in [tmp_path / "absent", "./absent", "a/b/c", str(tmp_path / "absent"), "a b"]:
        with pytest.raises(HubError, match="neither a folder"):
            resolve_file(name, "config.json")
    assert stand_in_hub.requests == []


def test_downloads_then_reads_its_cache_offline(stand_in_hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_hub.add("org/name", {"config.json": b"{}", "sub/a.txt": b"a", "b.txt": b"b"})
    assert read("org/name", "config.json") == b"{}"
    assert read("org/name", "a.txt", subfolder="sub") == b"a"
    stand_in_hub.close()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert read("org/name", "config.json") == b"{}"
    assert read("org/name", "a.txt", subfolder="sub") == b"a"
    with pytest.raises(HubError, match="offline mode") as raised:
        resolve_file("org/name", "b.txt")
    assert "b.txt" in str(raised.value)
    assert "HF_HUB_OFFLINE" in str(raised.value)
    assert resolve_file("org/name", "b.txt", required=False) is None
    with pytest.raises(HubError, match="cache"):
        resolve_file("org/other", "b.txt", required=False)


def test_local_files_only_asks_nothing(stand_in_hub: StandInHub) -> None:
    stand_in_hub.add("org/name", {"config.json": b"{}"})
    with pytest.raises(HubError, match="local_files_only"):
        resolve_file("org/name", "config.json", local_files_only=True)
    assert stand_in_hub.requests == []
    resolve_file("org/name", "config.json")
    asked = len(stand_in_hub.requests)
    assert read("org/name", "config.json", local_files_only=True) == b"{}"
    assert len(stand_in_hub.requests) == asked


def test_revisions_are_branches_and_commits(stand_in_hub: StandInHub) -> None:
    first = stand_in_hub.add("org/name", {"config.json": b"1"})
    stand_in_hub.add("org/name", {"config.json": b"2"})
    stand_in_hub.add("org/name", {"config.json": b"3"}, revision="dev")
    assert read("org/name", "config.json") == b"2"
    assert read("org/name", "config.json", revision=first) == b"1"
    assert read("org/name", "config.json", revision="dev") == b"3"
    with pytest.raises(HubError, match="no such revision") as raised:
        resolve_file("org/name", "config.json", revision="v9")
    assert "v9" in str(raised.value)


def test_a_file_that_the_repository_lacks(stand_in_hub: StandInHub) -> None:
    stand_in_hub.add("org/name", {"config.json": b"{}"})
    assert resolve_file("org/name", "generation_config.json", required=False) is None
    with pytest.raises(HubError, match="no such file") as raised:
        resolve_file("org/name", "generation_config.json")
    assert "org/name" in str(raised.value)


def test_private_gated_and_absent_repositories(stand_in_hub: StandInHub) -> None:
    stand_in_hub.add("org/private", {"config.json": b"p"}, private=True)
    stand_in_hub.add("org/gated", {"config.json": b"g"}, gated=True)
    for name, reason in [("org/private", "private"), ("org/absent", "no such repository"), ("org/gated", "gated")]:
        with pytest.raises(HubError, match=reason) as raised:
            resolve_file(name, "config.json", required=False)
        assert "hf auth login" in str(raised.value)
        assert name in str(raised.value)
    assert read("org/private", "config.json", token=StandInHub.token) == b"p"
    assert read("org/gated", "config.json", token=StandInHub.token) == b"g"
    with pytest.raises(HubError, match="token"):
        resolve_file("org/private", "config.json", token="hf_wrong", force_download=True)


def test_an_unreachable_hub_is_named(stand_in_hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_hub.close()
    # The client waits longer and longer between its attempts.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(HubError, match="could not be reached"):
        resolve_file("org/name", "config.json")
    with pytest.raises(HubError, match="could not be reached"):
        resolve_folder("org/name", ["*.json"])


def test_a_cached_file_survives_an_unreachable_hub(stand_in_hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    stand_in_hub.add("org/name", {"config.json": b"{}"})
    read("org/name", "config.json")
    stand_in_hub.close()
    assert read("org/name", "config.json") == b"{}"


def test_force_download_and_cache_dir(stand_in_hub: StandInHub, tmp_path: Path) -> None:
    stand_in_hub.add("org/name", {"config.json": b"{}"})
    path = resolve_file("org/name", "config.json", cache_dir=tmp_path / "mine")
    assert path is not None
    assert path.is_relative_to(tmp_path / "mine")
    os.truncate(path.resolve(), 0)
    assert read("org/name", "config.json", cache_dir=tmp_path / "mine") == b""
    assert read("org/name", "config.json", cache_dir=tmp_path / "mine", force_download=True) == b"{}"


def test_a_folder_has_the_matching_files(stand_in_hub: StandInHub) -> None:
    stand_in_hub.add("org/name", {"config.json": b"{}", "x.bin": b"x", "sub/y.json": b"y", "sub/z.bin": b"z"})
    folder = resolve_folder("org/name", ["*.json"])
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["config.json"]
    inside = resolve_folder("org/name", ["*.json"], subfolder="sub")
    assert [path.name for path in inside.iterdir()] == ["y.json"]


def test_unknown_keywords_are_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="revison"):
        resolve_file(tmp_path, "config.json", revison="main")  # type: ignore[call-arg]


@pytest.mark.parametrize("sharded", [False, True])
def test_a_checkpoint_is_downloaded_alone_and_opens_from_the_cache(
    stand_in_hub: StandInHub, tmp_path: Path, sharded: bool
) -> None:
    (tmp_path / "made").mkdir()
    tensors = [TensorToWrite(name, "F32", (2,), lambda: b"\0\0\0\0\0\0\x80?") for name in ("a", "b")]
    write_checkpoint(tmp_path / "made", tensors, max_shard_size=8 if sharded else "1KB")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    stand_in_hub.add("org/name", files | {"pytorch_model.bin": b"pickle", "big.onnx": b"x"})
    folder = resolve_checkpoint("org/name")
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert open_checkpoint(folder)["b"].numpy().tolist() == [0.0, 1.0]
    stand_in_hub.close()
    again = resolve_checkpoint("org/name", local_files_only=True)
    assert sorted(open_checkpoint(again)) == ["a", "b"]


def test_a_repository_without_weights(stand_in_hub: StandInHub) -> None:
    stand_in_hub.add("org/name", {"config.json": b"{}"})
    with pytest.raises(HubError, match=r"pytorch_model\.bin"):
        resolve_checkpoint("org/name")


def test_plain_names() -> None:
    assert is_plain_name("model-00001-of-00002.safetensors")
    assert not any(map(is_plain_name, ["", ".", "..", "a/b", "/a", "a\\b", "C:a", "a\n", "x" * 256]))
