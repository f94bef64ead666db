"""Chat templates: the text and ids that transformers gives, and no way for a hostile template to run away."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loquent.errors import ArgumentError, TemplateError
from loquent.tokenization import GPT2Tokenizer
from loquent.tokenization.templates import TURNS_JOINED_BY_EOS, render
from loquent.tokenization.templates.meter import CAPS

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SYSTEM_FIRST = """
{%- if messages[0]['role'] == 'system' %}
  {%- set system, turns = messages[0]['content'], messages[1:] %}
{%- else %}{% set system, turns = false, messages %}{% endif %}
{%- for turn in turns %}
  {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
  {%- if loop.first and system %}{% set text = '<<' ~ system ~ '>> ' + turn.content %}
  {%- else %}{% set text = turn.content %}{% endif %}
  {%- if turn.role == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
  {%- else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""
WITH_TOOLS = """
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- if tools %}{% for tool in tools %}{{ tool|tojson }}
{% endfor %}{{ tools|tojson(indent=2) }}{% endif %}
{%- for message in messages[::-1] %}
  {%- if not ns.found and message.role == 'user' and not message.content.startswith('<tool') %}
    {%- set ns.found = true %}{% set ns.last = messages|length - 1 - loop.index0 %}
  {%- endif %}
{%- endfor %}{{ ns.last }}
{%- macro show(message, by='|') -%}[{{ message.role|upper }}{{ by }}{{ message['content']|trim }}]{%- endmacro %}
{%- for message in messages %}
  {{- show(message) }}{{ show(message, by='::') ~ loop.index }}
  {%- if '</think>' in message.content %}{{ message.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}
  {%- if not loop.last and messages[loop.index0 + 1].role != 'tool' %}+{% endif %}
  {%- for call in message.tool_calls or [] %}
    {{- call.function.arguments|tojson }}{{ call.function.arguments.items()|list|length }}
    {%- for name, value in call.function.arguments|items %}{{ name }}={{ value }};{% endfor %}
  {%- endfor %}
  {%- if message.role == 'stop' %}{% break %}{% else %}{% continue %}{% endif %}
{%- endfor %}
{{- messages|map(attribute='role')|join(',') }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}
{{- messages|rejectattr('role', 'in', ['user'])|map(attribute='content')|first }}
{{- messages|groupby('role')|length }}"""
LANGUAGE = """{{ '%s-%d' % ('a', 3) }}{{ '{} {:>5}'.format('q', 7) }}{{ 'abc'|replace('b', 'B')|capitalize|title }}
{{- [3, 1, 2]|sort|join('-') }}{{ {'b': 1, 'a': 2}|dictsort }}{{ none }}{{ true }}{{ 1.5 }}
{{- [1, 'a', none, {'x': 2}] }}
{{- 'a b c'.split(' ') }}{{ messages[0].get('nothing', 'default') }}{{ messages[0].nothing }}{{ nothing }}{{ 5 // 2 }}
{{- 2**5 }}{{ -3 }}{{ 'x' if false }}{{ 7 / 2 }}{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 'hello'[1:3] }}{{ 'hello'[-1] }}
{{- range(3)|list }}{{ (1, 2) }}{{ 'q'|default('z') }}{{ zz|default('z') }}{{ ''|default('e', true) }}
{{- 'x' in 'xyz' }}
{{- 1 < 2 < 3 }}{{ dict(a=1) }}{{ 'a\\nb'|indent(2) }}{{ 3.7|int }}{{ '4'|int + 1 }}{{ 3|string + '!' }}
{{- 2.345|round(1) }}
{{- [1, 2, 3]|sum }}{{ [1, 2, 3]|last }}{{ 'abc'|reverse }}{{ [1, 2, 2]|unique|list }}
{{- [1, 2, 3]|batch(2)|list }}
{{- '<&>'|e }}{{ 'a'|safe }}{{ [1, 2, 3]|min }}{{ 'abc'|length }}{{ 'héllo'|tojson }}{{ 'x'.join(['a', 'b']) }}
{{- 'abc' is string }}{{ {'a': 1} is mapping }}{{ [1, 2]|select('odd')|list }}{{ 'a-b'|wordcount }}
{{- 'abcdef'|truncate(4) }}
{%- set block %}<{{ messages[0].role }}>{% endset %}{{ block|upper }}{% filter upper %}loud{% endfilter %}
{%- for pair in {'k': 'v'}.items() %}{{ pair }}{% endfor %}{% call(x) wrap() %}({{ x }}){% endcall %}""".replace(
    "{% call(x) wrap() %}", "{% macro wrap() %}{{ caller(1) }}{% endmacro %}{% call(x) wrap() %}"
)
MARKED = """{% for m in messages %}{% if m.role == 'assistant' %}
{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}
{% else %}{{ m.content }}{% endif %}{% endfor %}"""
TEMPLATES = {
    "chatml": CHATML,
    "system first": SYSTEM_FIRST,
    "tools": WITH_TOOLS,
    "language": LANGUAGE,
    "marked": MARKED,
    "dialogpt": TURNS_JOINED_BY_EOS,
}
CHATS: list[Any] = [
    [
        {"role": "system", "content": "Be nice"},
        {"role": "user", "content": " Hi there "},
        {"role": "assistant", "content": "Hello </think>\n\nyou"},
        {"role": "user", "content": "How are you?"},
    ],
    [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "Yes  ",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": "é<"}}}],
        },
    ],
]


def weather(city: str, days: int = 3, unit: str | None = None, tags: list[str] = []) -> str:  # noqa: B006
    """
    Say the weather.

    Args:
        city: The city (choices: ["Paris", "Rome"])
        days: How many days
            ahead
        unit: The unit
        tags: Tags

    Returns:
        The weather, as text.
    """
    raise AssertionError("a tool is never called")


CALLS: list[dict[str, Any]] = [
    {},
    {"tokenize": False},
    {"tokenize": False, "add_generation_prompt": True},
    {"tokenize": False, "tools": [weather, {"type": "function", "function": {"name": "x"}}]},
    {"tokenize": False, "continue_final_message": True},
    {"tokenize": False, "documents": [{"title": "a", "text": "b"}], "bos_token": "<other>"},
    {"return_dict": True},
    {"return_tensors": "np", "padding": True},
    {"return_tensors": "pt", "padding": True, "return_dict": True},
    {"return_dict": True, "return_assistant_tokens_mask": True},
    {"return_dict": True, "truncation": True, "max_length": 7, "tokenizer_kwargs": {"return_length": True}},
]


def outcome(tokenizer: Any, conversation: Any, **call: Any) -> Any:
    """What a call returns, in plain Python; or that it failed."""
    try:
        result = tokenizer.apply_chat_template(conversation, **call)
    except Exception:
        return "error"
    if hasattr(result, "items"):
        return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in result.items()}
    return result.tolist() if hasattr(result, "tolist") else result


@pytest.mark.filterwarnings("ignore:return_assistant_tokens_mask")
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", [*CHATS, CHATS], ids=["long", "tools", "batch"])
def test_equals_transformers(small: GPT2Tokenizer, byte_level_files: Path, name: str, conversation: Any) -> None:
    transformers = pytest.importorskip("transformers")
    files = [str(byte_level_files / file) for file in ("vocab.json", "merges.txt")]
    theirs = transformers.GPT2TokenizerFast(*files, pad_token="<|endoftext|>")
    small.pad_token = small.eos_token
    for call in CALLS:
        expected = outcome(theirs, conversation, chat_template=TEMPLATES[name], **call)
        assert outcome(small, conversation, chat_template=TEMPLATES[name], **call) == expected, call


def test_masks_are_the_assistants_tokens(small: GPT2Tokenizer) -> None:
    encoded = small.apply_chat_template(
        CHATS[0], chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [index for index, one in zip(encoded.input_ids, encoded.assistant_masks) if one]
    assert small.decode(marked) == "Hello </think>\n\nyou<|endoftext|>"


@pytest.mark.parametrize(
    ("template", "marked"),
    [
        ("{% generation %}the{% endgeneration %} cat sat", "the"),
        ("{% generation %}{% endgeneration %}the cat{% generation %} sat{% endgeneration %} on", " sat"),
    ],
)
def test_masks_at_the_beginning(small: GPT2Tokenizer, template: str, marked: str) -> None:
    encoded = small.apply_chat_template(
        CHATS[0], chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    chosen = [index for index, one in zip(encoded.input_ids, encoded.assistant_masks) if one]
    assert small.decode(chosen) == marked


def test_dialogpt(small: GPT2Tokenizer) -> None:
    with pytest.raises(TemplateError, match="TURNS_JOINED_BY_EOS"):
        small.apply_chat_template(CHATS[1])
    small.chat_template = TURNS_JOINED_BY_EOS
    eos = small.eos_token_id
    expected = [index for turn in CHATS[1] for index in [*small(turn["content"]).input_ids, eos]]
    assert small.apply_chat_template(conversation=CHATS[1]) == expected


def test_several_templates(small: GPT2Tokenizer) -> None:
    small.chat_template = {"rag": "R", "tool_use": "T"}
    with pytest.raises(TemplateError, match=r"\['rag', 'tool_use'\]"):
        small.get_chat_template()
    assert small.get_chat_template(tools=[{}]) == "T"
    assert small.get_chat_template("rag") == "R"
    assert small.get_chat_template("{{ 1 }}") == "{{ 1 }}"
    small.chat_template["default"] = "D"
    assert small.apply_chat_template(CHATS[0], tokenize=False) == "D"


@pytest.mark.parametrize(
    ("conversation", "call"),
    [
        (CHATS[0], {"tokenize": False, "return_dict": True}),
        (CHATS[0], {"return_assistant_tokens_mask": True}),
        (CHATS[0], {"continue_final_message": True, "add_generation_prompt": True}),
        (CHATS[0], {"tools": ["weather"]}),
        (CHATS[0], {"documents": ["text"]}),
        ([], {}),
        ("Hello", {}),
        (["Hello"], {}),
    ],
    ids=str,
)
def test_wrong_arguments(small: GPT2Tokenizer, conversation: Any, call: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        small.apply_chat_template(conversation, chat_template=CHATML, **call)


def test_errors_of_a_template_are_told() -> None:
    with pytest.raises(TemplateError, match=r"^Roles must alternate$"):
        render(SYSTEM_FIRST, [{"role": "assistant", "content": "a"}], variables={"bos_token": "", "eos_token": ""})
    with pytest.raises(TemplateError, match="line 2"):
        render("a\n{% if %}", CHATS[0])
    with pytest.raises(TemplateError, match="ZeroDivisionError"):
        render("{{ 1 / 0 }}", CHATS[0])
    with pytest.raises(TemplateError, match="Include"):
        render("{% include '/etc/passwd' %}", CHATS[0])


GROW = "{% set ns = namespace(x=[1], y=(1,), s='ab', n=9) %}{% for i in range(100) %}"
NESTED = GROW + "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
HOSTILE = [
    "{% for i in range(10**12) %}x{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}",
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% set t = [1] %}{% for x in t recursive %}{{ loop(t) }}{% endfor %}",
    "{% block a %}x{{ self.a() }}{{ self.a() }}{% endblock %}",
    GROW + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    GROW + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    GROW + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    GROW + "{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "{{ 'a' * 10**10 }}",
    "{{ [0] * 10**9 }}",
    "{{ 10 ** (10 ** 10) }}",
    *(
        NESTED + use
        for use in (
            "{{ ns.x }}",
            "{{ ns.x == ns.x[0] }}",
            "{{ ns.x in [[ns.x]] }}",
            "{{ ns.x is eq(ns.x) }}",
            "{{ ns.x|tojson }}",
            "{{ ns.x|string }}",
            "{{ ns.x ~ '' }}",
            "{{ '%s' % ns.x }}",
            "{{ '%(a)s' % {'a': ns.x} }}",
            "{{ '{}'.format(ns.x) }}",
            "{{ '{!r:>3}'.format(ns.x) }}",
            "{{ [ns.x, ns.x]|sort }}",
            "{{ [ns.x, ns.x]|max }}",
            "{{ [ns.y]|unique|list }}",
            "{{ [ns.x]|join }}",
            "{{ [ns.x].index(ns.x[0]) }}",
            "{{ {ns.y: 1} }}",
            "{{ {}[ns.y] }}",
            "{{ {}.get(ns.y) }}",
            "{{ dict([(ns.y, 1)]) }}",
            "{{ raise_exception(ns.x) }}",
            "{% for i in [1, 2] %}{{ loop.changed(ns.x) }}{% endfor %}",
        )
    ),
    "{% set a = namespace() %}{% set b = namespace() %}{% set a.x = [b, b] %}{% set b.x = [a, a] %}{{ a.x }}",
    *(
        "{{ %s }}" % use  # noqa: UP031
        for use in (
            "'a'|center(10**10)",
            "'a'.center(1000000000)",
            "'a'.ljust(10**9)",
            "'a'.zfill(10**9)",
            "'a'.expandtabs(10**9)",
            "'%1000000000d' % 1",
            "'%*d' % (1000000000, 1)",
            "'%.1000000000f' % 1",
            "'%(a)1000000000s'|format(a=1)",
            "'%((a)b)1000000000s'|format(a=1)",
            "'{:1000000000}'.format(1)",
            "'{:{w}}'.format(1, w=1000000000)",
            "('a' * 100000).replace('a', 'b' * 100000)",
            "('a' * 100000)|replace('', 'b' * 100000)",
            "('b' * 100000).join('a' * 100000)",
            "('a' * 100000)|join('b' * 100000)",
            "('a\\n' * 100000)|indent(10000)",
            "('a\\n' * 100000)|indent('b' * 100000)",
            "[[[1]]]|tojson(indent=1000000000)",
            "range(100000)|list|tojson(separators=('b' * 100000, ''))",
            "[1]|batch(10**9, 0)",
            "[1]|slice(10**9)",
            "1|round(10**9, 'ceil')",
            "('9' * 1000000)|int",
            "(1).to_bytes(1000000000, 'big')",
            "'a'.translate({97: 'b' * 100000})",
            "lipsum(n=100000)",
            "dict.fromkeys(range(100000))",
            "strftime_now('%1000000000d')",
            "[-10**15]|map('!tick')|list|length and range(10**9)",
            "messages.append(1)",
            "messages[0].update({})",
            "namespace.__init__.__globals__",
            "cycler.__init__.__globals__.os",
        )
    ),
    "{% set s = 'a' * 1000000 %}{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = ns.l + [s[1:]] %}"
    "{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ 'b' in s and '' }}{% endfor %}",
    "{% set l = range(100000)|list %}{% macro m() %}{{ m(*l) }}{% endmacro %}{{ m() }}",
    "{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if x %}" * 2000,
    "x" * 300_000,
]


@pytest.mark.parametrize("template", HOSTILE, ids=lambda template: template[-70:])
def test_nothing_runs_away(template: str) -> None:
    caps = replace(CAPS, seconds=0.5, work=4 << 20)
    start = time.monotonic()
    with pytest.raises(TemplateError):
        render(template, CHATS[0], caps=caps)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "reach", ["''.__class__", "''['__class__']", "'x'|attr('__class__')", "'{0.__class__}'.format(1)"]
)
def test_python_is_out_of_reach(reach: str) -> None:
    assert render(f"{{{{ {reach} }}}}", CHATS[0]).text == ""


def test_long_conversations_are_within_the_caps() -> None:
    chat = [{"role": "user" if index % 2 == 0 else "assistant", "content": "word " * 400} for index in range(2000)]
    start = time.monotonic()
    assert len(render(WITH_TOOLS, chat).text) > 8_000_000
    assert len(render(CHATML, chat).text) > 4_000_000
    assert time.monotonic() - start < 5


def test_memory_stays_small() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        for template in HOSTILE[7:14]:
            with pytest.raises(TemplateError):
                render(template, CHATS[0])
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()
