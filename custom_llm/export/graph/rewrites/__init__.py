"""Exact rewrites: a graph becomes another one that computes the same function with other means."""
