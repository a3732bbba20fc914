"""What tables of POWER say, and where they come from.

`asked`        what questions about tables ask of POWER
`paths`        trees that lead to page tables of both sizes, taken apart by the size on each path
`processor`    from the registers that a source has, and those that are given, to a state
`mode`         a state of which no more is known than the size of its smallest pages
`decode`       an entry, bit by bit; PTCR and process table entries in `registers`
`memory_type`  what ATT of an entry says
`linux`        what Linux keeps in entries
`fault`        what interrupts that were seen say, and whether tables give them
`last`         the interrupt that a processor took last
`remedy`       what may be changed to let an access pass
`lint`         what POWER adds to the rules about spaces
`files`, `core`, `live`  states from files of memory, cores and a running QEMU
"""
