"""The analyser: recorded requests in, what to restructure and what it would save out.

recorded     one request that was made, whoever wrote it down; `shapes` read the recorders' forms, `recordings` their files
anatomy      a request as the provider reads it, part by part, counted
grouping     which requests one piece of an application makes
study        a set of requests, counted, grouped and priced, as every finding reads it
findings     what is looked for, one small file each
changes      what a finding would make of a bill
report       what was found, as plain data; `page` makes it one HTML file
"""

from trimtab.analysis.recordings import BadRecording, Recording, read
from trimtab.analysis.report import Report, reported
from trimtab.analysis.study import Prices, Study, studied

__all__ = ["BadRecording", "Prices", "Recording", "Report", "Study", "read", "reported", "studied"]
