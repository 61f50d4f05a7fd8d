"""The model zoo: nets published with a card, one folder each. `cards` and `placing` are importable without torch."""
