"""What only s390's processors, and the systems that run on them, have to say of tables.

`asked`        what questions about tables ask of s390
`live`         what a running QEMU tells of a processor
`core`         a core of an s390 guest, whose notes have the control registers
`files`        files that hold physical memory, and the registers that go with them
`processor`    from the control registers that a source has, and those given, to a processor
`mode`         a processor of which no more is known than the table at which its walks begin
`asce`         an address-space-control element: `read` gives a Register of Parts
`decode`       an entry as the processor reads it: `read` gives a Reading of Parts
`fault`        program interruptions that were seen, and whether the tables give them
`case`         a saved case as a source: `snapshot`
`remedy`       what would let an access pass: `remedies` gives each Remedy, the smallest first
`lint`         what s390 adds to the rules about spaces
`linux`        the same entry as Linux reads it: `read` gives a LinuxReading of Bits
`memory_type`  the one type that all memory has
"""
