"""Numbers, each beside a reference measured in the same run. ``make bench`` runs all of them.

One module a row: ``python -P -m benchmarks.e1_status``. Each says how it is measured, and prints as its last line one
JSON object: ``{"name", "ratio", "target", "met", "detail"}``. A ratio is of medians over repeats that are interleaved
with the reference's, since a machine that is busy now is busy for both.
"""
