"""What follows a training: recorder, console, signals, trackers; one protocol, `Observer`."""
