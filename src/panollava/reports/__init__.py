"""Self-contained HTML pages: scores, samples, comparisons, ablations."""
