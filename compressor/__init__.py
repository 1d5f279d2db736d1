"""compressor: text in, less text out. Segments, splitting, ranking, cutting. No network, no prices."""

from compressor.ranking import Kept, Ranking, Trimmed
from compressor.relevance import Ranker
from compressor.segments import Segment, Source

__all__ = ["Kept", "Ranker", "Ranking", "Segment", "Source", "Trimmed"]
