"""Accounts: who may ask for what, what it costs, and what has been paid. Knows no HTTP, no Ray and no model.

Money is counted in nano-dollars, as integers.
"""
