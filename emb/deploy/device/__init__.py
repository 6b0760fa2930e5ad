"""The files that run on the board, shipped with every bundle as they are. Never imported by emb."""
