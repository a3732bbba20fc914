"""The guest: QEMU, its memory, its monitor and the stub that executes probes in it.

This package knows addresses, bytes and the numbers of registers. It does not know what a page-table
entry means, and imports nothing of the packages that do.

`errors`     how things go wrong
`ram`        guest memory shared with this process, and how it is divided
`machine`    what runs a guest, whichever emulator it is: memory, console, end
`registry`   the engines of an architecture by name
`qemu`       one QEMU process: start, watch, end
`copied`     guest memory that an emulator keeps to itself, copied both ways
`monitor`    QMP: translations, memory and registers as QEMU sees them
`foreign`    a QEMU that someone else started, and its guest stopped and resumed in every case
`gdbstub`    the same through its gdb stub
`packets`    a gdb stub's packets, and the registers that it describes
`plugin`     a QEMU that its user's command starts, with the plugin that watches flushes
`guard`      the program that resumes it when this process can not
`interrupts` Ctrl-C, raised once and not in the middle of what cannot be broken off
`patience`   the clock of deadlines, which stands still while a process waits for a processor
`descriptors`  open files that another process gets by their numbers
`openfile`   files that are read in place
`physical`   where a foreign guest has memory, and the fastest way to it
`stub`       the guest program as a file: its symbols, and the structures of its protocol
`guest`      the running stub: batches of probes, parking
`x86`        what is x86's alone, its processor, QEMU and guest; and so for each architecture:
`riscv`      the same for RISC-V of 32 and 64 bits
`arm64`      the same for arm64
`power`      the same for POWER, whose stub is big-endian
`s390`       the same for s390
"""
