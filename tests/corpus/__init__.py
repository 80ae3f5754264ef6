"""Files of every odd kind that the field sends, made from synthetic voxels, with the outcome that is
expected.

`python -m corpus FOLDER` in the folder of the tests writes them all; `test_corpus.py` runs them through the
reader, a server and the command line.
"""
