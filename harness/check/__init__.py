"""Where the library and the machine meet: the same tables, asked of both.

The words that this package adds to those of `harness.paging`:

layout   a written description of a space, from which its tables are built
probe    one access that the guest executes and reports
engine   what executes the guest: QEMU's TCG, KVM, or Bochs
oracle   anyone who can be asked: a guest's probe, `gva2gpa`, `info tlb`, memory through the monitor
verdict  agree, disagree, known quirk, or not comparable; never a silent pass
quirk    a known departure of one engine from the rules, with its evidence
case     one access in the matrix, or several in sequence, as a number in a product of axes

`layouts`, `keys`  descriptions of spaces, the tables built from them, what their values look like
`bounds`           how much a layout asks for, before it is built
`typed`            JSON files of a known form, every value of its type
`written`          reading and writing files that people or this program wrote
`space`            a space of one's own in a guest's RAM
`region`           a piece of that RAM, for code that keeps its own tables
`live`             a space that is changed while the guest runs in it
`stores`           what tables hold, so that stores show which no operation has noted
`changes`          which change of an entry needs which flush, and a guest that executes it
`window`           the hole of a space in which the guest's own program runs
`cases`            which accesses are tried in a space
`marks`            what is put into frames, so that what is found there names the frame
`entries`          what accesses leave in the entries of their paths
`probes`           accesses that the guest executes, beside what the reference expects
`held`             a guest's memory as it was when it was read
`debugger`         what QEMU's monitor says of the space, beside the reference
`quirks`           known departures of engines from the rules
`flushes`          what the plugin saw of a guest's flushes, in the library's words
`second_reading`   entries and accesses read a second time, by rules that share nothing with ours
`verdicts`         the verdict on many accesses; `compare` what came of one oracle
`validate`         one layout, every oracle
`reach`            every address bit of every kind of entry, and where it leads
`replay`           a disagreement as a file, and the question asked again
`witnesses`        the same question, asked of every engine
`workers`          several guests side by side
`matrix`           every access at every level: `product`, `families` and `where` say which,
                   `stage`, `chain` and `rig` run them, `matrix_case` keeps one
`riscv`            the same for RISC-V, what is not generic
`warm`             families of several accesses in sequence, which `sequence` runs
"""
