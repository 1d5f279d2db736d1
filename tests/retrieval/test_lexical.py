"""BM25 against the formula written out plainly, and the words that it is given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.lexical import LexicalIndex, bm25, terms

WORDS = st.lists(st.sampled_from(["limit", "upload", "5", "gb", "the", "of", "東京"]), max_size=12)


def plain_bm25(query: list[str], texts: list[list[str]]) -> list[float]:
    """Robertson and Zaragoza (2009), equation 3.15, k1 1.2 and b 0.75, with Lucene's idf: ln(1 + (N - n + .5) / (n + .5))."""
    average = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in set(query):
            n = sum(word in other for other in texts)
            f = text.count(word)
            if f:
                idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
                score += idf * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * len(text) / average))
        scores.append(score)
    return scores


@given(query=WORDS, texts=st.lists(WORDS, min_size=1, max_size=12))
def test_scores_are_the_formulas(query: list[str], texts: list[list[str]]) -> None:
    scores = bm25(query, texts)
    assert scores.shape == (len(texts),)
    np.testing.assert_allclose(scores, plain_bm25(query, texts), rtol=1e-5, atol=1e-6)


@given(query=WORDS, texts=st.lists(WORDS, min_size=1, max_size=8))
def test_scores_are_never_negative_and_zero_where_nothing_is_shared(query: list[str], texts: list[list[str]]) -> None:
    for score, text in zip(bm25(query, texts), texts, strict=True):
        assert (score > 0) == bool(set(query) & set(text))


@given(query=WORDS, texts=st.lists(WORDS, min_size=1, max_size=8), data=st.data())
def test_order_of_texts_and_of_words_does_not_matter(
    query: list[str], texts: list[list[str]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    shuffled = bm25([*reversed(query), *query], [list(reversed(texts[i])) for i in order])
    np.testing.assert_allclose(shuffled, bm25(query, texts)[list(order)], rtol=1e-5)


@given(queries=st.lists(WORDS, max_size=4), texts=st.lists(WORDS, min_size=1, max_size=8))
def test_one_index_for_many_queries(queries: list[list[str]], texts: list[list[str]]) -> None:
    index = LexicalIndex(texts)
    for query in [*queries, *queries]:
        np.testing.assert_allclose(index.scores(query), plain_bm25(query, texts), rtol=1e-5, atol=1e-6)


def test_no_texts_and_no_query() -> None:
    assert bm25(["a"], []).shape == (0,)
    assert bm25([], [["a"], []]).tolist() == [0, 0]
    assert bm25(["a"], [[], []]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ,.; — ", []),
        ("The 30-day limit", ["the", "30", "day", "limit"]),
        ("snake_case and HTTP/2", ["snake", "case", "and", "http", "2"]),
        ("Größe ÜBER naïve", ["größe", "über", "naïve"]),
        ("東京都", ["東京", "京都"]),
        ("京", ["京"]),
        ("これはペン", ["これ", "れは", "はペ", "ペン"]),
        ("서울의 인구", ["서울", "울의", "인구"]),
        ("上限は5GBです", ["上限", "限は", "は5", "5g", "gb", "bで", "です"]),
        ("\ud800 a", ["a"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_a_question_in_chinese_finds_its_text() -> None:
    texts = ["单次上传的上限为五吉字节。", "静态数据使用密钥加密。", "账单每月生成一次。"]
    scores = bm25(terms("上传的上限是多少？"), [terms(text) for text in texts])
    assert scores.argmax() == 0
    assert scores[0] > 2 * max(scores[1:])


@given(st.text(st.characters(codec=None)))
def test_any_text_has_terms_of_itself(text: str) -> None:
    folded = text.lower()
    assert all(term and term in folded for term in terms(text))
