"""What organisations gain when agents choose how much to take part: on a simulated market and in real rounds."""
