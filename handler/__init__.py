"""bms-autostop: stops bare metal servers when an event asks for it."""

__version__ = "0.1.0"
