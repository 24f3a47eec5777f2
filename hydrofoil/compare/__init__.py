"""Is B better than A? Pairs of runs, and the statistics of their difference."""
