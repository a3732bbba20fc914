"""RISC-V: the formats of its page tables (privileged specification 1.13, "Supervisor-Level ISA").

`formats`  Sv32, Sv39, Sv48 and Sv57, with what Svnapot, Svpbmt and Svrsw60t59b make of them
"""
