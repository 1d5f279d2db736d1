"""The compressors that are compared, one row each. A row is all that the harness knows of a peer before it runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.barber import Barber
from benchmarks.peers.bm25 import Bm25Sentences
from benchmarks.peers.cosine import CosinePassages, CosineSentences
from benchmarks.peers.ctxprune import Ctxprune
from benchmarks.peers.headroom import Headroom
from benchmarks.peers.langchain import LangchainEmbeddingsFilter
from benchmarks.peers.litellm import LitellmCompress
from benchmarks.peers.llama_index import LlamaIndexOptimizer
from benchmarks.peers.llmlingua import no_longllmlingua, trained_llmlingua2
from benchmarks.peers.peer import Arm, Cut, Peer, Sent, Skipped, Stateless
from benchmarks.peers.reference import Chance, Head
from benchmarks.peers.trimtab import TRIMTAB_MARKERS, TrimtabArm
from benchmarks.peers.trimwise import Trimwise

__all__ = ["PEERS", "Arm", "Cut", "Peer", "Sent", "Skipped", "Stateless"]


def _trimtab(seed: int, folder: Path) -> Arm:
    return TrimtabArm(folder / "trimtab")


PEERS: tuple[Peer, ...] = (
    Peer("trimtab", "this project, defaults", _trimtab, "trimtab", markers=TRIMTAB_MARKERS, remembers=True),
    Peer("bm25-sentences", "sentences by BM25", lambda *_: Bm25Sentences()),
    Peer("cosine-passages", "whole passages by cosine", lambda *_: CosinePassages()),
    Peer("cosine-sentences", "single sentences by cosine", lambda *_: CosineSentences()),
    Peer("head", "truncation: the first tokens", lambda *_: Head()),
    Peer("random", "sentences by lot", lambda seed, _: Chance(seed)),
    Peer(
        "langchain",
        "LangChain EmbeddingsFilter, MiniLM",
        lambda *_: LangchainEmbeddingsFilter(),
        "langchain-community",  # what langchain-classic computes the similarity with, and does not require
        "pip install langchain-classic langchain-community",
    ),
    Peer(
        "llama-index",
        "LlamaIndex SentenceEmbeddingOptimizer, MiniLM",
        lambda *_: LlamaIndexOptimizer(),
        "llama-index-core",
        "pip install llama-index-core",
        budget="own",
    ),
    Peer(
        "llmlingua-2",
        "LLMLingua-2",
        trained_llmlingua2,
        "llmlingua",
        "pip install llmlingua",
        budget="own",
    ),
    Peer(
        "longllmlingua",
        "LongLLMLingua",
        no_longllmlingua,
        "llmlingua",
        "pip install llmlingua",
        budget="own",
    ),
    Peer(
        "headroom",
        "headroom, without its hub model",
        lambda *_: Headroom(),
        "headroom-ai",
        "pip install headroom-ai",
        budget="own",
    ),
    Peer(
        "litellm",
        "LiteLLM compress (BM25)",
        lambda *_: LitellmCompress(),
        "litellm",
        "pip install litellm",
        budget="own",
        markers=("...[truncated for context window]...",),
    ),
    Peer(
        "trimwise",
        "trimwise, defaults",
        lambda *_: Trimwise(),
        "trimwise",
        "pip install trimwise",
        markers=("[…omitted…]",),
    ),
    Peer(
        "barber",
        "barber-llm, lexical",
        lambda *_: Barber(),
        "barber-llm",
        "pip install barber-llm",
        budget="own",
    ),
    Peer("ctxprune", "ctxprune", lambda *_: Ctxprune(), "ctxprune", "pip install ctxprune", budget="own"),
)
