"""Reports as pages: one file each, which loads nothing and runs no script but its own.

`page`       templates to pages, with the policy that holds them to that
`walk`       an address, step by step, on the map of its space
`fault`      an access, and what would let it pass
`space`      a whole space, its map and its ranges
`run`        what came of a validation or of the matrix
`space_map`  what the map of a space is drawn from

Content comes escaped by the templates; the map's by its script, which writes text and no markup.
What is essential is there without scripts.
"""
