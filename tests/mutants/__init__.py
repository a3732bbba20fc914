"""Mutation testing: which faults in the package would the tests not see."""
