"""Where the library and the machine meet: the same tables, asked of both.

`layouts`   written descriptions of spaces, and the tables built from them
`keys`      what the values in such a description must look like
`window`    the hole of a space in which the guest's own program runs
`cases`     which accesses are tried in a space
`marks`     what is put into frames, so that what is found there names the frame
`probes`    accesses that the guest executes, beside what the reference expects
`debugger`  what QEMU's monitor says of the space, beside the reference
`quirks`    known departures of engines from the rules, with their evidence
`compare`   answers side by side, and the verdict on each
`validate`  one layout, every oracle
"""
