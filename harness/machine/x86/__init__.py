"""x86's guest: what of the machine is this architecture's alone.

`processor`  what the guest's processor is, and which states it can take
`guest`      the running stub, with the accesses that it can make
`stub`       what the stub is made of
`qemu`       QEMU as it runs the stub
`bochs`      one Bochs process
`registry`   the engines by name: the one place that lists them
`engines`    which of them this host can run, and why not the others
"""
