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
`region`           a piece of a guest's RAM, for code that keeps its own tables
`held`             a guest's memory as it was when it was read
`compare`          what came of one oracle; `validation` of all about one space
`matrix`           what is planned of accesses that are enumerated, and what came of it
`replay`           disagreements as files, and their questions asked again
`quirk`            what a known departure is
`marks`            what frames hold, so that what is found there names the frame
`hole`             room in a space for what is the harness's; `window`, where its stub runs
`edges`            where a space is tried: at the edges of what it holds, and beyond
`tables`           tables as they were written, and as they are found
`translations`     where addresses lead, as QEMU's monitor has it
`reached`          what accesses are to find, and what is looked at after them
`product`          cases as numbers in a product of axes; `where` chooses among them
`space`            a space of one's own in a guest's RAM
`live`             a space that is changed while the guest runs in it
`stores`           what tables hold, so that stores show which no operation has noted
`flushes`          what the plugin saw of a guest's flushes, in the library's words
`changes`          which change of an entry needs which flush, and a guest that executes it
`fixtures`         what the pytest plugin, and what proves tables, ask of an architecture
`debugger`         what the QEMU of someone's own guest makes of the guest's tables
`workers`          several guests side by side
`x86`, `riscv`, `arm64`, `s390`, `power`  what an architecture is asked about: a folder each
"""
