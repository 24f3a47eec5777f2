"""What follows a training: recorder, console, signals, trackers."""
