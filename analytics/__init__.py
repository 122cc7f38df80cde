"""Answers drawn from the record: roll-ups, reports, dashboards. Reads what chat has written."""
