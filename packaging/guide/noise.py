"""Wear and tear of typed text: openers, case, punctuation, apostrophes, missing words, typing errors.

Values (a name, a GPU) stand in the text as private-use characters while it is worn, so that they stay whole.
"""

from __future__ import annotations

import random
import re

from grammar import Grammar

_KEYS = "qwertyuiop asdfghjkl zxcvbnm"
_SPELLINGS = {
    "quantisation": "quantization",
    "favourite": "favorite",
    "colour": "color",
    "licence": "license",
    "doesn't": "doesnt",
    "don't": "dont",
    "can't": "cant",
    "you": "u",
    "please": "pls",
    "message": "msg",
    "what is": "what's",
    "how do i": "how to",
    "cannot": "can't",
    "because": "cause",
}
# Words that may stand for each other in a question; one group a line.
_SYNONYMS = """
reply answer response
delete remove erase
big large huge
fast quick
slow sluggish
start launch
stop halt end abort interrupt cancel
private confidential secret
internet wifi network connection
uploaded sent transmitted transferred
website page site
redo repeat retry
another different second
quickest fastest
cleverer smarter better
line row
screen display window
look see view
price cost fee
folder directory
erased deleted removed
restore recover rescue undelete
lost gone vanished
list overview
old earlier previous past
correct right accurate
typo misspelling
running ongoing current
stuff things data
needs requires
remember recall
pc computer machine laptop
program app application software tool
need require
change modify alter
error mistake problem
picture image photo
bad poor terrible
good great fine
explain describe clarify
choose pick select take
use utilise employ
previous earlier former
quit exit leave close
important main essential
wrong incorrect false
find locate
write type
question query
recommend suggest advise
whole entire complete
broken damaged defective
show display
possible feasible
happens occurs
understand grasp
keep retain store
difference distinction
chat conversation
huge enormous
hard difficult tough
easy simple
"""
# How words are written by those who care.
_PROPER = """
RAM GPU CPU GGUF KV MoE VRAM LLM API JSON Esc Ctrl Enter Shift MLA GQA AVX TTFT OOM SSD GB HTTP Markdown
F1 F2 F3 F4 F5 F6 Linux Windows macOS Mac Python Ollama ChatGPT Claude Gemini LM Studio KTransformers vLLM SGLang
Hugging Face Qwen Qwen3 DeepSeek Kimi Mixtral GLM Llama Mistral Gemma NVIDIA AMD CUDA Rust Java JavaScript
German French Spanish English Chinese Italian Russian Japanese Docker Vim Emacs Bash NixOS Docker Delete Up Down
France Germany Italy Japan China India Brazil Egypt Kenya Canada Australia Mexico Spain Norway Paris London Tokyo
Berlin Rome Moscow Madrid Cairo Peru Chile Argentina Turkey Iran Nigeria Sweden Poland Greece Portugal Europe Africa
Asia America Vienna Prague Sydney Texas California Mongolia Iceland Thailand Vietnam Korea Mars Napoleon Einstein
Albert Shakespeare William Mozart Beethoven Julius Caesar Cleopatra Newton Isaac Darwin Picasso Leonardo Gandhi
Marie Curie Abraham Lincoln Obama Elvis Michael Jackson Taylor Swift Messi Ronaldo Elon Musk Steve Jobs Bill Gates
Plato Aristotle Socrates Buddha Jesus Columbus Galileo Goethe Kafka Tolstoy Hemingway Turing Ada Lovelace SQL HTML
PHP CSS Kotlin TypeScript Christmas Easter Halloween Eiffel Titanic Bible GGUFs LLMs GPUs PDF URL OS PC Debian Ubuntu
"""
_CAPITALS = {word.lower(): word for word in _PROPER.split()}
_GROUPS = {word: group for group in map(str.split, _SYNONYMS.splitlines()) for word in group}
_SMALL = {"the", "a", "an", "my", "is", "do", "does", "to", "of", "it", "this", "in"}
_FUNCTION_WORDS = """the a an my your its is are am was do does did to of it this that in on at for with and or i you we he
can could would should will may how what which where when there be have has had some any me from by so then
please want need like if about into"""
_FUNCTION = set(_FUNCTION_WORDS.split())
_QUESTION_ENDS = ((0.54, "?"), (0.57, " ?"), (0.64, "."), (0.68, "!"), (0.7, "??"), (1.0, ""))
_PLACE = "\ue000\ue001\ue002\ue003\ue004"


def mistype(word: str, rng: random.Random) -> str:
    """One typing error: a letter lost, doubled, swapped with the next, or replaced by a neighbour key."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    near = _KEYS.find(word[at].lower())
    key = _KEYS[max(0, near - 1)].strip() or "e"
    return word[:at] + key + word[at + 1 :]


def _words(text: str, rng: random.Random) -> str:
    if rng.random() < 0.25:
        for plain, other in _SPELLINGS.items():
            if rng.random() < 0.5:
                text = re.sub(rf"\b{plain}\b", other, text)
    if rng.random() < 0.15:
        text = text.replace("'", "")
    words = text.split(" ")
    if rng.random() < 0.3:
        words = [
            rng.choice(_GROUPS[w]) if w in _GROUPS and rng.random() < 0.6 else w for w in words
        ]
    if len(words) > 3 and rng.random() < 0.08:
        words = [word for word in words if word not in _SMALL or rng.random() < 0.4]
    if len(words) > 4 and rng.random() < 0.1:
        del words[rng.randrange(1, len(words))]
    if rng.random() < 0.12:
        at = rng.randrange(len(words))
        words[at] = mistype(words[at], rng)
    return " ".join(words)


def telegram(text: str, rng: random.Random) -> str:
    """Only the words that carry the meaning, now and then in another order: "error file truncated"."""
    words = [word for word in text.split() if word.strip(",.?!").lower() not in _FUNCTION]
    if len(words) < 2:
        return text
    if rng.random() < 0.4:
        rng.shuffle(words)
    return " ".join(words)


def _case(text: str, rng: random.Random) -> str:
    style = rng.random()
    if style < 0.03:
        return text.upper()
    if style < 0.3:
        return text.lower()
    if style < 0.9:
        text = re.sub(r"[A-Za-z]+\d?", lambda match: _CAPITALS.get(match[0], match[0]), text)
    if style < 0.85:
        text = text[:1].upper() + text[1:]
        return re.sub(r"\bi\b", "I", text) if rng.random() < 0.85 else text
    return text


def _end(text: str, rng: random.Random, question: bool) -> str:
    if text[-1:] in "?!.,:;)":
        return text
    chance = rng.random()
    if question:
        return text + next(end for share, end in _QUESTION_ENDS if chance < share)
    return text + ("." if chance < 0.45 else "!" if chance < 0.5 else "")


def wear(
    line: str,
    rng: random.Random,
    grammar: Grammar,
    values: dict[str, str] | None = None,
    *,
    question: bool = True,
    frame: bool = True,
) -> str:
    """Expand `line` as one person types it; `frame` allows an opener or closer around it."""
    given = values or {}
    marks = dict(zip(given, _PLACE, strict=False))
    text = grammar.expand(line, rng, marks)
    if frame and question and rng.random() < 0.06:
        text = telegram(text, rng)
    if frame and rng.random() < 0.14:
        text = grammar.expand("{opener}", rng) + " " + text
    elif frame and rng.random() < 0.06:
        text = grammar.expand("{preamble}", rng) + rng.choice((". ", ", ", ". ")) + text
    if frame and rng.random() < 0.1:
        closer = grammar.expand("{closer}", rng)
        text += closer if closer[0] in ",?." else " " + closer
    text = _end(_case(_words(text, rng), rng), rng, question)
    for name, mark in marks.items():
        text = text.replace(mark, given[name])
    return text
