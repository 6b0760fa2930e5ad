"""Composes the parts: what a recipe means, in which stages it is built, what is measured, and what is written."""
