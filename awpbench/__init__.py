"""Train, attack and rank robust image classifiers."""

__version__ = "0.1.0"
