"""Layers of the classic CNNs that Keras lacks; registered, so that a .keras file that holds them loads anywhere in emb.

Written with keras.ops alone, in operations that every exported format has. Knows no architecture.
"""
