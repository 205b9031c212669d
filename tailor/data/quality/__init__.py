"""What is the matter with data, beyond what stops training: everything that `tailor check` looks for. No torch here.

examine   one pass over the rows, and the report of it     near      near-duplicates by MinHash
lenses    what is looked for row by row, by form           overlap   long runs of words shared with the test rows
private   personal data and secrets                        noise     labels that out-of-fold predictions doubt
damage    broken encodings                                 mend      a cleaned copy, and what was changed
"""
