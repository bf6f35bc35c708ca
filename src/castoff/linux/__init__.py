"""System calls. The only package that uses ctypes."""
