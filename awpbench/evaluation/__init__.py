"""Evaluation: versioned suites, the plan, the resumable runner, statistics. Importable without torch."""
