"""What all tests share."""

from hypothesis import settings

# How long an example takes says how loaded the machine is, and nothing about the rule it tests.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
