"""Where snapshots come from, one module a kind of source.

`layout`  a written description of a space, built in memory of this process
`ram`     a file that holds physical memory, the registers given
"""
