"""Costs of one's own: functions of a plan, loaded by name, watched in a run. `docs/own_cost.md`.

`plan.py` is what such a function sees, `cost.py` makes a cost of it, `load.py` finds it by
`file.py:function` or `module:function`, and `own.py` asks for it tick after tick and says what came
of it, and whether it asks for what the training data do not hold.
"""

from bm_envs.diffusion.user_costs.cost import PlanCost, with_gradient
from bm_envs.diffusion.user_costs.load import Loaded, load_cost
from bm_envs.diffusion.user_costs.own import COST_STRENGTH, OwnCost, check_cost_strength
from bm_envs.diffusion.user_costs.plan import Plan

__all__ = [
    "COST_STRENGTH", "Loaded", "OwnCost", "Plan", "PlanCost", "check_cost_strength", "load_cost",
    "with_gradient",
]  # fmt: skip
