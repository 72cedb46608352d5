"""What the system is compared with: transformers' ``generate``, by itself and behind two servers that batch requests.

Each is a program of its own. They know neither our packages nor each other.
"""
