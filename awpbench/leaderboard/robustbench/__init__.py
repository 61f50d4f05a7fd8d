"""RobustBench both ways, without RobustBench: its files, its ranking rule, and its rows as a snapshot."""
