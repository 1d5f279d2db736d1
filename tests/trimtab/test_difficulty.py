"""Prompts in numbers, scored prompts from a file, and the router that the pipeline asks: text meets difficulty here."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from retrieval import Passage, SentenceTransformerEncoder
from routing.catalog import Catalog
from routing.difficulty import shipped_difficulty
from trimtab.commands.train_router import train_router
from trimtab.difficulty import DifficultyRouter, list_prices_usd
from trimtab.errors import BadSettings
from trimtab.prompt_features import NAMES, columns, doubt, features, rows
from trimtab.router_training import set_weights, trained
from trimtab.scored import BadScores, Scored, read_scored, score_table

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@given(st.text(st.characters(), max_size=400))
def test_any_text_has_finite_features(prompt: str) -> None:
    found = features(prompt)
    assert found.shape == (len(NAMES),)
    assert np.isfinite(found).all()


def test_half_a_surrogate_pair_is_a_text_too() -> None:
    assert np.isfinite(features("what is \ud800?")).all()


def named(prompt: str) -> dict[str, float]:
    return dict(zip(NAMES, features(prompt).tolist(), strict=True))


def test_features_tell_kinds_of_prompts_apart() -> None:
    options = named("Which is a metal?\nA. oxygen\nB. iron\nC. neon\nD. argon\nAnswer:")
    sum_ = named("A robe takes 2 bolts of blue fiber and 14 of white. How many bolts does it take?")
    code = named("def add(a, b):\n    return a + b\nWrite a python function to subtract.")
    chinese = named("为什么天空是蓝色的？")
    assert options["log_options"] > 1
    assert sum_["log_options"] == 0
    assert (options["which"], sum_["how_many"], code["asked_to_write"]) == (1, 1, 1)
    assert sum_["digit_share"] > 0
    assert sum_["how"] == 0
    assert code["code_share"] > sum_["code_share"]
    assert chinese["other_alphabet_share"] == 1


def test_a_row_is_the_prompts_vector_and_then_its_features(encoder: SentenceTransformerEncoder) -> None:
    prompts = ("Who wrote Faust?", "What is 17 * 23?")
    made = rows(prompts, encoder)
    for row, prompt in zip(made, prompts, strict=True):
        vector = encoder.encode([Passage(prompt, ((0, len(prompt)),))])[0][0]
        assert row[: len(vector)] == pytest.approx(vector, abs=1e-5)
        assert np.array_equal(row[len(vector) :], features(prompt))
    assert doubt(made.shape[1]).shape == made[0].shape
    assert rows((), encoder).shape[0] == 0


def scored_file(folder: Path, *lines: object, name: str = "s.jsonl") -> Path:
    file = folder / name
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    if name.endswith(".gz"):
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_scored_prompts_are_read_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    lines = [
        {"id": 7, "prompt": "p", "task": "t", "scores": {"b": 1, "a": 0.5}},
        "",
        {"prompt": "q", "scores": {"a": 0}},
    ]
    prompts = list(read_scored(scored_file(tmp_path, *lines, name=name)))
    assert prompts == [Scored("p", "t", (("b", 1.0), ("a", 0.5))), Scored("q", "", (("a", 0.0),))]
    models, table = score_table(prompts)
    assert models == ("a", "b")
    assert np.array_equal(table, [[0.5, 1.0], [0.0, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("no json", "line 2"),
        ("[]", "JSON object"),
        ({"scores": {"a": 1}}, "prompt must be"),
        ({"prompt": " ", "scores": {"a": 1}}, "prompt must be"),
        ({"prompt": "p", "task": 3, "scores": {"a": 1}}, "task must be"),
        ({"prompt": "p"}, "scores must name"),
        ({"prompt": "p", "scores": {}}, "scores must name"),
        ({"prompt": "p", "scores": {"a": 2}}, "the score of 'a' must be a number from 0 to 1, not 2"),
        ({"prompt": "p", "scores": {"a": True}}, "the score of 'a'"),
        ('{"prompt": "p", "scores": {"a": NaN}}', "the score of 'a'"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, line: object, says: str) -> None:
    file = scored_file(tmp_path, {"prompt": "good", "scores": {"a": 1}}, line)
    with pytest.raises(BadScores, match=r"s\.jsonl, line 2: ") as caught:
        list(read_scored(file))
    assert says in str(caught.value)


def test_the_shipped_weights_are_of_the_default_encoder_and_these_features(encoder: SentenceTransformerEncoder) -> None:
    """Fails where either changed: train again, as docs/router.md says."""
    assert shipped_difficulty().columns == columns(encoder)


def test_the_shipped_weights_know_an_easy_prompt_from_a_hard_one(encoder: SentenceTransformerEncoder) -> None:
    router = DifficultyRouter.of(encoder)
    offers = Catalog(()).offers(["claude-haiku-5-5"], NOW) + Catalog(()).offers(["gpt-6.1-sol"], NOW)
    easy = router.qualities("Which is a mammal?\nA. trout\nB. dog\nC. ant\nD. frog\nAnswer:", offers)
    hard = router.qualities(
        "Let p = (1, 2, 5, 4)(2, 3) in S_5. Find the index of <p> in S_5.\nA. 8\nB. 2\nC. 24\nD. 120\nAnswer:", offers
    )
    assert set(easy) == {"claude-haiku-5-5", "gpt-6.1-sol"}
    for model in easy:
        assert 0.8 < easy[model] < 1
        assert hard[model] < easy[model] - 0.2
    for judged in (easy, hard):
        assert judged["claude-haiku-5-5"] < judged["gpt-6.1-sol"]


def test_a_share_that_the_user_gives_goes_before_the_guess(encoder: SentenceTransformerEncoder) -> None:
    offers = Catalog(()).offers(["claude-haiku-5-5"], NOW)
    chances = [
        DifficultyRouter.of(encoder, shares={"claude-haiku-5-5": share}).qualities("Who wrote Faust?", offers)
        for share in (0.3, 0.9)
    ]
    assert chances[0]["claude-haiku-5-5"] < chances[1]["claude-haiku-5-5"] - 0.3


def test_a_discount_makes_no_model_weaker() -> None:
    listed, discounted = (
        Catalog(()).offers(["gpt-6.1-sol"], NOW, classes) for classes in (("sync",), ("sync", "batch"))
    )
    assert len(discounted) > len(listed)
    assert list_prices_usd(discounted) == list_prices_usd(listed)


def test_weights_of_other_vectors_are_refused(encoder: SentenceTransformerEncoder, tmp_path: Path) -> None:
    class Other:
        identity = "another encoder"

        def encode(self, passages: object) -> list[object]:
            raise AssertionError

    with pytest.raises(BadSettings, match=r"router: .* other vectors"):
        DifficultyRouter.of(Other())  # type: ignore[arg-type]
    for file in (tmp_path / "missing.npz", scored_file(tmp_path, "no weights", name="text.npz")):
        with pytest.raises(BadSettings, match="router: "):
            DifficultyRouter.of(encoder, str(file))


def test_a_small_set_is_neither_drowned_nor_does_it_drown() -> None:
    weights = set_weights([100, 400])
    assert weights.mean() == pytest.approx(1)
    assert weights[0] == pytest.approx(2 * weights[-1])
    assert set_weights([3, 0]).shape == (3,)


def test_a_model_whose_scores_are_all_the_same_is_left_out(encoder: SentenceTransformerEncoder) -> None:
    prompts = [Scored(f"What is {n} + {n}?", "", (("varied", n % 2), ("perfect", 1.0))) for n in range(24)]
    made = rows([each.prompt for each in prompts], encoder)
    assert trained(prompts, made, np.ones(24), "c").models == ("varied",)
    with pytest.raises(ValueError, match="no model has both"):
        trained(prompts[::2], made[::2], np.ones(12), "c")


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(train_router)
    return made


def traffic() -> list[dict[str, object]]:
    """Sums are beyond the small model, capitals are not."""
    countries = (
        "France",
        "Italy",
        "Spain",
        "Peru",
        "Chile",
        "Japan",
        "Kenya",
        "Ghana",
        "Egypt",
        "India",
        "Cuba",
        "Norway",
    )
    capitals = [{"prompt": f"What is the capital of {c}?", "scores": {"small": 1, "large": 1}} for c in countries]
    sums = [
        {"prompt": f"What is {n * 37} times {n * 91}?", "scores": {"small": 0, "large": n % 4 > 0}}
        for n in range(1, 13)
    ]
    return [*capitals, *({**each, "scores": {k: int(v) for k, v in each["scores"].items()}} for each in sums)]


def test_training_on_ones_own_traffic_gives_a_router_for_it_the_same_bytes_each_time(
    tmp_path: Path, encoder: SentenceTransformerEncoder
) -> None:
    file = scored_file(tmp_path, *(traffic() * 30))
    for name in ("a.npz", "b.npz"):
        done = CliRunner().invoke(app(), [str(file), "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    router = DifficultyRouter.of(encoder, str(tmp_path / "a.npz"))
    made = rows(["What is the capital of Mali?", "What is 411 times 733?"], encoder)
    capital, product = (router.weights.qualities(row, ("small", "large")) for row in made)
    assert capital["small"] > product["small"] + 0.2
    assert product["large"] > product["small"]


def test_a_bad_file_ends_the_training_with_one_line(tmp_path: Path) -> None:
    few = scored_file(tmp_path, *traffic()[:3])
    bad = scored_file(tmp_path, "{}", name="bad.jsonl")
    for file, says in (
        (few, "nothing can be learned"),
        (bad, "bad.jsonl, line 1"),
        (tmp_path / "missing.jsonl", "missing"),
    ):
        done = CliRunner().invoke(app(), [str(file), "--out", str(tmp_path / "x.npz")])
        assert done.exit_code == 2
        assert says in done.output.replace("\n", " ")
        assert not (tmp_path / "x.npz").exists()
