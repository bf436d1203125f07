"""Text in, batches of tokens out.

`sources` and `readers` know what records look like, `clean`, `deduplicate` and `decontaminate` drop
what is not wanted, `tokenize` makes shards of the rest; `prepare` puts these stages together and
`execution` runs them. `store.Corpus` maps the shards into memory as one long row of tokens, cut
into windows, and `batches.TrainingBatches` hands the windows of one or more corpora out shuffled,
at any position, to any number of processes.
"""
