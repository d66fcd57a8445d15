"""The manifests of deploy/: read as kustomize reads them, validated as a cluster would, and run.

::

    kustomize    an overlay becomes the objects that a cluster would get
    validate     what the schemas of their kinds and a cluster's webhooks would refuse
    broker       a broker that does what the manifests' triggers say, with real processes
    environment  those processes
"""
