"""Authentication against the cloud: Keystone, access keys, clouds.yaml."""
