"""What trainers share: a run and its folder, robots, networks, processes (extra `train`)."""
