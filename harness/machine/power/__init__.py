"""POWER's guest.

`processor`  what the guest's processor is, and which states it can take
`guest`      the running stub, with the accesses that it can make
`qemu`       QEMU as it runs the stub
`engines`    the engines by name
`registers`  what QEMU shows of any guest's processor
"""
