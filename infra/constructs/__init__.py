"""One construct a concern; each takes keyword-only inputs and shows what others may use."""
