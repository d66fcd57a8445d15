"""The manifests of deploy/: read as kustomize reads them, held against the schemas of what they are, and replayed.

::

    kustomize  an overlay becomes the objects that a cluster would get
    schemas    the closed schema of each kind, and the faults of an object against it
    rules      what a cluster's webhooks refuse and is not in a schema
    broker     a broker that does what the manifests' triggers say, to real processes
    stage      those processes
"""
