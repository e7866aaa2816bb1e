"""The parts of the Linux kernel that confine a process, through ctypes: one file a mechanism."""
