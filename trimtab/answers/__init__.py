"""The answer cache: an answer that was paid for once, given again to whoever asks the same (docs/answer-cache.md)."""
