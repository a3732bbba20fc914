"""What only RISC-V's harts have to say in reports.

`fault`  what accesses come to, and what would let them pass
`flushes`  what fences are called
`state`  the state in which tables are read, in words and as what JSON can hold
"""
