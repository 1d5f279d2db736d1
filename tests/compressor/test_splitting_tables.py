"""Splitting tables: every row that a cut keeps has its header over it."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable

import pytest

from compressor.splitting import split
from tests.compressor.made import WORDS, made, words
from tests.compressor.test_splitting import assert_sound, cuts_of, kinds_of, texts_of


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
