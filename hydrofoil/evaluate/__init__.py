"""True numbers: sums over pictures, intervals with every share, one pass over a split."""
