"""Where RISC-V's library and its machine meet.

`marks`     the code that names the frame in which it is
`window`    the two pages of the tested space from which the stub makes its accesses
`cases`     which accesses are tried in a space
`quirks`    known departures of QEMU's TCG
`probes`    a guest's answers beside what the reference expects
`foreign`   what the QEMU of someone's own guest lists, beside the reference
`layouts`   layouts, built for RISC-V
`space`     a space of one's own in a guest's RAM
`live`      what accesses and flushes are there where it is changed while the guest runs
`changes`   which change of an entry needs which flush
`validate`  one space, and what a guest makes of it
`flushes`   the fences that a guest executed, and the state of its harts
`replay`    a disagreement as a file, and the question asked again; `witnesses` asks QEMU
`fixtures`  what the pytest plugin asks of it
`matrix`    every access at every level under every control state, executed and compared
"""
