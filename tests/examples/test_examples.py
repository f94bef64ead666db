"""The programs of docs/examples, run as they are: their models' names lead to tiny ones on a hub of the test's own."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

import loquent

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
README = Path(__file__).parents[2] / "README.md"
EOS = "<|endoftext|>"
CHAT_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"

SMALL = {"vocab_size": 600, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {**SMALL, "n_positions": 1024, "n_embd": 32, "n_layer": 2, "n_head": 2}
DOGE = {**SMALL, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
NEOX = {**SMALL, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
# As many layers as the original has, since the guide names some of them.
LLAMA = {**DOGE, "num_hidden_layers": 32}
NEO = {**SMALL, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "SmallDoge/Doge-20M": ("doge", DOGE),
    "SmallDoge/Doge-20M-Instruct": ("doge", DOGE),
    "bigcode/gpt_bigcode-santacoder": ("gpt_bigcode", GPT2),
    "EleutherAI/gpt-neo-1.3B": ("gpt_neo", NEO),
    "microsoft/DialoGPT-medium": ("gpt2", GPT2),
    "distilbert/distilgpt2": ("gpt2", GPT2),
    "openai-community/gpt2": ("gpt2", GPT2),
    "openai-community/gpt2-medium": ("gpt2", GPT2),
    "openai-community/gpt2-large": ("gpt2", GPT2),
    "EleutherAI/pythia-1.4b-deduped": ("gpt_neox", NEOX),
    "EleutherAI/pythia-160m-deduped": ("gpt_neox", {**NEOX, "num_hidden_layers": 1}),
    "huggyllama/llama-7b": ("llama", LLAMA),
    "meta-llama/Llama-2-7b-chat-hf": ("llama", {**LLAMA, "num_hidden_layers": 2}),
    "my_account/my_model": ("gpt2", GPT2),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each name: random weights, and a tokenizer that is trained on this project's README."""
    trained = ByteLevelBPETokenizer()
    texts = [str(README), *[str(EXAMPLES / "gpt_neo_sampling.py")] * 5]
    trained.train(texts, vocab_size=600, special_tokens=[EOS], show_progress=False)
    names = {}
    for name, (model_type, fields) in MODELS.items():
        folder = tmp_path_factory.mktemp("models")
        torch.manual_seed(len(names))
        model = loquent.AutoModelForCausalLM.from_config(loquent.AutoConfig.for_model(model_type, **fields))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
        trained.save_model(str(folder))
        tokenizer = loquent.GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        if "Instruct" in name:
            tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.save_pretrained(folder)
        names[name] = folder
    # Random weights hardly ever write the one EOS token: this model's turns end at most tokens.
    config = loquent.GenerationConfig(bos_token_id=0, eos_token_id=[0, *(token for token in range(600) if token % 7)])
    config.save_pretrained(names["microsoft/DialoGPT-medium"])
    return names


@pytest.fixture
def run_example(
    stand_in_hub: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], dict[str, Any]]]:
    for name, folder in folders.items():
        stand_in_hub.add(name, {path.name: path.read_bytes() for path in folder.iterdir()})
    monkeypatch.setenv("HF_TOKEN", stand_in_hub.token)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    loquent.set_seed(0)
    return lambda name: runpy.run_path(str(EXAMPLES / name))


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert all(f'"{path.name}"' in source for path in EXAMPLES.glob("*.py"))
    assert len(list(EXAMPLES.glob("*.py"))) == 19


def test_doge_text_generation(run_example: Any, capsys: Any, folders: dict[str, Path]) -> None:
    program = run_example("doge_text_generation.py")
    [text] = ast.literal_eval(capsys.readouterr().out)
    assert text.startswith("Hey how are you doing?")
    assert program["outputs"].shape[1] == program["inputs"]["input_ids"].shape[1] + 100
    model = loquent.load(folders["SmallDoge/Doge-20M"])
    assert text == model.generate("Hey how are you doing?", max_new_tokens=100, return_full_text=True)


def test_doge_chat(run_example: Any, capsys: Any) -> None:
    program = run_example("doge_chat.py")
    tokenizer, prompt = program["tokenizer"], program["inputs"]
    assert tokenizer.decode(prompt[0]) == "<user>Hi, how are you doing today?\n<assistant>"
    assert capsys.readouterr().out == tokenizer.decode(program["outputs"][0, prompt.shape[1] :]) + "\n"


def test_gpt_bigcode_pipeline(run_example: Any, capsys: Any) -> None:
    run_example("gpt_bigcode_pipeline.py")
    [record] = ast.literal_eval(capsys.readouterr().out)
    assert record["generated_text"].startswith("def fibonacci(n):")
    assert len(record["generated_text"]) > 100


def test_gpt_bigcode_auto_model(run_example: Any, capsys: Any) -> None:
    program = run_example("gpt_bigcode_auto_model.py")
    assert program["outputs"].shape == (1, 50)
    assert capsys.readouterr().out.startswith("def fibonacci(n):")


def test_gpt_neo_sampling(run_example: Any) -> None:
    program = run_example("gpt_neo_sampling.py")
    assert program["gen_text"] == program["prompt"] + program["gen_text"][len(program["prompt"]) :]
    again = run_example("gpt_neo_sampling.py")
    assert again["gen_text"] != program["gen_text"]
    loquent.set_seed(0)
    assert run_example("gpt_neo_sampling.py")["gen_text"] == program["gen_text"]


def test_dialogpt_chat(run_example: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["Does money buy happiness?", "How so?", "And love?", "Why?", "Bye"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    program = run_example("dialogpt_chat.py")
    printed = capsys.readouterr().out
    assert printed.count("DialoGPT: ") == 5
    history = program["tokenizer"].decode(program["history"][0])
    assert history.startswith(f"Does money buy happiness?{EOS}")
    assert f"Bye{EOS}" in history
    assert program["history"].shape[1] < 1000


def test_the_default_config(run_example: Any, capsys: Any) -> None:
    run_example("generation_default_config.py")
    expected = 'GenerationConfig {\n  "bos_token_id": 0,\n  "eos_token_id": 0\n}\n'
    assert capsys.readouterr().out.rstrip("\n") == expected.rstrip("\n")


def test_customizing(run_example: Any) -> None:
    program = run_example("generation_customizing.py")
    prompt = program["inputs"]["input_ids"].shape[1]
    assert program["default"].shape == (1, prompt + 20)
    assert program["searched"].shape == (1, prompt + 20)
    assert program["sampled"].shape == (3, prompt + 30)


def test_saving_a_strategy(run_example: Any, capsys: Any, stand_in_hub: Any) -> None:
    program = run_example("generation_saving_a_strategy.py")
    assert b'"max_new_tokens": 50' in stand_in_hub.files("my_account/my_model")["generation_config.json"]
    assert b'"model_type": "gpt2"' in stand_in_hub.files("my_account/my_model")["config.json"]
    config = program["generation_config"]
    assert (config.num_beams, config.early_stopping, config.pad_token) == (4, True, None)
    [text] = ast.literal_eval(capsys.readouterr().out)
    assert text.startswith("Configuration files are easy to use!")


def test_streaming(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_streaming.py")
    assert capsys.readouterr().out == program["tok"].decode(program["_"][0]) + "\n"


def plain(program: dict[str, Any], **options: Any) -> list[int]:
    """The first row of what a program's model writes without its strategy."""
    row: list[int] = program["model"].generate(**program["inputs"], **options)[0].tolist()
    return row


def test_contrastive_search(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_contrastive_search.py")
    [text] = ast.literal_eval(capsys.readouterr().out)
    assert text.startswith("Hugging Face Company is")
    [found] = program["outputs"].tolist()
    assert found != plain(program, max_new_tokens=100)
    assert found == plain(program, penalty_alpha=0.6, top_k=4, max_new_tokens=100)


def test_multinomial_sampling(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_multinomial_sampling.py")
    first = capsys.readouterr().out
    assert program["outputs"][0].tolist() != plain(program, max_new_tokens=100)
    run_example("generation_multinomial_sampling.py")
    assert capsys.readouterr().out == first


def test_beam_search(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_beam_search.py")
    assert ast.literal_eval(capsys.readouterr().out)[0].startswith("It is astonishing how one can")
    options = {"num_beams": 5, "max_new_tokens": 50, "return_dict_in_generate": True, "output_scores": True}
    found = program["model"].generate(**program["inputs"], **options)
    assert found.sequences.tolist() == program["outputs"].tolist()
    steps = program["model"].compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    assert found.sequences_scores.tolist() == pytest.approx((steps.sum(dim=1) / 50).tolist(), abs=1e-4)


def test_beam_sampling(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_beam_sampling.py")
    first = capsys.readouterr().out
    assert first.startswith(program["prompt"])
    run_example("generation_beam_sampling.py")
    assert capsys.readouterr().out == first


def test_diverse_beams(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_diverse_beams.py")
    assert capsys.readouterr().out.startswith(program["prompt"])
    diverse = {"num_beams": 5, "num_beam_groups": 5, "max_new_tokens": 30, "diversity_penalty": 1.0}
    several = program["model"].generate(**program["inputs"], **diverse, num_return_sequences=5)
    assert several[0].tolist() == program["outputs"][0].tolist()
    assert len({tuple(row) for row in several.tolist()}) == 5


def test_speculative_decoding(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_speculative_decoding.py")
    greedy, sampled = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    assert program["outputs"][0].tolist() == plain(program)
    assert greedy != sampled


def test_dola(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_dola.py")
    assert len(capsys.readouterr().out.splitlines()) == 3
    outputs = [program[name].tolist() for name in ("vanilla_output", "dola_high_output", "dola_custom_output")]
    assert outputs[0][0] == plain(program, max_new_tokens=50)
    assert outputs[0] != outputs[1] != outputs[2]


def test_quantized_cache(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_quantized_cache.py")
    assert capsys.readouterr().out.count("I like rock music because") == 2
    # As short as this everything is within the residual.
    assert program["quantized"].tolist() == program["out"].tolist() == [plain(program, max_new_tokens=20)]


def test_offloaded_cache(run_example: Any, capsys: Any) -> None:
    program = run_example("generation_offloaded_cache.py")
    offloaded, out = capsys.readouterr().out.split("Fun fact:")[1:]
    assert offloaded.strip() == out.strip()
    assert program["offloaded"].tolist() == program["out"].tolist()


def test_the_programs_of_the_readme(run_example: Any, capsys: Any) -> None:
    streamed, printed = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(streamed.strip().splitlines()) == 6
    exec(streamed, {})
    assert len(capsys.readouterr().out) > 20
    exec(printed, {})
    [text] = ast.literal_eval(capsys.readouterr().out)
    assert text.startswith("Hey how are you doing?")
