"""The workflow file and the contract examples of its states, as data."""
