"""Verdicts and walks for people, and for programs.

`run`       what came of a validation, all spaces together
`text`      walks and disagreements as lines of text
`terminal`  tables, on the terminal that `screen` knows
`check`, `decode`, `diff`, `expect`, `fault`, `find`, `lint`, `matrix`: what the commands of these
            names print; `ranges` is dump's, `translation` walk's, `explorer` the screen of explore
`diagram`   a walk as a picture
`html`      pages for the browser
`riscv`     what commands print of RISC-V alone
`arm64`     what commands print of arm64 alone
`s390`      what commands print of s390 alone
`power`     what commands print of POWER alone
`x86`       the same of x86
`files`     the same as JSON, and as JUnit for what watches over tests
`state`     the state in which tables are read, in words
`visible`   text that comes from elsewhere, without what a terminal obeys
`expect`    where tables say something else than was meant
`impassable`  entries by which no access passes
`flushes`   the flushes that a guest's kernel forgot
`prove`     what came of proving a program's tables
`rules`     the rules, beside every engine that executed them
`objects`   what objects of JSON have in common
`schema`    the form of these objects, key by key
"""
