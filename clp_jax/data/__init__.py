"""Text in, batches of tokens out.

`io` reads the documents of files and hub data sets, `filters` and `dedup` drop what is not wanted,
and `corpus.tokenize` writes the rest as shards of tokens; `prepare` assembles these stages and
`execution` runs them. `corpus.store.Corpus` maps the shards into memory as one long sequence of
tokens, split into windows. `corpus.batches.TrainingBatches` serves the windows of one or more
corpora in shuffled order, from any position, to any number of processes.
"""
