"""emb: a compiler for small machines."""
