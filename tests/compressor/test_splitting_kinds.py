"""Splitting by kind: whatever a cut keeps of a JSON value, a table, code, a log, a diff, a chat or a page stays one.

Three hundred documents a kind are made from a seed, or taken from what the interpreter ships; each is cut at four
budgets with random scores.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.splitting import Piece, split
from tests.compressor.test_splitting import assert_sound, cuts_of, kinds_of, texts_of

DOCUMENTS = 300
WORDS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "omega",
    "value",
    "total",
)


def made(build: Callable[[random.Random], str]) -> list[str]:
    return [build(random.Random(seed)) for seed in range(DOCUMENTS)]


def words(rng: random.Random, most: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


# --- JSON --------------------------------------------------------------------------------------------------------------


def json_value(rng: random.Random, depth: int = 0) -> Any:
    roll = rng.random()
    if depth < 4 and roll < 0.35:
        return {f"{rng.choice(WORDS)}_{n}": json_value(rng, depth + 1) for n in range(rng.randint(0, 8))}
    if depth < 4 and roll < 0.6:
        return [json_value(rng, depth + 1) for _ in range(rng.randint(0, 10))]
    return rng.choice(
        [words(rng, 20), 'a "quoted", [x] {y}', "é\\n", rng.randint(-9, 10**9), rng.random(), True, None, ""]
    )


def json_document(rng: random.Random) -> str:
    value = {f"k{n}": json_value(rng) for n in range(rng.randint(2, 12))}
    return json.dumps(value, indent=rng.choice([None, 1, 4]), ensure_ascii=rng.random() < 0.5)


def is_part(part: Any, whole: Any) -> bool:
    """Whether `part` is `whole` with members left out, order kept."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return [k for k in whole if k in part] == list(part) and all(is_part(v, whole[k]) for k, v in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        rest = iter(whole)
        return all(any(is_part(v, w) for w in rest) for v in part)
    return bool(part == whole)


@pytest.mark.parametrize("text", made(json_document))
def test_json_parses_and_is_a_part_of_what_it_was(text: str) -> None:
    assert_sound(text)
    for kept in cuts_of(text):
        assert is_part(json.loads(kept), json.loads(text))


def test_json_lines_stay_json_lines() -> None:
    for seed, text in enumerate(made(lambda rng: "\n".join(json.dumps(json_value(rng, 2)) for _ in range(30)))):
        text = "\n".join(line for line in text.split("\n") if line[0] in "{[" and len(line) > 2)
        if text.count("\n") < 2:
            continue
        assert kinds_of(text) <= {"json", "json-open", "json-close"}
        originals = [json.loads(line) for line in text.split("\n")]
        for kept in cuts_of(text, seed):
            lines = iter(originals)
            assert all(any(is_part(json.loads(line), original) for original in lines) for line in kept.split("\n"))


def test_a_small_element_of_an_array_is_one_piece() -> None:
    records = [{"id": n, "name": "n" * 100, "tags": ["a", "b"], "note": "x" * 120} for n in range(5)]
    assert [json.loads(text) for text in texts_of(json.dumps(records))[1:-1]] == records


def test_numbers_in_an_array_stand_together() -> None:
    assert len(split(json.dumps(list(range(1000))))) < 60


def test_json_in_prose_is_told_from_brackets_in_prose() -> None:
    text = 'It said:\n{"a": 1, "b": 2}\nand [1] was cited.\n[2] See below.'
    assert [text[p.start : p.end] for p in split(text) if p.kind == "json"] == ['{"a": 1, "b": 2}']


# --- tables --------------------------------------------------------------------------------------------------------------


def cell(rng: random.Random) -> str:
    return rng.choice(
        [words(rng, 3), str(rng.randint(0, 9999)), f"${rng.random():.2f}", f"{rng.randint(1, 99)}%", "a.b@c.de"]
    )


def markdown_table(rng: random.Random) -> str:
    columns = rng.choice([2, 3, 5, 40])
    head = [f"head{n}" for n in range(columns)]
    rows = [head, ["---"] * columns, *([cell(rng) for _ in head] for _ in range(rng.randint(1, 25)))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def value_table(rng: random.Random, mark: str) -> str:
    columns = rng.choice([3, 4, 9])
    lines = io.StringIO()
    writer = csv.writer(lines, delimiter=mark, lineterminator="\n")
    writer.writerow([f"head{n}" for n in range(columns)])
    for _ in range(rng.randint(3, 25)):
        quoted = f'{words(rng, 2)}{mark} "{words(rng, 2)}"'
        writer.writerow(
            [rng.choice(WORDS), *(rng.choice([cell(rng), quoted, ""]) for _ in range(columns - 2)), rng.randint(0, 99)]
        )
    return lines.getvalue().strip("\n")


@pytest.mark.parametrize(
    ("build", "header_lines"),
    [
        (markdown_table, 2),
        (lambda rng: markdown_table(rng).replace("| ", "").replace(" |", " |", 1), 2),
        (lambda rng: value_table(rng, ","), 1),
        (lambda rng: value_table(rng, "\t"), 1),
    ],
    ids=["markdown", "pipes", "commas", "tabs"],
)
def test_every_row_has_its_header_over_it(build: Callable[[random.Random], str], header_lines: int) -> None:
    for seed, text in enumerate(made(build)):
        assert_sound(text)
        assert kinds_of(text) == {"table"}
        lines = text.split("\n")
        for kept in cuts_of(text, seed):
            left = kept.split("\n")
            assert [line.strip() for line in left[:header_lines]] == [line.strip() for line in lines[:header_lines]]
            assert len(left) > header_lines
            rest = iter(lines[header_lines:])
            assert all(any(line.strip() == row.strip() for row in rest) for line in left[header_lines:] if line != "…")


def test_empty_cells_before_and_after_do_not_move_the_others() -> None:
    text = "a\tb\tc\n\t1\t2\n3\t4\t\n\t\t9\n" + "5\t6\t7\n" * 20
    for kept in (kept for seed in range(40) for kept in cuts_of(text, seed)):
        assert {line for line in kept.split("\n") if line} <= {
            "a\tb\tc",
            "\t1\t2",
            "3\t4\t",
            "3\t4",
            "\t\t9",
            "5\t6\t7",
            "…",
        }


def test_a_header_of_two_rows_is_kept_whole() -> None:
    text = " | Year ended, | \n | 2019 | 2018\nAssets | $1 | $2\nDebts | $3 | $4\nNet | $5 | $6"
    pieces = split(text)
    assert text[pieces[0].start : pieces[0].end].endswith("2019 | 2018")
    assert all(piece.skeleton == (0,) for piece in pieces[1:])


def test_a_table_of_one_line_is_one_piece() -> None:
    assert texts_of("| a | b |\n|---|---|") == ["| a | b |\n|---|---|"]
    assert len(split("| a | b |")) == 1


def test_a_quoted_cell_may_hold_line_ends() -> None:
    text = 'id,note,n\n1,"two\nlines, here",5\n2,plain,6\n3,plain,7'
    assert texts_of(text) == ["id,note,n", '1,"two\nlines, here",5', "2,plain,6", "3,plain,7"]


@pytest.mark.parametrize(
    "text",
    [
        "We went, we saw, and we\nwon, they say, but none\nknew, at first, how so\nmany had come.",
        "It cost, he said, a lot.\nIt cost, she said, little.\nIt was, all said, fair.",
        "run a || run b\nrun c || run d\n",
    ],
)
def test_prose_with_commas_and_operators_is_no_table(text: str) -> None:
    assert "table" not in kinds_of(text)


# --- Python ------------------------------------------------------------------------------------------------------------


def python_document(rng: random.Random) -> str:
    lines = ['"""Module words. "Quoted" too."""', "from __future__ import annotations", "import os, sys", ""]

    def block(indent: str, depth: int) -> None:
        for _ in range(rng.randint(1, 5)):
            roll = rng.random()
            name = f"{rng.choice(WORDS)}_{rng.randint(0, 99)}"
            if depth < 4 and roll < 0.5:
                form = rng.choice(["def", "class", "if", "for", "while", "try", "with", "match", "async"])
                inner = indent + rng.choice(["    ", "  ", "\t"])
                heads = {
                    "def": [f"@deco\n{indent}def {name}(a, b={{'x': 1}},\n{indent}      *c):  # a (remark"],
                    "class": [f"class {name}:"],
                    "if": [f"if {name}:", "elif other:", "else:"][: rng.randint(1, 3)],
                    "for": [f"for {name} in []:", "else:"][: rng.randint(1, 2)],
                    "while": [f"while {name}:"],
                    "try": rng.choice(
                        [
                            ["try:", "except ValueError:", "else:", "finally:"],
                            ["try:", "finally:"],
                            ["try:", "except E as e:"],
                        ]
                    ),
                    "with": [f"with a as {name}, b:"],
                    "match": [f"match {name}:"],
                    "async": [f"async def {name}():"],
                }[form]
                for head in heads:
                    if rng.random() < 0.3 and head != heads[0]:
                        lines.append(f"{rng.choice([indent, ''])}# between")
                    lines.append(indent + head)
                    if form == "match":
                        lines.append(f"{inner}case [1, _]:")
                        block(inner + "  ", depth + 1)
                    else:
                        block(inner, depth + 1)
            else:
                lines.append(
                    indent
                    + rng.choice(
                        [
                            f"{name} = [{', '.join(WORDS)}]",
                            f"{name} = '''text with\nodd lines: (\n   and \"quotes\"\n'''",
                            f"{name}(1,\n 2)  # remark",
                            f'"{words(rng)} # no remark"',
                            f"if {name}: pass",
                            f"{name} = 1 + \\\n  2",
                            "# only a remark\n" + indent + "pass",
                            f"{name} = {{\n'a': 1,\n    'b': [2]}}",
                        ]
                    )
                )
            if rng.random() < 0.3:
                lines.append(rng.choice(["", "    ", indent + "# a remark by itself", ""]))

    block("", 0)
    return "\n".join([*lines, "x = 1", "# the end"])


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def test_made_python_parses_after_any_cut() -> None:
    for seed, text in enumerate(made(python_document)):
        assert parses(text), text
        assert_sound(text)
        assert kinds_of(text) == {"code"}
        for kept in cuts_of(text, seed):
            assert parses(kept), kept


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_the_standard_library_parses_after_any_cut() -> None:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [path.read_text("utf-8") for path in paths if 500 < path.stat().st_size < 30_000]
    told = [text for text in texts if kinds_of(text) == {"code"}]
    assert len(told) > 60
    assert len(told) > 0.97 * len(texts)  # the rest is tables of numbers
    for text in told:
        assert_sound(text)
        assert all(parses(kept) for kept in cuts_of(text))


def test_a_signature_is_the_skeleton_of_its_body() -> None:
    body = "\n\n".join(
        f"    value_{n} = compute(argument_{n}, other_argument_{n}, third_argument_{n})" for n in range(10)
    )
    head = "import os\n\n\nclass Ledger:\n    '''Words.'''\n\n    def total(self,\n              a):\n"
    text = head + body.replace("    v", "        v") + "\n"
    pieces = split(text)
    statement = next(p for p in pieces if text[p.start : p.end].startswith("value_7"))
    assert [text[pieces[s].start : pieces[s].end] for s in statement.skeleton] == [
        "class Ledger:",
        "def total(self,\n              a):",
    ]
    assert statement.gap == "\n        # …\n        "


def test_an_omitted_branch_is_three_dots() -> None:
    branch = "\n\n".join(f"    some_name_{n} = some_function(another_name_{n}, {n})" for n in range(8))
    text = f"if a:\n{branch}\nelif b:\n{branch}\nelse:\n{branch}\n    last()\n"
    pieces = split(text)
    last = len(pieces) - 1
    clause = next(s for s in pieces[last].skeleton if text[pieces[s].start : pieces[s].end] == "else:")
    assert pieces[clause].gap == "\n    ...\n"


def test_a_chain_of_very_many_clauses_is_kept_or_dropped_whole() -> None:
    chain = "if a:\n    b()\n" + "elif c:\n    d()\n" * 100
    assert texts_of(f"import os\n\n{chain}\nlast()\n") == ["import os", chain.strip(), "last()"]


def test_a_short_function_is_one_piece() -> None:
    text = "import os\n\n\ndef f(x):\n    y = x\n\n    return y\n\n\ndef g(x):\n    return x\n"
    assert "def f(x):\n    y = x\n\n    return y" in texts_of(text)


# --- other languages ------------------------------------------------------------------------------------------------------


def braces_document(rng: random.Random) -> str:
    lines = ["#include <stdio.h>", "// a remark with { and '", ""]

    def block(indent: str, depth: int) -> None:
        for _ in range(rng.randint(1, 5)):
            name = f"{rng.choice(WORDS)}{rng.randint(0, 99)}"
            if depth < 4 and rng.random() < 0.5:
                heads = rng.choice(
                    [
                        [f"static int {name}(int a, char *b) {{"],
                        [f"if ({name}) {{", "} else if (b) {", "} else {"],
                        [f"for (int i = 0; i < {name}; i++) {{"],
                        [f"while ({name}(\n{indent}    a, b)) {{"],
                    ]
                )
                for head in heads:
                    lines.append(indent + head)
                    block(indent + "    ", depth + 1)
                lines.append(indent + "}")
            else:
                text = rng.choice(
                    [
                        f'printf("}} {{ {name}");',
                        f"int {name} = call(1,\n{indent}    2);",
                        "/* { */ done();",
                        "c = '{';",
                    ]
                )
                lines.append(indent + text)

    block("", 0)
    return "\n".join([*lines, "int main(void) {", "    return 0;", "}"])


def balance(text: str) -> list[str]:
    """The brackets that are left open or closed too often, strings, characters and comments left out."""
    stack: list[str] = []
    for mark in re.findall(r"[(){}\[\]]", re.sub(r'//.*|/\*.*?\*/|"[^"\n]*"|\'.\'', "", text)):
        if mark in ")}]" and stack and stack[-1] + mark in ("()", "{}", "[]"):
            stack.pop()
        else:
            stack.append(mark)
    return stack


def test_brackets_stay_in_balance() -> None:
    for seed, text in enumerate(made(braces_document)):
        assert not balance(text)
        assert_sound(text)
        assert kinds_of(text) == {"code"}
        for kept in cuts_of(text, seed):
            assert not balance(kept), kept


LISTINGS = {
    "javascript": "function run(a) {\n  const s = `x ${a} {`;\n  if (a) {\n    return s\n      .trim()\n"
    "  } else {\n    go(/[{]/);\n  }\n}\n",
    "go": 'func run(a int) error {\n\tif a > 1 {\n\t\treturn nil\n\t}\n\treturn fmt.Errorf("{ %d", a)\n}\n',
    "rust": "fn run<'a>(x: &'a str) -> char {\n    let c = '{';\n"
    "    match x {\n        \"a\" => c,\n        _ => 'b',\n    }\n}\n",
    "ruby": 'def run(a)\n  if a\n    puts "end"\n  else\n    go\n  end\nend\n',
}


@pytest.mark.parametrize("tag", LISTINGS)
def test_a_fenced_listing_keeps_its_fences(tag: str) -> None:
    listing = "\n".join(re.sub(r"\brun\b", f"run{n}", LISTINGS[tag]) for n in range(12))
    text = f"Words before.\n\n```{tag}\n{listing}```\n\nWords after."
    assert kinds_of(text) == {"prose", "fence", "code"}
    for seed in range(20):
        for kept in cuts_of(text, seed):
            assert kept.count("```") in (0, 2)
            if tag == "ruby":
                assert len(re.findall(r"^\s*(?:def|if) ", kept, re.MULTILINE)) == len(
                    re.findall(r"^\s*end$", kept, re.MULTILINE)
                )
            assert not any(f"run{n}" in kept and f"```{tag}" not in kept for n in range(12))


def test_code_of_no_known_language_is_not_cut_within_a_line() -> None:
    text = "```zzz\n" + "\n".join(f"mov r{n}, [r{n}+4] ; move" for n in range(60)) + "\n```"
    lines = set(text.split("\n"))
    assert all({line for line in kept.split("\n") if "…" not in line} <= lines for kept in cuts_of(text))


# --- logs --------------------------------------------------------------------------------------------------------------

TRACES = (
    'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    go(x)\nValueError: bad value: 3',
    "java.lang.IllegalStateException: no\n\tat a.b.C.d(C.java:12)\n\tat a.b.E.f(E.java:9)\n"
    "Caused by: java.io.IOException\n\t... 3 more",
)
STAMPS = (
    "2024-01-31 12:00:{:02} INFO",
    "[2024-01-31T12:00:{:02}Z] WARN",
    "Jan 31 12:00:{:02} host app[3]:",
    "INFO 12:00:{:02} -",
)


def log_document(rng: random.Random) -> tuple[str, list[str]]:
    stamp = rng.choice(STAMPS)
    entries = []
    for n in range(rng.randint(3, 30)):
        entry = f"{stamp.format(n)} {words(rng)} id={n}"
        if rng.random() < 0.2:
            entry += "\n" + rng.choice(TRACES)
        entries.append(entry)
    return "\n".join(entries), entries


def test_an_entry_is_kept_with_its_trace_or_not_at_all() -> None:
    for seed in range(DOCUMENTS):
        text, entries = log_document(random.Random(seed))
        assert [(p.kind, text[p.start : p.end]) for p in split(text)] == [("log", entry) for entry in entries]


def test_a_deep_trace_is_cut_under_its_first_line() -> None:
    frames = "\n".join(f"    at com.example.deep.Stack.frame{n}(Stack.java:{n})" for n in range(200))
    text = f"2024-01-31 12:00:01 ERROR it broke\n{frames}\n2024-01-31 12:00:02 INFO up again"
    for kept in cuts_of(text):
        assert "frame" not in kept or "ERROR it broke" in kept
        assert all(line.strip() in text for line in kept.split("\n") if line != "…")


# --- diffs -------------------------------------------------------------------------------------------------------------


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


# --- chats -------------------------------------------------------------------------------------------------------------


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


# --- HTML --------------------------------------------------------------------------------------------------------------


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


def test_a_piece_is_a_value() -> None:
    assert Piece(0, 1, "prose") == Piece(0, 1, "prose", (), None)
