"""What benchmarks/strategies.py is made of: its prompts, its cases, and models that are easy to draft for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

import loquent

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_the_path() -> Iterator[None]:
    """The folder of the benchmarks is none of the package: it is imported from where it lies."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in [name for name in sys.modules if name.split(".")[0] in ("cpu", "strategies")]:
        del sys.modules[name]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of the same kind in seconds: narrow, and with fewer ids."""
    narrow = {"n_embd": 64, "n_head": 4, "vocab_size": 500}
    monkeypatch.setattr(loquent, "GPT2Config", partial(loquent.GPT2Config, **narrow))


@pytest.mark.usefixtures("small")
def test_the_copying_model_goes_on_with_its_prompts() -> None:
    from strategies.cases import CYCLE
    from strategies.checkpoints import copying

    model = copying().eval()
    prompt = torch.tensor([[5 * CYCLE + place % CYCLE for place in range(60)]])
    found = model.generate(prompt, max_new_tokens=50, do_sample=False)[0].tolist()
    assert found == [5 * CYCLE + place % CYCLE for place in range(110)]


@pytest.mark.usefixtures("small")
def test_the_draft_is_the_damped_models_first_layers() -> None:
    from strategies.cases import DRAFT_DEPTH
    from strategies.checkpoints import damped, draft

    whole, small = damped().eval(), draft().eval()
    assert small.config.n_layer == DRAFT_DEPTH < whole.config.n_layer
    ids = torch.arange(40)[None] + 5
    with torch.no_grad():
        agree = (whole(ids).logits.argmax(-1) == small(ids).logits.argmax(-1)).float().mean()
        states = whole(ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(small(ids, output_hidden_states=True).hidden_states[1], states[1])
    assert agree > 0.8


def test_every_way_to_draft_is_compared_with_decoding_without() -> None:
    from strategies.cases import SPECULATION

    for case in SPECULATION:
        plain = [
            other for other in SPECULATION if other.plain and (other.model, other.batch) == (case.model, case.batch)
        ]
        assert len(plain) == 1
        assert not plain[0].draft
