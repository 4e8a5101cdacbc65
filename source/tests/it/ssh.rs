//! A real `sshd` on a port of the loopback device.
