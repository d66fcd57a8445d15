"""The image, really built and started, without a container engine. Needs root; not part of the suite."""
