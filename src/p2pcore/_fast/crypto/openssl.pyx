"""OpenSSL's functions for records and handshakes, called as C. A call through pyOpenSSL costs more than a short record.

Comes in: SSL and BIO objects. Goes out: what OpenSSL's manual pages say about each function. They are the functions
of the library that `cryptography` brings and pyOpenSSL uses. Its cffi module tells their addresses. Owns no object
but the SSL of a SslEnd.
"""

cimport cython

from libc.stdint cimport uintptr_t

WORKS_WITH = "cryptography>=50,<51"  # as pyproject.toml has it; make lowest and make newest prove it

try:
    from cryptography.hazmat.bindings._rust import _openssl
except ImportError as why:
    raise ImportError(f"cryptography has no bindings of OpenSSL that p2pcore knows; it works with {WORKS_WITH}") from why


def _address(name):
    if not hasattr(_openssl.lib, name):
        raise ImportError(f"cryptography does not give out {name} of OpenSSL; p2pcore works with {WORKS_WITH}")
    return int(_openssl.ffi.cast("uintptr_t", _openssl.ffi.addressof(_openssl.lib, name)))


cdef void* (*_ssl_new)(void *context) noexcept nogil
cdef void (*_ssl_free)(void *ssl) noexcept nogil
cdef void (*_ssl_set_accept_state)(void *ssl) noexcept nogil
cdef void (*_ssl_set_connect_state)(void *ssl) noexcept nogil
_ssl_new = <void* (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_new")
_ssl_free = <void (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_free")
_ssl_set_accept_state = <void (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_set_accept_state")
_ssl_set_connect_state = <void (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_set_connect_state")
ssl_read = <int (*)(void*, void*, int) noexcept nogil> <uintptr_t> _address("SSL_read")
ssl_write = <int (*)(void*, const void*, int) noexcept nogil> <uintptr_t> _address("SSL_write")
ssl_get_error = <int (*)(const void*, int) noexcept nogil> <uintptr_t> _address("SSL_get_error")
ssl_shutdown = <int (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_shutdown")
ssl_do_handshake = <int (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_do_handshake")
ssl_get0_alpn_selected = <void (*)(void*, const uint8_t**, unsigned int*) noexcept nogil> <uintptr_t> _address("SSL_get0_alpn_selected")
ssl_get_peer_cert_chain = <void* (*)(void*) noexcept nogil> <uintptr_t> _address("SSL_get_peer_cert_chain")
ssl_ctx_set_verify = <void (*)(void*, int, verify_callback) noexcept nogil> <uintptr_t> _address("SSL_CTX_set_verify")
ssl_ctx_set_alpn_select_cb = <void (*)(void*, alpn_callback, void*) noexcept nogil> <uintptr_t> _address("SSL_CTX_set_alpn_select_cb")
sk_x509_num = <int (*)(const void*) noexcept nogil> <uintptr_t> _address("sk_X509_num")
i2d_x509_bio = <int (*)(void*, void*) noexcept nogil> <uintptr_t> _address("i2d_X509_bio")
store_ctx_get_current_cert = <void* (*)(void*) noexcept nogil> <uintptr_t> _address("X509_STORE_CTX_get_current_cert")
store_ctx_get_error_depth = <int (*)(void*) noexcept nogil> <uintptr_t> _address("X509_STORE_CTX_get_error_depth")
store_ctx_set_error = <void (*)(void*, int) noexcept nogil> <uintptr_t> _address("X509_STORE_CTX_set_error")
cdef void* (*_store_ctx_get_ex_data)(void *store, int index) noexcept nogil
_store_ctx_get_ex_data = <void* (*)(void*, int) noexcept nogil> <uintptr_t> _address("X509_STORE_CTX_get_ex_data")
for _name in ("SSL_get_ex_data_X509_STORE_CTX_idx", "SSL_CTX_set1_sigalgs_list", "SSL_CTX_set1_curves_list"):
    _address(_name)
cdef int _ssl_index = _openssl.lib.SSL_get_ex_data_X509_STORE_CTX_idx()
ssl_clear_mode = <long (*)(void*, long) noexcept nogil> <uintptr_t> _address("SSL_clear_mode")
ssl_set_bio = <void (*)(void*, void*, void*) noexcept nogil> <uintptr_t> _address("SSL_set_bio")
bio_new = <void* (*)(const void*) noexcept nogil> <uintptr_t> _address("BIO_new")
bio_new_mem_buf = <void* (*)(const void*, int) noexcept nogil> <uintptr_t> _address("BIO_new_mem_buf")
bio_s_mem = <const void* (*)() noexcept nogil> <uintptr_t> _address("BIO_s_mem")
bio_set_mem_eof_return = <void (*)(void*, int) noexcept nogil> <uintptr_t> _address("BIO_set_mem_eof_return")
bio_get_mem_data = <long (*)(void*, char**) noexcept nogil> <uintptr_t> _address("BIO_get_mem_data")
bio_write = <int (*)(void*, const void*, int) noexcept nogil> <uintptr_t> _address("BIO_write")
bio_free = <int (*)(void*) noexcept nogil> <uintptr_t> _address("BIO_free")
bio_read = <int (*)(void*, void*, int) noexcept nogil> <uintptr_t> _address("BIO_read")
err_clear_error = <void (*)() noexcept nogil> <uintptr_t> _address("ERR_clear_error")

cdef unsigned long (*_get_error)() noexcept nogil
cdef const char *(*_reason_string)(unsigned long error) noexcept nogil
cdef int (*_reason)(unsigned long error) noexcept nogil
_get_error = <unsigned long (*)() noexcept nogil> <uintptr_t> _address("ERR_get_error")
_reason_string = <const char *(*)(unsigned long) noexcept nogil> <uintptr_t> _address("ERR_reason_error_string")
_reason = <int (*)(unsigned long) noexcept nogil> <uintptr_t> _address("ERR_GET_REASON")


cdef void *ssl_of_store(void *store) noexcept:
    """The SSL that a X509_STORE_CTX checks certificates for."""
    return _store_ctx_get_ex_data(store, _ssl_index)


cdef void *context_of(object context) except NULL:
    """The pointer in an OpenSSL.SSL.Context."""
    return <void *> <uintptr_t> int(_openssl.ffi.cast("uintptr_t", context._context))


@cython.final
cdef class SslEnd:
    """One end of a connection over memory BIOs, as OpenSSL.SSL.Connection is, without its objects beside the SSL.

    Args:
        context: an OpenSSL.SSL.Context without callbacks of Python. is_server: which side it is.

    It has what TlsChannel and tls_handshake use of a connection.
    """

    def __cinit__(self, context not None, bint is_server):
        cdef void *input = NULL
        cdef void *output = NULL
        self.ssl = _ssl_new(context_of(context))
        if self.ssl == NULL:
            err_clear_error()
            raise MemoryError("no memory for an SSL object")
        input = new_memory_bio()
        output = bio_new(bio_s_mem())
        if output == NULL:
            bio_free(input)
            raise MemoryError("no memory for a BIO")
        ssl_set_bio(self.ssl, input, output)  # it owns both from now on
        self.context = context
        self._into_ssl, self._from_ssl = <uintptr_t> input, <uintptr_t> output
        if is_server:
            _ssl_set_accept_state(self.ssl)
        else:
            _ssl_set_connect_state(self.ssl)

    def __dealloc__(self):
        if self.ssl != NULL:
            _ssl_free(self.ssl)

    @property
    def _ssl(self):
        """What keeps the SSL object alive."""
        return self

    def get_context(self):
        """The context it was made with."""
        return self.context


cdef void *ssl_of(object ssl) except NULL:
    """The pointer in a cffi object of type SSL *, or in an SslEnd."""
    if isinstance(ssl, SslEnd):
        return (<SslEnd> ssl).ssl
    return <void *> <uintptr_t> int(_openssl.ffi.cast("uintptr_t", ssl))


cdef void *bio_of(object bio) except NULL:
    """The pointer in a cffi object of type BIO *; a number is the address itself."""
    if isinstance(bio, int):
        return <void *> <uintptr_t> bio
    return <void *> <uintptr_t> int(_openssl.ffi.cast("uintptr_t", bio))


cdef void *new_memory_bio() except NULL:
    """An empty memory BIO, to be given to an SSL."""
    cdef void *bio = bio_new(bio_s_mem())
    if bio == NULL:
        raise MemoryError("no memory for a BIO")
    return bio


cdef tuple last_error():
    """Number and text of the oldest error in OpenSSL's queue. The queue is empty afterwards."""
    cdef unsigned long error = _get_error()
    cdef int reason = _reason(error) if error else 0
    words = _words_of(error)
    err_clear_error()
    return reason, words


cdef str all_errors():
    """Texts of the errors in OpenSSL's queue (at most 16), oldest first. The queue is empty afterwards."""
    words = [_words_of(_get_error())]
    cdef unsigned long error = _get_error()
    while error:
        words.append(_words_of(error))
        error = _get_error()
    return "; ".join(words)


cdef str _words_of(unsigned long error):
    cdef const char *words = _reason_string(error) if error else NULL
    return words.decode("ascii", "replace") if words != NULL else "no reason given"


def set_signatures(context not None, bytes names not None):
    """Sets the signature algorithms of an OpenSSL.SSL.Context, most preferred first. pyOpenSSL has no call for it.

    Raises: ValueError for a name OpenSSL does not know.
    """
    if not _openssl.lib.SSL_CTX_set1_sigalgs_list(context._context, names):
        err_clear_error()
        raise ValueError(f"{names!r} is no list of signature algorithms OpenSSL knows")


def set_groups(context not None, bytes names not None):
    """Sets the key exchange groups of an OpenSSL.SSL.Context, most preferred first. pyOpenSSL has no call for it.

    Raises: ValueError for a name OpenSSL does not know.
    """
    if not _openssl.lib.SSL_CTX_set1_curves_list(context._context, names):
        err_clear_error()
        raise ValueError(f"{names!r} is no list of groups OpenSSL knows")
