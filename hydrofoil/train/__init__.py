"""From batches to weights: loop, step, optimizers, and the state that outlives an epoch."""
