"""Trains a Keras model on any Keras backend: the loop, its schedules, its augmentation and its history.

Knows no data set, no builder and no file format but its own checkpoint.
"""

from emb.train.fit import train
from emb.train.history import Epoch, History
from emb.train.progress import Progress

__all__ = ["Epoch", "History", "Progress", "train"]
