"""Verdicts and walks for people, and for programs.

`run`       what came of a validation, all spaces together
`text`      walks and disagreements as lines of text
`terminal`  tables
`files`     the same as JSON, and as JUnit for what watches over tests
"""
