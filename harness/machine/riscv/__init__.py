"""RISC-V's guest, of 32 and of 64 bits.

`processor`  what the guest's processor is, and which states it can take
`guest`      the running stub, with the accesses that it can make
`qemu`       QEMU as it runs the stub
`registers`  what QEMU's monitor prints of a processor
`mappings`   what it lists of its tables
`engines`    the engines by name
"""
