"""Reproduce a table of the AWP paper: plan its runs, do them, and set the paper's numbers beside ours."""
