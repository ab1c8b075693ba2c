"""The worlds without a reference: what a robot is asked, sees and is rewarded for, one file a task.

`base.py` has one control step and what all tasks share, `tasks.py` the tasks by name, and
`config.py` their numbers. Nothing here knows what acts in these worlds.
"""
