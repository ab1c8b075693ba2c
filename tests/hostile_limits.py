"""What a hostile file of a megabyte may cost before it is refused."""

# Seconds of processor time. Without the checks it is minutes, or without end; with them it is
# tenths on a quick machine, and up to 3 were seen on a slow one that had other work.
SECONDS = 15.0
