# See broadcast.pyx. It gives nothing to other modules.
