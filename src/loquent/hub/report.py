"""What of a checkpoint did not fit its model, gathered into one error; finds nothing itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from loquent.errors import CheckpointError

_LONGEST = 20
_REMEDY = "Check that config.json and the weights belong together, and that the model class is the right one."


@dataclass
class LoadReport:
    """The tensors of a load that did not fit.

    missing: names that the model has and the checkpoint lacks.
    unexpected: names that the checkpoint has and the model lacks.
    mismatched: (name, shape in the checkpoint, shape in the model).
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def raise_if_any(
        self,
        folder: str | os.PathLike[str],
        owner: str = "its config",
        remedy: str = _REMEDY,
    ) -> None:
        """Raises a CheckpointError that lists everything, if there is anything; of very long lists the beginning.

        Args:
            folder: where the tensors are.
            owner: what they do not fit.
            remedy: what to do then.
        """
        shapes = [f"{name}: {list(found)}, but the model has {list(wanted)}" for name, found, wanted in self.mismatched]
        parts = [
            _listed("missing", self.missing),
            _listed("unexpected", self.unexpected),
            _listed("of another shape", shapes),
        ]
        text = "".join(parts)
        if text:
            raise CheckpointError(f"The tensors in {os.fspath(folder)} do not fit {owner}.{text}\n{remedy}")


def _listed(what: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    rest = f"\n    ... and {len(items) - _LONGEST} more" if len(items) > _LONGEST else ""
    return f"\n  {len(items)} {what}:" + "".join(f"\n    {item}" for item in sorted(items)[:_LONGEST]) + rest
