"""What commands print of RISC-V.

`matrix`  a run of its matrix
"""
