"""A model as what it computes, and exact rewrites of that."""
