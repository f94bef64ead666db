"""The padded `forward`: padding changes nothing, steps with a cache give what one pass gives, bad input is refused."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, VOCABULARY, distinct_ids, pair, tiny

from loquent import DynamicCache
from loquent.errors import ArgumentError, ContextLengthError

MASKS = torch.tensor(
    [
        [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],  # left padding
        [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],  # right padding
        [1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1],  # holes
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    ]
)


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing_and_is_zeros(name: str) -> None:
    model = tiny(name)
    ids = distinct_ids(4, 12)
    with torch.no_grad():
        padded = model(ids.masked_fill(MASKS == 0, 99_999), attention_mask=MASKS, output_hidden_states=True)
        for row in range(4):
            real = MASKS[row] == 1
            alone = model(ids[row : row + 1, real], output_hidden_states=True)
            torch.testing.assert_close(padded.logits[row, real], alone.logits[0], atol=2e-5, rtol=1e-4)
            for one, other in zip(padded.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(one[row, real], other[0], atol=2e-5, rtol=1e-4)
                assert not one[row, ~real].any()
            assert not padded.logits[row, ~real].any()


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_steps_with_a_cache_give_what_one_pass_gives(name: str, grad: bool) -> None:
    model = tiny(name)
    ids = distinct_ids(4, 40)
    mask = torch.cat([MASKS, MASKS.flip(0), torch.ones(4, 16, dtype=torch.long)], 1)
    with torch.set_grad_enabled(grad):
        whole = model(ids, attention_mask=mask).logits
        cache, pieces, start = None, [], 0
        for stop in (5, 6, 7, 15, 16, 17, 33, 40):
            output = model(ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache)
            cache, start = output.past_key_values, stop
            pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=3e-5, rtol=1e-4)
    assert cache.get_seq_length() == 40
    assert len(cache) == 2


@pytest.mark.parametrize("name", ALL)
def test_attention_weights_are_those_of_transformers(name: str) -> None:
    ours, theirs = pair(name)
    ids = distinct_ids(2, 12)
    with torch.no_grad():
        own, other = ours(ids, output_attentions=True), theirs(ids, output_attentions=True)
    for one, two in zip(own.attentions, other.attentions, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own.logits, ours(ids).logits, atol=2e-5, rtol=1e-4)


def test_attention_weights_behind_a_cache_with_padding() -> None:
    model = tiny("gpt_neo")
    ids = distinct_ids(4, 12)
    with torch.no_grad():
        whole = model(ids, attention_mask=MASKS, output_attentions=True).attentions
        cache = model(ids[:, :7], attention_mask=MASKS[:, :7]).past_key_values
        rest = model(ids[:, 7:], attention_mask=MASKS, past_key_values=cache, output_attentions=True).attentions
    for one, two in zip(whole, rest, strict=True):
        torch.testing.assert_close(two, one[:, :, 7:], atol=1e-5, rtol=1e-4)


def test_positions_are_taken_as_given() -> None:
    ours, theirs = pair("gpt2")
    ids, positions = distinct_ids(2, 6), torch.tensor([[4, 5, 6, 7, 8, 9], [0, 2, 4, 6, 8, 127]])
    with torch.no_grad():
        torch.testing.assert_close(
            ours(ids, position_ids=positions).logits,
            theirs(ids, position_ids=positions).logits,
            atol=2e-5,
            rtol=1e-4,
        )


def test_token_types_are_embedded_like_tokens() -> None:
    ours, theirs = pair("gpt2")
    ids = distinct_ids(2, 6)
    types = torch.randint(0, VOCABULARY, ids.shape)
    with torch.no_grad():
        expected = theirs(ids, token_type_ids=types).logits
        torch.testing.assert_close(ours(ids, token_type_ids=types).logits, expected, atol=2e-5, rtol=1e-4)


def test_logits_to_keep() -> None:
    model = tiny("llama")
    ids = distinct_ids(4, 12)
    with torch.no_grad():
        whole = model(ids, attention_mask=MASKS).logits
        assert torch.equal(model(ids, attention_mask=MASKS, logits_to_keep=3).logits, whole[:, -3:])
        assert model(ids, logits_to_keep=99).logits.shape[1] == 12
        picked = torch.tensor([0, 11, 5])
        found = model(ids, attention_mask=MASKS, logits_to_keep=picked).logits
        torch.testing.assert_close(found, whole[:, picked])


def test_outputs_by_name_index_and_tuple() -> None:
    model = tiny("gpt2")
    ids = distinct_ids(1, 4)
    output = model(ids, labels=ids)
    assert list(output) == ["loss", "logits", "past_key_values"]
    assert output[0] is output.loss is output["loss"]
    assert output.hidden_states is None
    logits, cache = model(ids, return_dict=False)
    assert torch.equal(logits, output.logits)
    assert isinstance(cache, DynamicCache)
    assert model(ids, use_cache=False).past_key_values is None
    assert model.train()(ids).past_key_values is None


def test_embeddings_instead_of_ids() -> None:
    model = tiny("doge")
    ids = distinct_ids(2, 5)
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model(inputs_embeds=embeds).logits, model(ids).logits)


def test_a_cropped_or_reordered_cache_continues_as_if_new() -> None:
    model = tiny("llama")
    ids = distinct_ids(4, 12)
    with torch.no_grad():
        cache = model(ids, attention_mask=MASKS).past_key_values
        cache.crop(9)
        cache.crop(-1)
        assert cache.get_seq_length() == 8
        order = torch.tensor([2, 0, 2])
        cache.reorder_cache(order)
        found = model(ids[order, 8:], attention_mask=MASKS[order], past_key_values=cache).logits
        torch.testing.assert_close(found, model(ids, attention_mask=MASKS).logits[order, 8:], atol=2e-5, rtol=1e-4)


_IDS = torch.arange(6).view(1, 6)

BAD = [
    ({}, "neither"),
    ({"input_ids": _IDS, "inputs_embeds": torch.zeros(1, 6, 32)}, "both"),
    ({"input_ids": _IDS[0]}, "shape"),
    ({"input_ids": _IDS.float()}, "integers"),
    ({"input_ids": _IDS[:, :0]}, "nothing to read"),
    ({"input_ids": _IDS + 70}, "vocabulary is 0 to 70"),
    ({"input_ids": _IDS - 1}, "the id -1"),
    ({"inputs_embeds": torch.zeros(1, 6, 31)}, "inputs_embeds"),
    ({"input_ids": _IDS, "attention_mask": torch.ones(1, 5)}, "attention_mask has shape"),
    ({"input_ids": _IDS, "attention_mask": torch.zeros(1, 6)}, "no token in row 0"),
    ({"input_ids": _IDS, "attention_mask": torch.full((1, 6), 2)}, "only 0"),
    ({"input_ids": _IDS, "position_ids": _IDS[:, :4]}, "position_ids"),
    ({"input_ids": _IDS, "position_ids": _IDS - 1}, "start at 0"),
    ({"input_ids": _IDS, "labels": _IDS[:, 1:]}, "labels has shape"),
    ({"input_ids": _IDS, "labels": _IDS, "logits_to_keep": 2}, "logits_to_keep at 0"),
    ({"input_ids": _IDS, "logits_to_keep": -1}, "logits_to_keep"),
    ({"input_ids": _IDS, "logits_to_keep": torch.tensor([6])}, "logits_to_keep"),
    ({"input_ids": _IDS, "past_key_values": ((torch.zeros(1),),)}, "DynamicCache"),
    ({"input_ids": _IDS, "token_type_ids": _IDS[:, :2]}, "token_type_ids"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        tiny("gpt2")(**arguments)


def test_positions_past_the_learned_ones_are_refused() -> None:
    model = tiny("gpt2")
    with pytest.raises(ContextLengthError, match="position 128"):
        model(torch.zeros(1, 129, dtype=torch.long))
    with pytest.raises(ContextLengthError, match="position 128"):
        model(_IDS, position_ids=_IDS + 123)
    assert model(_IDS, position_ids=_IDS + 122).logits.isfinite().all()


def test_a_cache_of_other_rows_masks_or_models_is_refused() -> None:
    model = tiny("llama")
    cache = model(_IDS, attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1]])).past_key_values
    with pytest.raises(ArgumentError, match="differs"):
        model(_IDS, attention_mask=torch.ones(1, 12), past_key_values=cache)
    with pytest.raises(ArgumentError, match="rows"):
        model(_IDS.repeat(2, 1), past_key_values=cache)
    with pytest.raises(ArgumentError, match="another shape"):
        tiny("gpt2")(_IDS, past_key_values=cache)
    assert cache.get_seq_length() == 6  # a refused call changes nothing
    with pytest.raises(TypeError, match="unexpected"):
        model(_IDS, masks=None)


def test_what_is_no_tensor_is_refused_with_the_way_to_one() -> None:
    model, ids = tiny("llama"), distinct_ids(1, 4)
    for arguments, message in [
        ({"input_ids": "text"}, "input_ids is a str, not a tensor. Texts become ids by the tokenizer"),
        ({"input_ids": {"input_ids": ids}}, "input_ids is a dict, .* model\\(\\*\\*inputs\\)"),
        ({"input_ids": [[1, 2]]}, "input_ids is a list, .* return_tensors"),
        ({"input_ids": ids, "attention_mask": [[1] * 4]}, "attention_mask is a list"),
        ({"input_ids": ids, "labels": ids.tolist()}, "labels is a list"),
        ({"input_ids": ids, "position_ids": [[0, 1, 2, 3]]}, "position_ids is a list"),
        ({"input_ids": ids, "logits_to_keep": 1.5}, "logits_to_keep=1.5"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            model(**arguments)
