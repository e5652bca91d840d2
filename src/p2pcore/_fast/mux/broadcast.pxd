# See broadcast.pyx.
