"""Masks at their edges: windows, Doge's choice of keys with its ties, and long prompts attended in blocks."""

from __future__ import annotations

import pytest
import torch
from tiny_models import distinct_ids, tiny

from loquent.torch import attend
from loquent.torch.attend import select_keys


def chosen_slowly(values: list[float], visible: list[bool], keep: int) -> list[bool]:
    """The rule as it reads: the largest `keep` of the visible, of equal ones the most recent."""
    places = [place for place, seen in enumerate(visible) if seen]
    if len(values) <= keep or len(places) <= keep:
        return list(visible)
    best = sorted(places, key=lambda place: (values[place], place), reverse=True)[:keep]
    return [place in best for place in range(len(values))]


@pytest.mark.parametrize("levels", [1, 2, 3, 1000])
@pytest.mark.parametrize("keep", [1, 3, 7, 8])
def test_the_largest_are_kept_and_of_equal_ones_the_most_recent(keep: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(keep * levels)
    values = torch.randint(0, levels, (2, 3, 1, 9), generator=generator).float() / levels  # (rows, heads, 1, keys)
    visible = torch.rand(2, 1, 5, 9, generator=generator) < 0.7
    visible[..., -1] = True
    chosen = select_keys(values, visible, keep)
    for row in range(2):
        for head in range(3):
            for query in range(5):
                expected = chosen_slowly(values[row, head, 0].tolist(), visible[row, 0, query].tolist(), keep)
                assert chosen[row, head, query].tolist() == expected


def test_nothing_is_chosen_among_few() -> None:
    values = torch.rand(1, 1, 1, 5)
    assert select_keys(values, None, 5) is None
    assert select_keys(values, None, 4).sum() == 4


def test_values_that_differ_by_rounding_are_equal() -> None:
    values = torch.tensor([1.3, 1.3, 1.3, 1.2])
    values[0] += 2e-7
    assert select_keys(values[None], None, 2).tolist() == [[False, True, True, False]]
    values[0] += 1e-3
    assert select_keys(values[None], None, 2).tolist() == [[True, False, True, False]]


def test_equal_values_keep_the_most_recent_tokens() -> None:
    """With a decay of zero, as in a fresh Doge, all values tie: the model is then one with a sliding window."""
    kept, windowed = tiny("doge", keep_window_size=4), tiny("doge", sliding_window=4)
    for model in (kept, windowed):
        for block in model.model.blocks:
            block.attention.dynamic_mask.decay.data.zero_()
    ids = distinct_ids(2, 15)
    with torch.no_grad():
        torch.testing.assert_close(kept(ids).logits, windowed(ids).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [4, 5, 6, 7])
def test_a_window_counts_the_token_itself(length: int) -> None:
    model = tiny("doge", sliding_window=5, num_hidden_layers=1)
    ids = distinct_ids(1, length)
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % 71
    with torch.no_grad():
        same = torch.isclose(model(ids).logits, model(changed).logits, atol=1e-6).all(-1)[0]
    assert same.tolist() == [place > 4 for place in range(length)]


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "doge", "doge-keep", "gpt_bigcode"])
def test_blocks_of_queries_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(name)
    ids = distinct_ids(2, 40)
    with torch.no_grad():
        whole = model(ids).logits
        cache = model(ids[:, :11]).past_key_values
        monkeypatch.setattr(attend, "_SCORE_ELEMENTS", 700)
        blocks = model(ids).logits
        rest = model(ids[:, 11:], past_key_values=cache).logits
    torch.testing.assert_close(blocks, whole, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(rest, whole[:, 11:], atol=2e-5, rtol=1e-4)
