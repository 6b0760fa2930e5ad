"""A Keras model as its integer graph computes it, and what can be done about what that loses; one file per remedy.

Every remedy is a function of a plain model (emb.export.plain) that gives another plain model or other ranges, which the
ordinary conversion then reproduces. Measures no accuracy and chooses among no remedies.
"""
