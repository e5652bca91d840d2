# See openssl.pyx.
from libc.stdint cimport uint8_t

cdef enum:
    SSL_ERROR_SSL = 1               # openssl/ssl.h: numbers that have not changed since SSLeay
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_SYSCALL = 5
    SSL_ERROR_ZERO_RETURN = 6
    SSL_MODE_AUTO_RETRY = 4
    SSL_VERIFY_PEER = 1
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2
    SSL_TLSEXT_ERR_OK = 0           # openssl/tls1.h
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    X509_V_OK = 0                   # openssl/x509_vfy.h
    SSL_AD_REASON_OFFSET = 1000     # the reason of an alert received is this and the alert's number

ctypedef int (*verify_callback)(int is_ok, void *store) noexcept
ctypedef int (*alpn_callback)(void *ssl, const uint8_t **chosen, uint8_t *chosen_size, const uint8_t *offered,
                              unsigned int offered_size, void *argument) noexcept

cdef int (*ssl_do_handshake)(void *ssl) noexcept nogil
cdef void (*ssl_get0_alpn_selected)(void *ssl, const uint8_t **name, unsigned int *n) noexcept nogil
cdef void* (*ssl_get_peer_cert_chain)(void *ssl) noexcept nogil
cdef void (*ssl_ctx_set_verify)(void *context, int mode, verify_callback callback) noexcept nogil
cdef void (*ssl_ctx_set_alpn_select_cb)(void *context, alpn_callback callback, void *argument) noexcept nogil
cdef int (*sk_x509_num)(const void *chain) noexcept nogil
cdef int (*i2d_x509_bio)(void *bio, void *certificate) noexcept nogil
cdef void* (*store_ctx_get_current_cert)(void *store) noexcept nogil
cdef int (*store_ctx_get_error_depth)(void *store) noexcept nogil
cdef void (*store_ctx_set_error)(void *store, int error) noexcept nogil
cdef int (*ssl_read)(void *ssl, void *data, int n) noexcept nogil
cdef int (*ssl_write)(void *ssl, const void *data, int n) noexcept nogil
cdef int (*ssl_get_error)(const void *ssl, int result) noexcept nogil
cdef int (*ssl_shutdown)(void *ssl) noexcept nogil
cdef long (*ssl_clear_mode)(void *ssl, long mode) noexcept nogil
cdef void (*ssl_set_bio)(void *ssl, void *input, void *output) noexcept nogil
cdef void* (*bio_new)(const void *method) noexcept nogil
cdef void* (*bio_new_mem_buf)(const void *data, int n) noexcept nogil
cdef const void* (*bio_s_mem)() noexcept nogil
cdef void (*bio_set_mem_eof_return)(void *bio, int value) noexcept nogil
cdef long (*bio_get_mem_data)(void *bio, char **data) noexcept nogil
cdef int (*bio_write)(void *bio, const void *data, int n) noexcept nogil
cdef int (*bio_free)(void *bio) noexcept nogil
cdef int (*bio_read)(void *bio, void *data, int n) noexcept nogil
cdef void (*err_clear_error)() noexcept nogil


cdef class SslEnd:
    cdef void *ssl              # owned
    cdef object context         # of pyOpenSSL
    cdef public object _into_ssl    # address of the input BIO; None: somebody else has set another one
    cdef public object _from_ssl    # of the output BIO


cdef void *ssl_of_store(void *store) noexcept
cdef void *context_of(object context) except NULL
cdef void *ssl_of(object ssl) except NULL
cdef void *bio_of(object bio) except NULL
cdef void *new_memory_bio() except NULL
cdef tuple last_error()
cdef str all_errors()
