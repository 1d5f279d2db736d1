"""Splitting code: what parsed parses after any cut, and what is kept has its signatures and its imports."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from pathlib import Path

import pytest

from compressor.splitting import split
from compressor.splitting.imports import imported_names
from compressor.splitting.languages import language_named
from tests.compressor.made import WORDS, made, ranked, words
from tests.compressor.test_splitting import assert_sound, cuts_of, kinds_of, texts_of

# --- Python ---------------------------------------------------------------------------------------------------------


def python_document(rng: random.Random) -> str:
    lines = ['"""Module words. "Quoted" too."""', "from __future__ import annotations", "import os, sys", ""]

    def block(indent: str, depth: int) -> None:
        for _ in range(rng.randint(1, 5)):
            roll = rng.random()
            name = f"{rng.choice(WORDS)}_{rng.randint(0, 99)}"
            if depth < 3 and roll < 0.5:
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


# --- other languages ------------------------------------------------------------------------------------------------


def braces_document(rng: random.Random) -> str:
    lines = ["#include <stdio.h>", "// a remark with { and '", ""]

    def block(indent: str, depth: int) -> None:
        for _ in range(rng.randint(1, 4)):
            name = f"{rng.choice(WORDS)}{rng.randint(0, 99)}"
            if depth < 3 and rng.random() < 0.5:
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


# --- signatures and imports --------------------------------------------------------------------------------------------

BODY = "\n\n".join(f"        self.value_{n} = compute(argument_{n}, other_argument_{n}, third_{n})" for n in range(8))
LEDGER = (
    "import os\nimport json as j\nfrom typing import (\n    Any,\n    Optional as Opt,\n)\n\n\nclass Ledger:\n"
    f"    def total(self, a: Any):\n{BODY}\n        return j.dumps(a)\n\n    def spare(self):\n{BODY}\n\n"
    f"    def last(self):\n{BODY}\n"
)


def best(text: str, *wanted: str) -> str:
    """The smallest cut that keeps every piece with one of `wanted` in it, where these score best."""
    pieces = split(text)
    scores = [float(any(each in text[p.start : p.end] for each in wanted)) for p in pieces]
    assert any(scores)
    ranking = ranked([text], scores)
    spans = [(p.start, p.end) for p, score in zip(pieces, scores, strict=True) if score]
    for budget in range(ranking.full_tokens):
        (kept,) = ranking.cut(budget).contexts
        if all(any(a <= start and end <= b for a, b in kept.spans) for start, end in spans):
            return kept.text
    raise AssertionError("nothing less than all of it will do")


def test_a_signature_may_stand_for_its_body() -> None:
    kept = best(LEDGER, "def spare")
    assert "class Ledger:\n    # …\n    def spare(self):\n        ..." in kept
    assert "value_" not in kept
    assert parses(kept)


def test_what_is_kept_keeps_the_imports_of_its_names() -> None:
    kept = best(LEDGER, "return j.dumps")
    assert "import json as j" in kept
    assert "import os" not in kept
    assert "    Any,\n" in kept  # the signature that stands over it names that
    assert parses(kept)


@pytest.mark.parametrize(
    ("statement", "language", "names"),
    [
        ("import a", "python", {"a"}),
        ("import a.b, c as d", "python", {"a", "d"}),
        ("from .x import (y,  # a remark\n    z as w,\n)", "python", {"y", "w"}),
        ("from x import *", "python", set()),
        ("imported = 5", "python", set()),
        ("import React, { useState as state, b } from 'react'", "js", {"React", "state", "b"}),
        ("import * as fs from 'fs'", "js", {"fs"}),
        ("const { a, b: c } = require('x')", "js", {"a", "c"}),
        ("import 'polyfill'", "js", set()),
        ("#include <stdio.h>", "c", set()),
    ],
)
def test_what_an_import_brings(statement: str, language: str, names: set[str]) -> None:
    found = language_named(language)
    assert found is not None
    assert imported_names(statement, found) == names


def test_a_signature_with_braces_keeps_its_brackets() -> None:
    body = "\n\n".join(f"    someFunctionOfMine(firstArgument{n}, secondArgument{n}, third{n});" for n in range(12))
    text = "".join(f"function run{n}(a, b) {{\n{body}\n}}\n\n" for n in range(4))
    kept = best(text, "function run2")
    assert "function run2(a, b) {\n    // …\n}" in kept
    assert not balance(kept)


def test_a_class_of_which_something_is_kept_shows_its_signatures_before_what_is_no_better() -> None:
    methods = "".join(f"    def method_{n}(self):\n{BODY}\n\n" for n in range(4))
    other = "".join(f"def other_{n}(a):\n{BODY.replace('        ', '    ')}\n\n\n" for n in range(4))
    text = f"class Ledger:\n{methods}\n\n{other}"
    scores = [float("self.value_3" in text[p.start : p.end] and p.start < len(methods) / 4) for p in split(text)]
    for budget in range(20, 1500, 25):
        kept = ranked([text], scores).cut(budget).contexts[0].text
        assert parses(kept)
        assert "def other" not in kept or all(f"def method_{n}(self):" in kept for n in range(4))
    assert "def other" in kept
