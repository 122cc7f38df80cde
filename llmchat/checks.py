"""System checks: what in the settings would only show at run time. Each has an id, a hint and a test."""
