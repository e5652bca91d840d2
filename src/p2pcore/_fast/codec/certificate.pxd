# See certificate.pyx.
