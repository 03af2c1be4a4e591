"""What real templates offer of thinking, and what they write then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import TemplateError, ThinkingError
from engine.gguf.file import GGUFFile
from engine.protocol import Message, Think
from engine.text import switches, template_process
from engine.text import template as templates
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Part
from tests.support import gguf_bytes as raw
from tests.support.clock import PATIENCE, within

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_templates = pytest.mark.skipif(
    not (DATA / "templates").is_dir(), reason="../shared/data/templates is not there"
)

Start = Callable[[str], ChatTemplate]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a template; it has time, but in the tests of hostile ones."""
    started: list[ChatTemplate] = []
    for module in (templates, template_process):
        monkeypatch.setattr(module, "SECONDS", PATIENCE)

    def begin(source: str) -> ChatTemplate:
        tokens = raw.entry("tokenizer.ggml.tokens", raw.ARRAY, (raw.STRING, ["<s>", "</s>"]))
        strings = {
            "general.architecture": "llama",
            "general.name": "Thinker",
            "tokenizer.chat_template": source,
        }
        path = tmp_path / "model.gguf"
        entries = [raw.entry(key, raw.STRING, value) for key, value in strings.items()]
        path.write_bytes(raw.File([*entries, tokens]).build())
        with GGUFFile.open(path) as file:
            started.append(ChatTemplate.start(file))
        return started[-1]

    yield begin
    for template in started:
        template.close()


def written(parts: list[Part]) -> str:
    """The prompt, with what was said in ⟪⟫."""
    return "".join(part.text if part.special else f"⟪{part.text}⟫" for part in parts)


OFF_ON = ("off", "on")
FAMILIES: dict[str, tuple[tuple[Think, ...], Think | None, dict[Think, str]]] = {
    "templates/Qwen-Qwen3-0.6B": (
        OFF_ON,
        "on",
        {"off": "assistant\n<think>\n\n</think>\n\n", "on": "<|im_start|>assistant\n"},
    ),
    "templates-2026/Qwen3.5-4B": (
        OFF_ON,
        "on",
        {"off": "assistant\n<think>\n\n</think>\n\n", "on": "assistant\n<think>\n"},
    ),
    "templates/openai-gpt-oss-120b": (
        ("low", "medium", "high"),
        "medium",
        dict.fromkeys(("low", "medium", "high"), "<|start|>assistant"),
    ),
    "templates-2026/google-gemma-4-31B-it": (
        OFF_ON,
        "off",
        {"off": "<|turn>model\n<|channel>thought\n<channel|>", "on": "<|turn>model\n"},
    ),
    "templates/GLM-4.7-Flash": (
        OFF_ON,
        "on",
        {"off": "<|assistant|></think>", "on": "<|assistant|><think>"},
    ),
    "templates/GLM-4.6": (
        OFF_ON,
        "on",
        {"off": "⟫/nothink<|assistant|>\n<think></think>", "on": "⟫<|assistant|>"},
    ),
    "templates-2026/GLM-5.2": (
        ("off", "on", "high"),
        "on",
        {"off": "<think></think>", "on": "<think>", "high": "<think>"},
    ),
    "templates/deepseek-ai-DeepSeek-V3.1": (
        OFF_ON,
        "off",
        {"off": "<｜Assistant｜><think></think>", "on": "<｜Assistant｜><think>"},
    ),
    "templates-2026/deepseek-ai-DeepSeek-V4": (
        ("off", "on", "high", "max"),
        "off",
        {"off": "</think>", "on": "<think>", "high": "<think>", "max": "<think>"},
    ),
    "templates-2026/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (
        OFF_ON,
        "on",
        {"off": "<think></think>", "on": "<think>\n"},
    ),
    "templates-2026/ByteDance-Seed-OSS": (
        OFF_ON,
        "on",
        {"off": "</seed:think>", "on": "<seed:bos>assistant\n"},
    ),
    "templates-2026/HuggingFaceTB-SmolLM3-3B": (
        OFF_ON,
        "on",
        {"off": "<think>\n\n</think>\n", "on": "<|im_start|>assistant\n"},
    ),
    "templates/MiniMax-M2": ((), None, {}),
    "templates/llama-cpp-deepseek-r1": ((), None, {}),
    "templates-2026/StepFun3.5-Flash": ((), None, {}),
    "templates-2026/Kimi-K2-Thinking": ((), None, {}),
    "templates-2026/mistralai-Ministral-3-14B-Reasoning-2512": ((), None, {}),
    "templates/Qwen-Qwen2.5-7B-Instruct": ((), None, {}),
}
"""Each template's choices, the one that holds by itself, and how its prompts end."""

TURNS = [
    Message("user", "First"),
    Message("assistant", "I say `</think>`."),
    Message("user", "Second"),
]


@needs_templates
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_offers_what_works(start: Start, name: str) -> None:
    choices, default, ends = FAMILIES[name]
    template = start((DATA / f"{name}.jinja").read_text("utf-8"))
    found = template.switches
    assert (tuple(found.choices), found.default) == (choices, default)
    plain = written(template.render(TURNS))
    for think, end in ends.items():
        prompt = written(template.render(TURNS, think))
        assert prompt.endswith(end), think
        assert (prompt == plain) == (think == default)
        assert template.notice is None
    prompts = {written(template.render(TURNS, think)) for think in choices}
    assert len(prompts) == len(choices)


@needs_templates
@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_reply_goes_back_and_as_it_was_said(start: Start, name: str) -> None:
    template = start((DATA / f"{name}.jinja").read_text("utf-8"))
    for think in (None, *template.switches.choices):
        parts = template.render(TURNS, think)
        said = [part.text for part in parts if not part.special]
        assert said == ["First", "I say `</think>`.", "Second"], think
        assert template.notice is None


@needs_templates
def test_earlier_turns_are_written_the_same_whatever_is_chosen(start: Start) -> None:
    for name in ("templates/Qwen-Qwen3-0.6B", "templates-2026/Qwen3.5-4B"):
        template = start((DATA / f"{name}.jinja").read_text("utf-8"))
        off, on = (written(template.render(TURNS, think)) for think in OFF_ON)
        assert off.rpartition("assistant\n")[0] == on.rpartition("assistant\n")[0]
        assert "⟪First⟫<|im_end|>\n<|im_start|>assistant\n⟪I say `</think>`.⟫<|im_end|>" in on


@needs_templates
def test_harmony_gets_the_final_message_alone(start: Start) -> None:
    template = start((DATA / "templates/openai-gpt-oss-120b.jinja").read_text("utf-8"))
    prompt = written(template.render(TURNS, "high"))
    assert "Reasoning: high\n" in prompt
    assert "<|start|>assistant<|channel|>final<|message|>⟪I say `</think>`.⟫<|end|>" in prompt
    assert "analysis<|message|>" not in prompt


# Names promise nothing.

LAST = "{% for m in messages %}{{ m.content }}{% endfor %}"
NOTHING = {
    "only a name": "{# enable_thinking #}" + LAST,
    "a use without effect": "{% if enable_thinking %}{% endif %}" + LAST,
    "the time": "{{ strftime_now('%f') }}{{ range(9) | random }}{{ range(99999) | random }}"
    "{{ enable_thinking }}" + LAST,
    "both fail": "{% if enable_thinking is defined %}{{ 1 // 0 }}{% endif %}" + LAST,
    "one fails": "{% if enable_thinking is true %}{{ 1 // 0 }}{% endif %}" + LAST,
    "everything fails": "{{ enable_thinking.x.y }}" + LAST,
    "another name": "{{ enable_reasoning }}" + LAST,
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_not_work_is_not_offered(start: Start, name: str) -> None:
    template = start(NOTHING[name])
    assert (dict(template.switches.choices), template.switches.default) == ({}, None)
    with pytest.raises(ThinkingError, match="offers no choice"):
        template.render(TURNS, "off")
    assert template.render(TURNS)


def test_a_choice_that_is_not_offered_is_refused_with_those_that_are(start: Start) -> None:
    template = start("{{ reasoning_effort in ['low', 'high'] and reasoning_effort }}" + LAST)
    assert tuple(template.switches.choices) == ("low", "high")
    assert template.switches.default is None
    with pytest.raises(ThinkingError) as caught:
        template.render(TURNS, "off")
    assert "Thinker" in str(caught.value) and "Choose one of: low, high" in str(caught.value)


def test_an_effort_that_only_says_what_holds_anyway_is_none(start: Start) -> None:
    template = start("{{ reasoning_effort | default('high') }}" + LAST)
    assert tuple(template.switches.choices) == ("low", "medium", "high")
    assert template.switches.default == "high"
    alone = start("{{ 'deep' if reasoning_effort == 'max' else '' }}" + LAST)
    assert not alone.switches.choices  # one choice beside the template's own is a name for it
    both = start("{{ enable_thinking }}{{ 'deep' if reasoning_effort == 'max' else '' }}" + LAST)
    assert tuple(both.switches.choices) == ("off", "on", "max")


@pytest.mark.xdist_group("clock")
@pytest.mark.parametrize(
    "hostile",
    [
        "{% if enable_thinking is defined %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}",
        "{% if enable_thinking %}{{ 'a' * 2000000000 }}{% endif %}",
        "{% if enable_thinking %}{% for i in range(99999) %}{{ 'abcdefghij' * 100 }}{% endfor %}"
        "{% endif %}",
    ],
)
def test_a_hostile_template_offers_nothing_and_still_renders(
    start: Start, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    for module in (templates, template_process):
        monkeypatch.setattr(module, "SECONDS", 0.5)
    template = start(hostile + LAST)
    with within(4):
        assert not template.switches.choices
        assert written(template.render(TURNS[2:])) == "⟪Second⟫"  # it is harmless without
    assert template.notice is None


def test_finding_never_raises() -> None:
    def fails(variables: object) -> list[Part]:
        raise TemplateError("It fails")

    assert not switches.find("enable_thinking", fails).choices
