"""Splitting diffs, chats and HTML: a change keeps its file, words their speaker, a row its header."""

from __future__ import annotations

import random
import re

from tests.compressor.made import made, words
from tests.compressor.test_splitting import assert_sound, cuts_of, kinds_of, texts_of

# --- diffs ----------------------------------------------------------------------------------------------------------


def diff_document(rng: random.Random) -> str:
    files = []
    for n in range(rng.randint(1, 4)):
        lines = [f"diff --git a/f{n}.py b/f{n}.py", "index 12ab..34cd 100644", f"--- a/f{n}.py", f"+++ b/f{n}.py"]
        for h in range(rng.randint(1, 5)):
            lines.append(f"@@ -{h * 100 + 1},9 +{h * 100 + 1},9 @@ def f{n}h{h}():")
            lines += [
                rng.choice([" ", "+", "-"]) + f"{rng.choice(['', '    '])}f{n}h{h} {words(rng)}"
                for _ in range(rng.randint(1, 40))
            ]
        files.append("\n".join(lines))
    return "\n".join(files)


def test_a_changed_line_keeps_its_file_and_its_hunk() -> None:
    for seed, text in enumerate(made(diff_document)):
        assert_sound(text)
        assert kinds_of(text) == {"diff"}
        lines = set(text.split("\n"))
        for kept in cuts_of(text, seed):
            file = hunk = ""
            for line in kept.split("\n"):
                assert line in lines or line == "…"
                if line.startswith("+++ "):
                    file = line[6:-3]
                elif line.startswith("@@"):
                    hunk = line.rsplit(" ", 1)[1][:-3]
                elif line[:1] in "+- " and not line.startswith("--- "):
                    assert line[1:].split()[0] == hunk
                    assert hunk.startswith(f"{file}h")


# --- chats ----------------------------------------------------------------------------------------------------------


def chat_document(rng: random.Random) -> str:
    speakers = rng.sample(["Ann", "Bob Lee", "Dr. Cole", "The Chair (Hon. A. Rota)", "user", "assistant"], 3)
    form = rng.choice(["{}: {}", "**{}:** {}", "[12:30] {}: {}"])
    turns = []
    for n in range(rng.randint(6, 15)):
        said = " ".join(f"Turn{n} {words(rng, 15)}." for _ in range(rng.choice([1, 2, 20])))
        turns.append(form.format(speakers[n % 3], said))
    return "\n".join(turns)


def test_what_was_said_keeps_who_said_it() -> None:
    for seed, text in enumerate(made(chat_document)):
        assert_sound(text)
        assert kinds_of(text) <= {"chat", "chat-part"}
        speaker_of = {re.search(r"Turn\d+", line)[0]: line[: line.index("Turn")].strip() for line in text.split("\n")}  # type: ignore[index]
        for kept in cuts_of(text, seed):
            for line in kept.split("\n"):
                turns = set(re.findall(r"Turn\d+", line))
                assert len(turns) <= 1
                assert all(line.startswith(speaker_of[turn]) for turn in turns)


def test_a_short_turn_is_one_piece_and_fields_are_no_chat() -> None:
    assert texts_of("Ann: One. Two.\nBob: Three. Four.\nAnn: Five.") == [
        "Ann: One. Two.",
        "Bob: Three. Four.",
        "Ann: Five.",
    ]
    assert "chat" not in kinds_of(
        "Title: A report\nDate: today\nAuthor: nobody\n\nThe text: it begins here. And goes on."
    )


# --- HTML -----------------------------------------------------------------------------------------------------------


def html_document(rng: random.Random) -> str:
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><title>T</title><style>p > a { color: red; }</style></head>\n<body>'
    ]
    for n in range(rng.randint(3, 12)):
        said = f"Part{n} {words(rng, 40)} <b>bold</b>, <a href=\"https://x.y/?a=1&b=2\" title='a > b'>link</a>. {words(rng)}."
        parts.append(
            rng.choice(
                [
                    f"<div class='c'>\n<p>{said}</p></div>",
                    f"<ul><li>{said}</li><li>{said}</ul>",
                    f"<h2>{words(rng)}</h2>{said * 6}<br/>{said}",
                    "<table><thead><tr><th>Name</th><th>Sum</th></tr></thead>\n"
                    + "\n".join(
                        f"<tr><td>row{k}</td><td><p>{said}</p>cell{k}<br>end{k}</td></tr>"
                        for k in range(rng.randint(1, 9))
                    )
                    + "</table>",
                ]
            )
        )
    return "\n".join(parts) + "</body></html>"


TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z!](?:\"[^\"]*\"|'[^']*'|[^<>\"'])*>", re.DOTALL)


def test_no_tag_is_cut_and_rows_keep_their_header() -> None:
    for seed, text in enumerate(made(html_document)):
        assert_sound(text)
        assert kinds_of(text) == {"html"}
        tags = set(TAG.findall(text))
        for kept in cuts_of(text, seed):
            assert set(TAG.findall(kept)) <= tags
            assert "<" not in re.sub(r"<style>.*?</style>", "", TAG.sub("", kept))
            header = -1
            for row in re.finditer(r"<th>Name|<td>row(\d+)", kept):
                header = row.start() if row[1] is None else header
                assert header >= 0
                assert row[1] is None or re.match(
                    rf"<td>row{row[1]}</td><td><p>.*?</p>cell{row[1]}<br>end{row[1]}</td>", kept[row.start() :]
                )


def test_bare_tags_go_with_the_text_they_open_and_close() -> None:
    assert texts_of("<div><div>\n<p>One.</p>\n<p>Two.</p>\n</div></div>") == [
        "<div><div>\n<p>One.</p>",
        "<p>Two.</p>\n</div></div>",
    ]
