"""Other people's Python clients against the running system; ``make clients`` starts it and runs these tests.

They run in environments of their own (``requirements/clients*.txt``), which have nothing of this repository but its
sources. Elsewhere they are skipped.
"""
