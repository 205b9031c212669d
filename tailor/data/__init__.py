"""From a file that somebody has to canonical rows, split into train, dev and test. Nothing here needs torch.

    read     sources -> rows              formats, columnar  one reader per kind of file
    columns  rows -> a form               canonical, chat    a form's rows in one shape
    split    rows -> sides, by content    keys               when two rows are the same
    pool     the rows of one source       table              many rows in bounded memory
    load     all of it, with a report

The words that columns go by are data, in `vocabulary`.
"""
