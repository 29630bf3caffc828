"""What lies on disk: sealed artifacts, the run folder, the state folder, events, locks."""
