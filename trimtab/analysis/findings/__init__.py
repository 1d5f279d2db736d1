"""Findings: what is looked for in recorded requests, one small file each, and this table of them."""

from typing import Final

from trimtab.analysis.findings.batches import could_wait
from trimtab.analysis.findings.boundaries import near_boundaries
from trimtab.analysis.findings.digests import changing_prefixes
from trimtab.analysis.findings.documents import near_duplicate_documents
from trimtab.analysis.findings.examples import oversized_examples
from trimtab.analysis.findings.limits import far_limits
from trimtab.analysis.findings.models import too_good_models
from trimtab.analysis.findings.prefixes import unstable_prefixes
from trimtab.analysis.findings.repeats import repeated_chunks
from trimtab.analysis.findings.tables import wordy_json
from trimtab.analysis.findings.tools import unused_tools
from trimtab.analysis.study import Finder

FINDERS: Final[dict[str, Finder]] = {
    "prefixes that break the cache": unstable_prefixes,
    "prefixes that change": changing_prefixes,
    "repeated chunks": repeated_chunks,
    "near-duplicate documents": near_duplicate_documents,
    "oversized examples": oversized_examples,
    "unused tools": unused_tools,
    "JSON that could be tabular": wordy_json,
    "contexts above a boundary": near_boundaries,
    "requests that could wait": could_wait,
    "models too good for their task": too_good_models,
    "limits far above use": far_limits,
}
"""By what each looks for."""
