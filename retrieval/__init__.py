"""retrieval: strings in, arrays out. The encoder, the vector cache, the index, lexical scores. No chunks, no messages."""

from retrieval.collection import Collection, Entry
from retrieval.encoder import Encoder, Passage
from retrieval.index import VectorIndex, near_duplicates
from retrieval.sentence_encoder import SentenceTransformerEncoder
from retrieval.vectors import CachedEncoder

__all__ = [
    "CachedEncoder",
    "Collection",
    "Encoder",
    "Entry",
    "Passage",
    "SentenceTransformerEncoder",
    "VectorIndex",
    "near_duplicates",
]
