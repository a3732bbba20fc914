"""Where x86's library and its machine meet.

`space`            a space of one's own in a guest's RAM
`live`             what accesses and flushes are there where it is changed while the guest runs
`changes`          which change of an entry needs which flush
`layouts`          layouts, built for x86
`window`           the hole of a space in which the guest's own program runs
`cases`            which accesses are tried in a space
`marks`            the code and the descriptors that name the frame in which they are
`entries`          what accesses leave in the entries of their paths
`probes`           accesses that the guest executes, beside what the reference expects
`debugger`         what QEMU's monitor says of the space, beside the reference
`foreign`          which of that the QEMU of someone's own guest is asked
`quirks`           known departures of engines from the rules
`flushes`          the flushes that a guest executed, and the state of its processors
`second_reading`   entries and accesses read a second time, by rules that share nothing with ours
`verdicts`         the verdict on many accesses
`validate`         one layout, every oracle
`reach`            every address bit of every kind of entry, and where it leads
`replay`           a disagreement as a file, and the question asked again
`witnesses`        the same question, asked of every engine
`fixtures`         what the pytest plugin asks of it
`matrix`           every access at every level under every control state, executed and compared
"""
