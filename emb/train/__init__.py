"""Trains a Keras model on TensorFlow or JAX: the loop, its schedules, its augmentation and its history.

Knows no data set, no builder and no file format but its own checkpoint and record of gradients.
"""

from emb.train.constraint import Constraint
from emb.train.distillation import Teacher
from emb.train.fit import Trained, train
from emb.train.gradients import GradientNorms
from emb.train.heads import without_auxiliaries
from emb.train.history import Epoch, History
from emb.train.progress import Progress
from emb.train.validate import accuracy

__all__ = [
    "Constraint",
    "Epoch",
    "GradientNorms",
    "History",
    "Progress",
    "Teacher",
    "Trained",
    "accuracy",
    "train",
    "without_auxiliaries",
]
