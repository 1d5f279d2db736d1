"""trimtab: trims the context of a request to a language model, plans the cheapest way to get it answered, and forwards it.

from trimtab import Trimtab
Trimtab().compress("How large may an upload be?", contexts, ratio=0.25)
"""

from trimtab.errors import BadRequest, BadSettings, TrimtabError
from trimtab.pipeline import Completion, Compressed, Trimtab
from trimtab.settings import Settings

__version__ = "0.1.0"

__all__ = ["BadRequest", "BadSettings", "Completion", "Compressed", "Settings", "Trimtab", "TrimtabError"]
