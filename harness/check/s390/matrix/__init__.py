"""s390's matrix: accesses, enumerated, each executed by a guest and compared in full.

`chain`     one path of tables in a guest's memory, what it leads to, and the control states
`families`  the cases, declared as products
`verdicts`  what accesses come to; a batch as jobs for the guest, and whether it saw that
`run`       what is tried, and what came of it
"""
