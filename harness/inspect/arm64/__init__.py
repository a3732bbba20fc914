"""What only arm64's processors, and the systems that run on them, have to say of tables.

`asked`        what questions about tables ask of arm64
`processor`    its system registers, and the state of a processor that they make
`live`         what a running QEMU tells of a processor
`last`         the abort that it raised last
`case`         a saved case of `validate` and `matrix`
`core`         a core of an arm64 guest
`vmcoreinfo`   what arm64's Linux says of itself: where its own tables are
`files`        files that hold physical memory, and the registers that go with them
`decode`       an entry, bit by bit
`registers`    TTBRn_EL1 and TCR_EL1, bit by bit
`mode`         a processor of which no more is known than its granule and the width of addresses
`memory_type`  memory types, by MAIR_EL1
`oops`         what texts of crashes say, of Linux and of QEMU: `read` gives a Report
`entries`      the entries of one walk, and a processor that they fit
`lint`         rules about spaces
`fault`        aborts that were seen, and whether tables give them
`remedy`       what would let an access pass
`prove`        the guests in which tables are proved
`linux`        what Linux keeps in the bits of an entry that the machine ignores
"""
