"""The index of a sharded checkpoint: which file holds which tensor; opens none of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from loquent.errors import CheckpointError
from loquent.hub.resolve import is_plain_name

# Half a million tensors with long names.
_MAX_BYTES = 100_000_000


def read_index(path: Path) -> dict[str, str]:
    """The `weight_map` of an index file: a tensor's name -> the name of the file in the same folder that holds it.

    Raises:
        CheckpointError: the file is no index, or a file it names is not a plain name, or leads out of the folder.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} is too large to be an index of tensors. Download or save it again.")
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}). Download or save it again.") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map of tensors to files. Download or save it again.")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not is_plain_name(shard):
            raise CheckpointError(
                f"{path} says that {name!r} is in {shard!r}, which is not the name of a file in the same folder. "
                "Do not use this checkpoint unless you trust where it comes from."
            )
    return weight_map


def shards(folder: Path, weight_map: dict[str, str]) -> list[Path]:
    """The files that an index names, each of which exists and lies in the folder.

    Raises:
        CheckpointError: lists every file that is missing; or a link leads out of the folder.
    """
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        listed = ", ".join(missing[:20]) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the {len(names)} files that its index names: {listed}. Download them."
        )
    for name in names:
        if not _is_inside(folder, folder / name):
            raise CheckpointError(
                f"{folder / name} is a link that leads out of the folder. Replace it by the file, or pass the folder "
                "that the file lies in."
            )
    return [folder / name for name in names]


def _is_inside(folder: Path, path: Path) -> bool:
    target, root = path.resolve(), folder.resolve()
    # In the hub's cache, snapshots/<commit>/ holds links into blobs/ beside it.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    return target.is_relative_to(root) or (blobs is not None and os.path.dirname(target) == str(blobs))
