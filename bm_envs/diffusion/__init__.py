"""What acts in the guided tasks: a diffusion model, sampled and steered by costs.

Imports point here from nowhere in the tasks, so that what a world counts as contact, reward or
success cannot follow from what a controller wants.
"""
