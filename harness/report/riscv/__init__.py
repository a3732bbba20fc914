"""What only RISC-V's harts have to say in reports.

`state`  the state in which tables are read, in words and as what JSON can hold
"""
