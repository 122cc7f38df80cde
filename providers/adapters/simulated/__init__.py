"""A provider that behaves as its model's name says, well or badly: for drills, tests and load."""

from providers.adapters.simulated.adapter import LoggedCall, SimulatedAdapter
from providers.adapters.simulated.faults import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "LoggedCall", "SimulatedAdapter"]
