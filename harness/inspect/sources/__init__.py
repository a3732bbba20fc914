"""Where snapshots come from, one module a kind of source.

`layout`     a written description of a space, built in memory of this process
`case`       a saved case: its layout, or the entries it carries
`ram`        a file that holds physical memory, the registers given
`qmp`        a running QEMU, by its QMP socket
`core`       a core that QEMU wrote of its guest
`entries`    the entries of one walk, and nothing else of the memory
`content`    the bytes of a file
`signature`  what a file is, by how it begins
`registers`  the CPU state that goes with any of them
"""
