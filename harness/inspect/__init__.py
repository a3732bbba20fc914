"""Looking at tables that stand somewhere: what they say, where, and what is odd about them.

The words that this package adds to those of `harness.paging`:

source    where tables come from: a layout, a saved case, a running QEMU, a core dump, a memory file
snapshot  what a source gives: CPU state and physical memory at one moment
reading   an entry bit by bit: what each part is called, what it means, what is wrong with it
range     neighbours in a space that say the same, with how many addresses each of them has
self-map  a pointer to a table that is in use at the pointer's own level or above

`snapshot`     the CPU state and memory that all questions are asked of
`number`       numbers as tools print them and people write them: `read`
`symbols`      names of code addresses, from an ELF file or a list: `symbols` gives Symbols
`names`        what levels are called: `level_named`
`held`         all tables of a space, read at one moment, and how many they may be
`sources`      one module a kind of source
`architecture`  what questions ask of an architecture, and which one a CPU state is of
`x86`          what only x86's processors and their systems have
`riscv`        the same of RISC-V
`arm64`        the same of arm64
`s390`         the same of s390
`power`        the same of POWER
`decode`       an entry as the machine reads it: `read` gives a Reading of Parts
`linux`        what Linux reads into an entry, in words
`translation`  an address: `translate` gives a Translation of Stages, with rights as they accumulate
`fault`        an access: `explain` gives an Explanation
`last`         the fault that a processor raised last: `raised`
`oops`         texts of crashes: a Report, and whose text it is
`data`         what a word probably is that was never meant as an entry, or as an address
`remedy`       what would let an access pass: a Remedy
`trial`        the search for it, by what an architecture says may be changed
`supposed`     whether a fault may come of an entry that is not known: `depends`
`overlay`      memory with some words changed, to try a change without making it
`graph`        the tables of a space, each once a level, and rows with the number of their addresses
`ranges`       a whole space, neighbours merged, shared tables folded: `dump` gives a Dump of Ranges
`select`       conditions on pages: `w and x and not user`
`find`         from physical memory back: its addresses, the tables there, what is mapped twice
`garbage`      tables whose content cannot be meant
`groups`       entries that stand for one larger page together, and what is wrong with them
`lint`         rules about whole spaces, and what breaks them: `lint` gives what is Broken
`tour`         a table at a time: where one is, and where one can go
`diff`         two spaces, or two moments of one: `diff` gives the Difference, each a Change
`expect`       what tables are meant to say: `expectations` reads it, `unmet` gives what is Unmet
`lacking`      the entries that an expectation asks for where nothing is mapped
`prove`        the tables of any program, put into a guest's memory and proved there
`check`        what a foreign guest's QEMU makes of its tables, beside the reference
"""
