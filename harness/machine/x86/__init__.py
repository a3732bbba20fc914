"""x86's guest: what of the machine is this architecture's alone.

`processor`  what the guest's processor is, and which states it can take
`guest`      the running stub, with the accesses that it can make
`qemu`       QEMU as it runs the stub
"""
