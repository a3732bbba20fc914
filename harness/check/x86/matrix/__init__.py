"""x86's matrix: accesses, enumerated, each executed by a guest and compared in full.

`stage`     what cases run under: modes, and control state
`chain`     one path of tables in a guest's memory, and what it leads to
`families`  the cases, declared as products; `warm` those of several accesses in sequence
`sequence`  runs those
`rig`       a guest with its chains, and the verdict on a batch
`case`      one case, kept as a file and asked again
`run`       what is tried, and what came of it
"""
