"""POWER's matrix: accesses, enumerated, each executed by a guest and compared in full.

`chain`     one path of tables in a guest's memory, its control state, and what it leads to
`families`  the cases, declared as products
`judged`    what accesses come to, by the rules and by an engine with its quirks
`verdicts`  a batch as jobs for the guest, and whether it saw what is expected
`run`       what is tried, and what came of it
"""
