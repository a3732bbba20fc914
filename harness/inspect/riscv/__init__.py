"""What only RISC-V's harts, and the systems that run on them, have to say of tables.

`asked`        what questions about tables ask of RISC-V
`live`         what a running QEMU tells of a hart
`core`         a core of a RISC-V guest
`files`        files that hold physical memory, and the registers that go with them
`vmcoreinfo`   what RISC-V's Linux says of itself: where its own tables are
`processor`    from the registers that a source has, and those given in their place, to a hart
`mode`         a hart of which no more is known than its mode
`entries`      the entries of one walk, and a hart that they fit
`satp`         the register satp: `read` gives a Register of Parts
`decode`       an entry as the hart reads it: `read` gives a Reading of Parts
`fault`        exceptions that were seen, and whether the tables give them
`last`         the fault that a hart raised last: `raised`, by scause, stval and sepc
`case`         a saved case as a source: `snapshot`
`remedy`       what would let an access pass: `remedies` gives each Remedy, the smallest first
`oops`         what texts of crashes say, of Linux, OpenSBI and QEMU: `read` gives a Report
`lint`         what RISC-V adds to the rules about spaces
`linux`        the same entry as Linux reads it: `read` gives a LinuxReading of Bits
`memory_type`  what PBMT makes of a page: its memory type
`prove`        the guests in which tables are proved
"""
