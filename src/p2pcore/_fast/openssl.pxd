# OpenSSL's record functions, called as C: pointers to those of the library that `cryptography` carries,
# which pyOpenSSL configures and shakes hands with. Comes in: SSL and BIO objects as void pointers. Goes out:
# what OpenSSL's manual pages say of each. Never owns an object.
from libc.stdint cimport uint8_t

cdef enum:
    SSL_ERROR_SSL = 1               # openssl/ssl.h: numbers that have not changed since SSLeay
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_SYSCALL = 5
    SSL_ERROR_ZERO_RETURN = 6
    SSL_MODE_AUTO_RETRY = 4
    SSL_AD_REASON_OFFSET = 1000     # the reason of an alert received is this and the alert's number

cdef int (*ssl_read)(void* ssl, void* data, int n) noexcept nogil
cdef int (*ssl_write)(void* ssl, const void* data, int n) noexcept nogil
cdef int (*ssl_get_error)(const void* ssl, int result) noexcept nogil
cdef int (*ssl_shutdown)(void* ssl) noexcept nogil
cdef long (*ssl_clear_mode)(void* ssl, long mode) noexcept nogil
cdef void (*ssl_set_bio)(void* ssl, void* input, void* output) noexcept nogil
cdef void* (*bio_new)(const void* method) noexcept nogil
cdef void* (*bio_new_mem_buf)(const void* data, int n) noexcept nogil
cdef const void* (*bio_s_mem)() noexcept nogil
cdef void (*bio_set_mem_eof_return)(void* bio, int value) noexcept nogil
cdef long (*bio_get_mem_data)(void* bio, char** data) noexcept nogil
cdef int (*bio_read)(void* bio, void* data, int n) noexcept nogil
cdef void (*err_clear_error)() noexcept nogil

cdef void* ssl_of(object ssl) except NULL
cdef void* bio_of(object bio) except NULL
cdef void* new_memory_bio() except NULL
cdef tuple last_error()
