"""Where snapshots come from, one module a kind of source.

`layout`     a written description of a space, built in memory of this process
`case`       a saved case: its layout, or the entries it carries
`ram`        files that hold physical memory, or a capture of it, the registers given
`qmp`        a running QEMU, by its QMP socket or its gdb stub
`core`       a core of a guest or a machine, in ELF or kdump-compressed
`entries`    the entries of one walk, and nothing else of the memory
`capture`    the blocks of a capture of LiME or AVML
`kdump`      the pages of a kdump-compressed core, flattened or not
`vmcoreinfo` what Linux says of itself in a core: where its own tables are
`content`    the bytes of a file, or of what it holds in another form
`pieces`     bytes that lie in pieces
`compressed` blocks that are compressed, and the packages that know how
`segments`   physical memory in pieces of a content
`signature`  what a file is, by how it begins
`cut`        files that end before the tables in them do
"""
