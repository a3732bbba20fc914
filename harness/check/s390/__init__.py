"""Where s390's library and its machine meet.

`marks`     the code that names the frame in which it is
`cases`     which accesses are tried in a space
`matrix`    every access at every level, as products of axes
`quirks`    known departures of QEMU's TCG: there are none
`probes`    a guest's answers beside what the reference expects
`layouts`   layouts, and how they are built
`validate`  one space, and what a guest makes of it
`space`     a space of one's own in a guest's RAM
`live`      what accesses and flushes are there where it is changed while the guest runs
`changes`   which change of an entry needs which flush
`replay`    a disagreement as a file, and the question asked again; `witnesses` asks QEMU
"""
