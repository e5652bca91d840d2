# See certificate.pyx. It has nothing for other compiled modules.
