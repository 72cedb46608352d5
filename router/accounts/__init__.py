"""Accounts in front of the endpoints: keys, limits and bills. Knows no format of requests, and not who answers."""
