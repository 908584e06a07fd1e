"""What each state of the workflow does: one module a state, over ports only."""
