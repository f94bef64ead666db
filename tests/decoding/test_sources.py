"""DoLa and guidance: against transformers, a row at a time, and by their own formulas on a toy, with every strategy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoding.pairs import MakePair
from engine.toy import ToyBackend
from loquent import ArgumentError, ContextLengthError
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.rules import Suppress, Temperature
from loquent.decoding.sources import DoLa, Guidance, Source, candidate_layers, scored_by
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import beam_search, contrastive_search, one_by_one
from loquent.decoding.task import Decoding, Read, Strategy, Task
from loquent.decoding.trace import Chosen, Contrasted, LayerChosen
from loquent.decoding.wants import Next, Proposal, Rows, Verify
from loquent.engine import Engine
from loquent.errors import CapacityError

PAD = 1
PROMPTS = [[3, 4, 5, 6], [7, 7], [30, 2, 9, 9, 9, 12, 8]]
NEGATIVES = [[9, 8, 7], [3], [5, 5, 6, 11, 12, 13]]

SETTINGS: dict[str, dict[str, Any]] = {
    "low": {"dola_layers": "low"},
    "high": {"dola_layers": "high"},
    "embeddings": {"dola_layers": [0]},
    "both": {"dola_layers": [0, 1]},
    "both, repetition": {"dola_layers": [1, 0], "repetition_penalty": 1.4},
    "high, several ends": {"dola_layers": "high", "eos_token_id": [2, 5, 11, 17, 33]},
    "both, bad words": {"dola_layers": [0, 1], "bad_words_ids": [[4], [9, 9], [12]]},
    "guided, no repeated pairs": {"guidance_scale": 2.0, "negative": True, "no_repeat_ngram_size": 2},
    "guided by the last token": {"guidance_scale": 1.5},
    "guided": {"guidance_scale": 3.0, "negative": True},
    "guided a little": {"guidance_scale": 0.5, "negative": True},
    "the negative prompt alone": {"guidance_scale": 0, "negative": True},
    "led towards it": {"guidance_scale": -1.5, "negative": True},
    "guided, repetition": {"guidance_scale": 2.0, "negative": True, "repetition_penalty": 1.3},
    "guided, ended": {"guidance_scale": 2.0, "negative": True, "eos_token_id": [2, 5, 11, 17, 33]},
    "guided, low": {"guidance_scale": 2.5, "negative": True, "dola_layers": "low"},
    "guided, both": {"guidance_scale": 1.5, "dola_layers": [0, 1], "repetition_penalty": 1.2},
}


STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 7},
    "beams": {"num_beams": 3},
    "sampling beams": {"num_beams": 3, "do_sample": True, "seed": 7},
    "diverse beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    "constrained beams": {"num_beams": 3, "force_words_ids": [[9, 12]]},
    "contrastive": {"penalty_alpha": 0.5, "top_k": 4},
    "lookup": {"prompt_lookup_num_tokens": 4},
    "early exit": {"assistant_early_exit": 1},
}


def arguments(row: int, asked: dict[str, Any]) -> dict[str, Any]:
    chosen = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": PAD, **asked}
    if chosen.pop("negative", False):
        chosen["negative_prompt_ids"] = torch.tensor([NEGATIVES[row]])
    return chosen


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_and_scores_are_those_of_transformers(llama_pair: MakePair, name: str, seed: int) -> None:
    ours, theirs = llama_pair(seed)
    for row, prompt in enumerate(PROMPTS):
        asked, ids, scores = arguments(row, SETTINGS[name]), torch.tensor([prompt]), []

        def keep(input_ids: Any, rows: Any, kept: list[Any] = scores) -> Any:
            kept.append(rows.clone())
            return rows

        found = ours.generate(ids, logits_processor=[keep], **asked)
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), output_scores=True, return_dict_in_generate=True, **asked
        )
        assert found.tolist() == expected.sequences.tolist()
        torch.testing.assert_close(scores, list(expected.scores), rtol=1e-5, atol=1e-4)
        assert ours.generate(ids, **asked).tolist() == found.tolist()
    assert ours._engine_slot.engine.space.held == 0


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 3),
    prompt=st.lists(st.integers(2, 36), min_size=1, max_size=6),
    negative=st.lists(st.integers(2, 36), min_size=1, max_size=6),
    scale=st.floats(-3, 5).map(lambda scale: round(scale, 2)),
    layers=st.sampled_from([None, "low", "high", [0], [0, 1]]),
    penalty=st.sampled_from([1.0, 0.8, 1.3]),
)
def test_any_settings(
    llama_pair: MakePair, seed: int, prompt: list[int], negative: list[int], scale: float, layers: Any, penalty: float
) -> None:
    if layers is not None and scale <= 0:
        scale = 1 - scale  # there, dropped tokens come out on top, or as no numbers
    ours, theirs = llama_pair(seed)
    ids, negatives = torch.tensor([prompt]), torch.tensor([negative])
    asked = {**arguments(0, {}), "guidance_scale": scale, "dola_layers": layers, "repetition_penalty": penalty}
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), negative_prompt_ids=negatives, **asked)
    assert ours.generate(ids, negative_prompt_ids=negatives, **asked).tolist() == expected.tolist()


def test_samples_are_drawn_from_the_scores(llama_pair: MakePair) -> None:
    """As one would draw from transformers' scores with our random numbers."""
    ours, theirs = llama_pair(1)
    for row, name in enumerate(["both", "guided", "guided, low"]):
        asked = {**arguments(row, SETTINGS[name]), "do_sample": True, "temperature": 1.3, "top_k": 20}
        found = ours.generate([PROMPTS[row]], seed=5, **asked)[0].tolist()
        length = len(PROMPTS[row])
        for position in range(length, len(found)):
            # Guidance of transformers goes on with the token that it reads last: what came before is read as forced.
            forced = iter(found[length:position])

            def force(input_ids: Any, scores: Any, tokens: Any = forced) -> Any:
                token = next(tokens, None)
                if token is None:
                    return scores
                return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([token]), 0.0)

            ids = torch.tensor([PROMPTS[row]])
            plain = {**arguments(row, SETTINGS[name]), "max_new_tokens": position - length + 1}
            scores = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=transformers_list(force),
                output_scores=True,
                return_dict_in_generate=True,
                **plain,
            ).scores[-1][0]
            scores = scores.double() / 1.3
            scores[scores < scores.topk(20).values[-1]] = -torch.inf
            sums = torch.softmax(scores, 0).cumsum(0)
            assert found[position] == int((sums <= uniform(5, position, Purpose.DRAW)).sum())


def transformers_list(processor: Any) -> Any:
    import transformers

    return transformers.LogitsProcessorList([processor])


@pytest.mark.parametrize("name", ["both", "guided by the last token", "guided, ended", "guided, low"])
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_batch_gives_what_each_row_gives_alone(llama_pair: MakePair, name: str, strategy: dict[str, Any]) -> None:
    ours, _ = llama_pair(3)
    asked = {**arguments(0, SETTINGS[name]), **strategy}
    negative = asked.pop("negative_prompt_ids", None) is not None
    batch = ours.generate(PROMPTS, **asked, **({"negative_prompt_ids": NEGATIVES} if negative else {})).tolist()
    width = max(map(len, PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        own = {"negative_prompt_ids": [NEGATIVES[row]]} if negative else {}
        new = ours.generate([prompt], **asked, **own)[0].tolist()[len(prompt) :]
        assert batch[row][width:] == new + [PAD] * (len(batch[row]) - width - len(new))
    assert ours._engine_slot.engine.space.held == 0


@pytest.mark.parametrize("name", ["both", "guided", "guided, both"])
@pytest.mark.parametrize("drafts", ["lookup", "early exit"])
def test_drafts_change_nothing(llama_pair: MakePair, name: str, drafts: str) -> None:
    ours, _ = llama_pair(2)
    for row, prompt in enumerate([[3, 4, 3, 4, 3], *PROMPTS[1:]]):
        asked = {**arguments(row, SETTINGS[name]), "max_new_tokens": 25}
        drafted = ours.generate([prompt], **asked, **STRATEGIES[drafts]).tolist()
        assert drafted == ours.generate([prompt], **asked).tolist()


@pytest.mark.parametrize("name", ["both", "guided", "guided, low", "contrastive, guided"])
def test_kept_rows_are_those_of_transformers(llama_pair: MakePair, name: str) -> None:
    """Scores are behind the sources and rules, logits the model's own."""
    ours, theirs = llama_pair(1)
    settings = {**SETTINGS, "contrastive, guided": {**SETTINGS["guided"], "penalty_alpha": 0.5, "top_k": 4}}
    ids = torch.tensor([PROMPTS[0]])
    asked = {**arguments(0, settings[name]), "repetition_penalty": 1.2, "attention_mask": torch.ones_like(ids)}
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    found, expected = ours.generate(ids, **asked, **wanted), theirs.generate(ids, **asked, **wanted)
    torch.testing.assert_close(list(found.scores), list(expected.scores), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(list(found.logits), list(expected.logits), rtol=1e-5, atol=1e-4)


def test_negative_prompts_come_in_any_form(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(1)
    asked = {**arguments(0, {}), "guidance_scale": 2.0}
    each = ours.generate(PROMPTS, negative_prompt_ids=NEGATIVES, **asked).tolist()
    padded = torch.tensor([[30] * (6 - len(row)) + row for row in NEGATIVES])
    mask = torch.tensor([[0] * (6 - len(row)) + [1] * len(row) for row in NEGATIVES])
    forms = {"negative_prompt_ids": padded, "negative_prompt_attention_mask": mask}
    assert ours.generate(PROMPTS, **forms, **asked).tolist() == each
    assert ours.generate(PROMPTS, negative_prompt_ids=padded, **asked).tolist() != each
    one = ours.generate(PROMPTS, negative_prompt_ids=[NEGATIVES[0]] * 3, **asked).tolist()
    assert ours.generate(PROMPTS, negative_prompt_ids=NEGATIVES[0], **asked).tolist() == one


# --- on a toy --------------------------------------------------------------------------------------------------------


def rows_of(toy: ToyBackend, tokens: list[int]) -> dict[int, Any]:
    """What the head makes of each layer behind `tokens`, as log-probabilities."""
    pairs = np.stack([np.array(tokens, float), np.arange(len(tokens), dtype=float)], axis=1)
    rows = {layer: toy.head(toy._state(pairs, layer)[None])[0].astype(float) for layer in range(toy.layers + 1)}
    return {layer: row - np.log(np.exp(row).sum()) for layer, row in rows.items()}


def divergence(last: Any, early: Any) -> float:
    mean = (np.exp(last) + np.exp(early)) / 2
    return float((mean * (np.log(mean) - last)).sum() + (mean * (np.log(mean) - early)).sum()) / 2


def dola_row(toy: ToyBackend, tokens: list[int], layers: tuple[int, ...]) -> tuple[Any, int]:
    rows = rows_of(toy, tokens)
    layer = max(layers, key=lambda layer: divergence(rows[2], rows[layer]))
    return np.where(rows[2] < rows[2].max() + np.log(0.1), -np.inf, rows[2] - rows[layer]), layer


def guided_row(toy: ToyBackend, tokens: list[int], prompt: int, negative: list[int], scale: float) -> Any:
    wanted, unwanted = rows_of(toy, tokens)[2], rows_of(toy, [*negative, *tokens[prompt:]])[2]
    return unwanted + scale * (wanted - unwanted)


def sourced(decoding: Decoding, *sources: Source) -> Decoding:
    shadow = sum(len(source.negative) for source in sources if isinstance(source, Guidance))
    return replace(decoding, source=partial(scored_by, sources), shadow=shadow)


def run(engine: Engine, prompt: list[int], decoding: Decoding) -> list[tuple[int, ...]]:
    handle = engine.submit(prompt, decoding)
    most = engine.room.most_bytes(len(prompt), decoding)
    while engine.step():
        assert engine.space.held <= most
    assert engine.space.held == 0
    return [hypothesis.tokens for hypothesis in handle.result()]


DOLA = DoLa((0, 1))
GUIDANCE = Guidance(2.5, np.array([7, 8, 9]))
GREEDY = Decoding(one_by_one, Stopping(10))


def greedily(prompt: list[int], row: Any, count: int = 10) -> tuple[int, ...]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(row(tokens).argmax()))
    return tuple(tokens[len(prompt) :])


def test_greedy_by_the_formulas() -> None:
    toy = ToyBackend()
    for prompt in ([3], [1, 2, 3], [4] * 9):
        assert run(Engine(toy, page_size=4, step_tokens=5), prompt, sourced(GREEDY, DOLA)) == [
            greedily(prompt, lambda tokens: dola_row(toy, tokens, (0, 1))[0])
        ]
        assert run(Engine(toy, page_size=4, step_tokens=5), prompt, sourced(GREEDY, GUIDANCE)) == [
            greedily(prompt, partial(guided_row, toy, prompt=len(prompt), negative=[7, 8, 9], scale=2.5))
        ]


def test_sources_that_change_nothing() -> None:
    """Guided by a scale of 1, whichever strategy: the same tokens, random numbers included."""
    for decoding in strategies():
        plain = run(Engine(ToyBackend()), [1, 2, 3], decoding)
        assert run(Engine(ToyBackend()), [1, 2, 3], sourced(decoding, Guidance(1.0, np.array([5])))) == plain
        assert run(Engine(ToyBackend()), [1, 2, 3], sourced(decoding, Guidance(3.0, np.array([1, 2, 3])))) == plain


def strategies() -> list[Decoding]:
    beams = partial(beam_search, width=3, length_penalty=1.0, early_stopping=False)
    contrastive = partial(contrastive_search, alpha=0.5, count=4, layer=2)
    return [
        GREEDY,
        Decoding(one_by_one, Stopping(10), (Temperature(1.2),), sampled=True, seed=3),
        Decoding(beams, Stopping(8, eos=(2,)), branches=3),
        Decoding(contrastive, Stopping(8), branches=4, own_tokens=1),
        Decoding(partial(drafted, every=3), Stopping(10)),
    ]


@pytest.mark.parametrize("sources", [(DOLA,), (GUIDANCE,), (DOLA, GUIDANCE)], ids=["DoLa", "guidance", "both"])
def test_all_strategies_side_by_side_give_what_each_gives_alone(sources: tuple[Source, ...]) -> None:
    asked = [sourced(decoding, *sources) for decoding in strategies()] + strategies()
    alone = [run(Engine(ToyBackend(), page_size=4), [1, 2, 3, 4, 5], decoding) for decoding in asked]
    engine = Engine(ToyBackend(), page_size=4, step_tokens=16)
    handles = [engine.submit([1, 2, 3, 4, 5], decoding) for decoding in asked]
    while engine.step():
        pass
    assert [[hypothesis.tokens for hypothesis in handle.result()] for handle in handles] == alone
    assert engine.space.held == 0
    assert alone[: len(alone) // 2] != alone[len(alone) // 2 :]


@pytest.mark.parametrize("guided", [False, True])
def test_a_full_beam_finds_the_best_of_all(guided: bool) -> None:
    toy = ToyBackend(vocabulary=5)
    beams = partial(beam_search, width=125, length_penalty=0.0, early_stopping="never")
    source = Guidance(1.7, np.array([4, 1])) if guided else DOLA
    [found] = run(Engine(toy), [1, 2], sourced(Decoding(beams, Stopping(4), branches=125), source))

    def total(tokens: tuple[int, ...]) -> float:
        gained, text = 0.0, [1, 2]
        for token in tokens:
            row = guided_row(toy, text, 2, [4, 1], 1.7) if guided else dola_row(toy, text, (0, 1))[0]
            gained += row[token] - np.log(np.exp(row).sum())
            text.append(token)
        return gained

    assert found == max(itertools.product(range(5), repeat=4), key=total)


def drafted(task: Task, every: int) -> Strategy:
    """Speculation with drafts that are sometimes right, in three tokens at a time."""
    sequence = task.open()
    feed: Any = task.prompt
    [token] = yield [Read(sequence, feed, Next())]
    toy = ToyBackend()
    while not task.commit([token]):
        text, drafts = [*task.prompt.tolist(), *task.output], list[int]()
        for index in range(3):
            right = int(toy.logits([*text, *drafts]).argmax())
            drafts.append(right if index % every else (right + len(text)) % 11)
        proposals = tuple(Proposal(draft) for draft in drafts)
        length = len(sequence)
        [verdict] = yield [Read(sequence, [token, *drafts], Verify(proposals))]
        for draft in drafts[: verdict.accepted]:
            if task.commit([draft]):
                return
        sequence.rewind(length + 1 + verdict.accepted)
        token = verdict.token


@pytest.mark.parametrize("sources", [(DOLA,), (GUIDANCE,), (DOLA, GUIDANCE)], ids=["DoLa", "guidance", "both"])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_verified_drafts_are_what_comes_without(sources: tuple[Source, ...], every: int) -> None:
    decoding = Decoding(partial(drafted, every=every), Stopping(10))
    for prompt in ([3], [1, 2, 3]):
        engine = Engine(ToyBackend(), page_size=2)
        assert run(engine, prompt, sourced(decoding, *sources)) == run(engine, prompt, sourced(GREEDY, *sources))


class Identity(ToyBackend):
    """Its second block and final norm change nothing."""

    def _state(self, pairs: Any, layer: int) -> Any:
        return super()._state(pairs, min(layer, 1))


@pytest.mark.parametrize("layers", [(1,), (0, 1), (1, 0)])
def test_against_an_identity_layer_all_tokens_within_the_threshold_score_alike(layers: tuple[int, ...]) -> None:
    scores: list[Any] = []

    def ask(task: Task) -> Strategy:
        [block] = yield [Read(task.open(), task.prompt, Rows(3))]
        scores.append(block.logits)
        task.commit([0])

    run(Engine(Identity()), [1, 2, 3, 4], sourced(Decoding(ask, Stopping(1)), DoLa(layers)))
    toy = Identity()
    for row, stop in zip(scores[0], (2, 3, 4)):
        known = rows_of(toy, [1, 2, 3, 4][:stop])
        if layers == (1,) or divergence(known[2], known[0]) == 0:
            within = known[2] >= known[2].max() + np.log(0.1)
            assert (row[within] == 0).all()
            assert (row[~within] == -np.inf).all()
        else:
            np.testing.assert_allclose(row, dola_row(toy, [1, 2, 3, 4][:stop], (0,))[0], atol=1e-5)


@pytest.mark.parametrize("sources", [(DOLA,), (DOLA, GUIDANCE)], ids=["DoLa", "both"])
def test_where_rules_leave_nothing_of_the_contrast_the_last_layer_decides(sources: tuple[Source, ...]) -> None:
    """transformers takes token 0 there."""
    toy, prompt = ToyBackend(), [1, 2, 3]
    within = np.flatnonzero(dola_row(toy, prompt, (0, 1))[0] > -np.inf).tolist()
    row = guided_row(toy, prompt, 3, [7, 8, 9], 2.5) if len(sources) > 1 else rows_of(toy, prompt)[2]
    row[within] = -np.inf
    for strategy in strategies()[:1] + strategies()[3:]:
        decoding = replace(strategy, rules=(Suppress(tuple(within)),), stopping=Stopping(1))
        [[found]] = run(Engine(toy), prompt, sourced(decoding, *sources))
        assert found == row.argmax() or strategy.branches > 1
        assert found not in within


def test_what_is_remembered_of_shadows_is_reused() -> None:
    backend = ToyBackend()
    engine, guided = Engine(backend, page_size=2), sourced(GREEDY, Guidance(2.0, np.arange(9)))
    first = run(engine, [1, 2, 3, 4, 5], guided)
    assert backend.tokens_read == 5 + 9 + 2 * 9
    assert run(engine, [1, 2, 3, 4, 5], guided) == first
    assert backend.tokens_read < 2 * (5 + 9 + 2 * 9) - 4 - 8 + 1


def test_shadows_count() -> None:
    engine = Engine(ToyBackend(), page_size=4, kv_memory=8)
    run(engine, [1, 2], sourced(GREEDY, GUIDANCE))
    with pytest.raises(CapacityError):
        engine.submit([1, 2], sourced(GREEDY, Guidance(2.0, np.ones(11, np.int64))))


def test_a_cancelled_or_failing_request_gives_its_shadows_back() -> None:
    def broken(task: Task) -> Strategy:
        sequence = task.open()
        yield [Read(sequence, task.prompt, Next())]
        yield [Read(sequence.fork(), [1], Next()), Read(sequence, [2], Next())]
        raise RuntimeError("on purpose")

    engine = Engine(ToyBackend(), page_size=2)
    failing = engine.submit([1, 2, 3], sourced(Decoding(broken, Stopping(9), branches=2), GUIDANCE))
    cancelled = engine.submit([1, 2, 3], sourced(strategies()[2], DOLA, GUIDANCE))
    for _ in range(3):
        engine.step()
    cancelled.cancel()
    while engine.step():
        pass
    with pytest.raises(RuntimeError, match="on purpose"):
        failing.result()
    assert engine.space.held == 0


def test_the_trace_tells_the_layers() -> None:
    toy = ToyBackend()
    for decoding, kind in ((strategies()[0], Chosen), (strategies()[3], Contrasted)):
        engine = Engine(ToyBackend())
        handle = engine.submit([1, 2, 3], sourced(replace(decoding, traced=True), DOLA))
        while engine.step():
            pass
        tokens, told = list(handle.result()[0].tokens), [e for e in handle.events if isinstance(e, LayerChosen)]
        assert [event.step for event in told] == list(range(len(tokens)))
        for event in told:
            text = [1, 2, 3, *tokens[: event.step]]
            rows = rows_of(toy, text)
            assert (event.layer, event.lane) == (dola_row(toy, text, (0, 1))[1], 0)
            assert dict(event.divergences) == pytest.approx(
                {0: divergence(rows[2], rows[0]), 1: divergence(rows[2], rows[1])}, abs=1e-5
            )
        kinds = [type(event) for event in handle.events]
        assert kinds[:2] == [LayerChosen, kind]
    assert run_events(sourced(replace(strategies()[4], traced=True), DoLa((1,))))[1:4] == [
        (1, 1, ()),
        (2, 1, ()),
        (3, 1, ()),
    ]


def run_events(decoding: Decoding) -> list[Any]:
    engine = Engine(ToyBackend())
    handle = engine.submit([1, 2, 3], decoding)
    while engine.step():
        pass
    return [(event.step, event.layer, event.divergences) for event in handle.events if isinstance(event, LayerChosen)]


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "layers", "tied", "expected"),
    [
        ("low", 12, False, (0, 2, 4)),
        ("low", 12, True, (2, 4)),
        ("high", 12, True, (6, 8, 10)),
        ("low", 13, False, (0, 2, 4)),
        ("high", 13, False, (6, 8, 10, 12)),
        ("low", 40, False, tuple(range(0, 20, 2))),
        ("high", 40, False, tuple(range(20, 40, 2))),
        ("low", 41, False, tuple(range(0, 20, 2))),
        ("low", 80, True, tuple(range(2, 20, 2))),
        ("high", 41, True, tuple(range(21, 41, 2))),
        ("high", 80, False, tuple(range(60, 80, 2))),
        ("low", 1, False, (0,)),
        ("low", 1, True, (0,)),
        ("low", 2, False, (0,)),
        ("low", 2, True, (1,)),
        ("low", 3, False, (0,)),
        ("low", 3, True, (2,)),  # transformers finds none, and fails
        ("low", 4, True, (2,)),
        ("low", 5, True, (2,)),
        ("low", 6, True, (2,)),
        ("high", 1, True, (0,)),
        ("high", 3, True, (1,)),
        ([5, 0, 5], 6, False, (5, 0)),
    ],
)
def test_candidate_layers(asked: Any, layers: int, tied: bool, expected: tuple[int, ...]) -> None:
    assert candidate_layers(asked, layers, tied) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dola_layers": "middle"}, "dola_layers='middle'"),
        ({"dola_layers": []}, r"dola_layers=\[\] names no layer"),
        ({"dola_layers": [0, 2]}, r"dola_layers=\[0, 2\] names layer 2. .* are 0 \(the embeddings\) to 1"),
        ({"dola_layers": [-1]}, "names layer -1"),
        ({"negative_prompt_ids": [[3]]}, "negative_prompt_ids has no effect without guidance_scale"),
        ({"negative_prompt_attention_mask": [[3]]}, "attention_mask has no effect without negative_prompt_ids"),
        ({"guidance_scale": 2.0, "negative_prompt_ids": [[3], [4]]}, "negative_prompt_ids has 2 rows for 1 prompts"),
        ({"guidance_scale": 2.0, "negative_prompt_ids": [[]]}, "row 0 of negative_prompt_ids has no tokens"),
        ({"guidance_scale": 2.0, "negative_prompt_ids": [[37]]}, "negative_prompt_ids has the token 37"),
        ({"guidance_scale": 2.0, "negative_prompt_ids": "no"}, "negative_prompt_ids are texts"),
        (
            {"guidance_scale": 2.0, "negative_prompt_ids": [[3]], "negative_prompt_attention_mask": [[1, 1]]},
            r"negative_prompt_attention_mask has shape \(1, 2\), but negative_prompt_ids \(1, 1\)",
        ),
    ],
)
def test_what_cannot_work_is_refused(llama_pair: MakePair, asked: dict[str, Any], message: str) -> None:
    ours, _ = llama_pair(0)
    with pytest.raises(ArgumentError, match=message):
        ours.generate([[5]], **asked)


def test_the_negative_prompt_needs_positions(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    asked = {"guidance_scale": 2.0, "negative_prompt_ids": [[5] * 60], "do_sample": False}
    assert ours.generate([[5]], **asked, max_new_tokens=5).shape == (1, 6)
    assert ours.generate([[5]], **asked).shape == (1, 6)
    with pytest.raises(ContextLengthError, match="negative prompt's 60 tokens and max_new_tokens=6"):
        ours.generate([[5]], **asked, max_new_tokens=6)
    with pytest.raises(ContextLengthError, match=r"guidance_scale=2.0 does not go with context_overflow"):
        ours.generate([[5]], **asked, max_new_tokens=6, context_overflow="slide")
    slid = ours.generate([[5, 6]], max_new_tokens=80, context_overflow="slide", dola_layers=[0, 1], do_sample=False)
    assert slid.shape == (1, 82)


def test_a_scale_of_one_changes_nothing(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    plain = ours.generate(PROMPTS, **arguments(0, {})).tolist()
    assert ours.generate(PROMPTS, guidance_scale=1, negative_prompt_ids=[3], **arguments(0, {})).tolist() == plain
