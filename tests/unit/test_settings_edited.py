"""The settings file in two hands: the program's and the person's, who edits it while the program runs."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from ktchat.common.errors import SettingsError
from ktchat.common.settings import SettingsFile

MINE = '''\
# my own words, above everything
seed = 7   # lucky

system = """
Two lines,
[not a table]
[model."Other.gguf"]
"""

# for the big one
[model."Big.gguf"]
temperature = 0.2 # it babbles
context = 8192

# I write with it
[preset.novel]
temperature = 1.2
system = "You write novels."
'''


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(MINE)
    return path


def noticed(file: SettingsFile) -> bool:
    """Two looks at the file: it has come to rest."""
    return file.was_edited or file.was_edited


def edit(path: Path, text: str) -> None:
    """An edit by another program, with a time of its own."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


# What the person wrote.


def test_comments_tables_and_order_outlive_every_change(path: Path) -> None:
    file = SettingsFile(path)
    file.update(seed=8, theme="paper")
    file.update_model("/elsewhere/Big.gguf", temperature=0.3, kv="q8")
    file.update_model("/m/Small 2.gguf", device="cpu")
    file.keep_preset("short", {"temperature": 0.1})
    text = path.read_text()
    for words in (
        "# my own words, above everything",
        "seed = 8   # lucky",
        "# for the big one\n[model.",
    ):
        assert words in text
    assert "temperature = 0.3 # it babbles" in text and "# I write with it\n[preset.novel]" in text
    assert text.index("theme =") < text.index("# for the big one"), "before the first table"
    values = tomllib.loads(text)
    assert values["system"] == 'Two lines,\n[not a table]\n[model."Other.gguf"]\n'
    assert values["model"]["Big.gguf"] == {"temperature": 0.3, "context": 8192, "kv": "q8"}
    assert values["model"]["Small 2.gguf"] == {"device": "cpu"}
    assert values["preset"]["short"] == {"temperature": 0.1}
    again = SettingsFile(path)
    assert again.notice == "" and again.said == file.said


def test_what_is_taken_away_is_gone_and_so_is_an_empty_table(path: Path) -> None:
    file = SettingsFile(path)
    file.update_model("/Big.gguf", temperature=None)
    assert file.layers("/Big.gguf").model == {"context": 8192}
    file.update_model("/Big.gguf", context=None, kv=None)
    file.keep_preset("novel", None)
    assert file.said.models == file.said.presets == {}
    values = tomllib.loads(path.read_text())
    assert "model" not in values and "preset" not in values
    assert SettingsFile(path).said == file.said


def test_a_preset_is_renamed_in_one_write(path: Path) -> None:
    file = SettingsFile(path)
    values = file.said.presets["novel"]
    file.change_presets({"novel": None, "book": values})
    assert SettingsFile(path).said.presets == {"book": values} == file.said.presets


@pytest.mark.parametrize(
    "text", ["Be short.\nBe kind.", '"""\\', "\n\nx", 'a"\nb"', "\x00\x7f\n\x1b", "a\n\n  b\t"]
)
def test_texts_of_many_lines_come_back_as_they_were(path: Path, text: str) -> None:
    file = SettingsFile(path)
    file.update(system=text)
    file.update_model("/x.gguf", system=text)
    again = SettingsFile(path)
    assert again.settings.system == text and again.layers("/x.gguf").model == {"system": text}


@pytest.mark.parametrize(
    "name", ["plain", "two words", 'quo"te', "dot.dot", "中文", "back\\slash", "", "#"]
)
def test_every_name_of_a_model_and_a_preset_is_possible(path: Path, name: str) -> None:
    file = SettingsFile(path)
    file.keep_preset(name, {"top_k": 3})
    file.update_model(f"/m/{name}.gguf", top_k=4)
    again = SettingsFile(path)
    assert again.said.presets[name] == {"top_k": 3}
    assert again.layers(f"/other/{name}.gguf").model == {"top_k": 4}


def test_impossible_values_in_tables_are_named_with_their_line(path: Path) -> None:
    edit(path, MINE.replace("0.2 #", "99 #").replace("1.2", '"hot"'))
    file = SettingsFile(path)
    assert file.layers("/Big.gguf").model == {"context": 8192}
    assert file.said.presets == {"novel": {"system": "You write novels."}}
    assert "temperature (line 12)" in file.notice and "temperature (line 17)" in file.notice
    with pytest.raises(SettingsError, match="kv"):
        file.update_model("/Big.gguf", kv="q2")
    assert "kv" not in path.read_text()


@pytest.mark.parametrize(
    "text", ["model = 3", "[model]\nx = 1", "[[model]]\n[preset]\na = []", "model.a.b.c = 1"]
)
def test_tables_that_are_none_are_passed_over(path: Path, text: str) -> None:
    edit(path, text)
    file = SettingsFile(path)
    assert (file.said.models, file.said.presets) == ({}, {})


# Edits from outside.


def test_an_edit_is_noticed_and_taken_once_it_is_at_rest(path: Path) -> None:
    file = SettingsFile(path)
    assert not noticed(file)
    edit(path, MINE.replace("seed = 7", "seed = 9").replace("0.2 #", "0.5 #"))
    assert not file.was_edited, "it may be half written"
    assert file.was_edited
    assert file.take_edits() == ["seed", "temperature of Big.gguf"]
    assert (file.settings.seed, file.notice) == (9, "")
    assert not noticed(file)
    edit(path, MINE + "\n# a comment more\n")
    assert noticed(file) and file.take_edits() == ["seed", "temperature of Big.gguf"]


def test_our_own_writes_are_no_edits(path: Path) -> None:
    file = SettingsFile(path)
    file.update(seed=3)
    file.update_model("/a.gguf", kv="q8")
    assert not noticed(file) and file.take_edits() == []


def test_an_edit_that_a_write_of_ours_came_upon_is_told_all_the_same(path: Path) -> None:
    file = SettingsFile(path)
    edit(path, MINE.replace("seed = 7", "seed = 9"))
    file.update(theme="paper", last_session="x")
    assert file.settings.seed == 9 and "seed = 9" in path.read_text()
    assert noticed(file) and file.take_edits() == ["seed"]


def test_what_another_program_notes_for_itself_is_not_worth_a_word(path: Path) -> None:
    file, other = SettingsFile(path), SettingsFile(path)
    other.update(last_session="abc", **other.settings.with_model("/m.gguf"))
    assert noticed(file) and file.take_edits() == []
    assert file.settings.last_session == "abc"


def test_a_broken_edit_is_said_with_its_line_and_the_old_values_stay(path: Path) -> None:
    file = SettingsFile(path)
    before = file.said
    broken = MINE.replace("context = 8192", "context = ")
    edit(path, broken)
    assert noticed(file) and file.take_edits() == []
    assert "line 13" in file.notice and "what held before holds" in file.notice
    assert file.said == before
    assert not noticed(file), "it is said once"
    with pytest.raises(SettingsError, match="line 13"):
        file.update(seed=1)
    assert path.read_text() == broken and file.settings.seed == 1
    edit(path, MINE)
    assert noticed(file) and file.take_edits() == ["seed"]
    assert file.said == before and file.notice == ""


def test_an_impossible_value_leaves_the_old_one(path: Path) -> None:
    file = SettingsFile(path)
    edit(path, MINE.replace("seed = 7", "seed = -9") + '\n[preset.odd]\ntop_k = "x"\n')
    assert noticed(file)
    assert file.take_edits() == []
    assert file.settings.seed == 7 and "seed (line 2)" in file.notice and "top_k" in file.notice
    file.update(theme="paper")
    assert "seed = -9   # lucky" in path.read_text(), "it is the person's to mend"


def test_a_file_that_is_gone_is_written_again_whole(path: Path) -> None:
    file = SettingsFile(path)
    path.unlink()
    assert noticed(file) and file.take_edits() == [] and "is gone" in file.notice
    before = file.said
    assert not noticed(file)
    file.update(theme="paper")
    again = SettingsFile(path)
    assert (again.said.models, again.said.presets) == (before.models, before.presets)
    assert (again.settings.seed, again.settings.theme) == (7, "paper")


def test_comments_of_older_versions_that_are_not_true_any_more_are_renewed(path: Path) -> None:
    old = (
        '# 0: always the likeliest token; higher: more varied. "model": as its file says, else 0.7.'
    )
    edit(
        path,
        f"# Settings of ktchat. Edit them here while it does not run, or on its screen.\n\n{old}\ntemperature = 0.4\n",
    )
    SettingsFile(path).update(seed=1)
    text = path.read_text()
    assert "while it does not run" not in text and "as its file says" not in text
    assert "temperature = 0.4" in text and text.startswith("# Settings of ktchat.")


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf# mine\r\nseed = 4\r\n")
    file = SettingsFile(path)
    assert (file.settings.seed, file.notice) == (4, "")
    file.update(seed=5)
    assert SettingsFile(path).settings.seed == 5 and "# mine" in path.read_text()
