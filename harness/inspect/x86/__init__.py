"""What only x86's processors, and the systems that run on them, have to say of tables.

`asked`        what questions about tables ask of x86
`live`         what a running QEMU tells of a processor
`core`         a core of an x86 guest
`vmcoreinfo`   what x86's Linux says of itself: where its own tables are
`processor`    from the registers that a source has, and those given in their place, to a CPU state
`decode`       an entry as the machine reads it: `read` gives a Reading of Parts
`mode`         a CPU of which no more is known than its mode
`files`        files that hold physical memory, and the registers that go with them
`entries`      the entries of one walk, and a CPU that they fit
`cr3`          the register CR3 as the machine reads it: `read` gives a Register of Parts
`memory_type`  what PAT, PCD and PWT make of a page: its memory type
`linux`        the same entry as Linux reads it: `read` gives a LinuxReading of Bits
`likely`       what an entry that makes no sense probably is
`data`         what a word probably is that was never meant as an entry, or as an address
`doubt`        why the root may be another than was meant
`fault`        page faults that were seen: `read_code` gives a SeenFault, and `compare` says
               whether the tables give it
`unsure`       what else an access comes to where what was assumed is not so
`case`         a saved case as a source: `snapshot`
`remedy`       what would let an access pass: `remedies` gives each Remedy, the smallest first
`frame`        the frame of a page fault on the stack
`last`         the page fault that a processor raised last: `raised`, by CR2 and that frame
`registers`    what registers alone say of a page fault: `facts`
`oops`         what texts of crashes say, of Linux and of QEMU: `read` gives a Report
`lint`         what x86 adds to the rules about spaces
`needs`        what the processor itself needs of a space: GDT, IDT, TSS, stacks, handlers
`engine`       how the engine of a guest reads its tables, where that is not by the rules
`prove`        the guests in which tables are proved
"""
