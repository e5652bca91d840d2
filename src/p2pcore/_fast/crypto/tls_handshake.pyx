"""One step of an OpenSSL handshake as a C call. Its callbacks go without pyOpenSSL's objects.

Comes in: a pyOpenSSL connection over memory BIOs, with a context that `decide_by_peer` has prepared, and the
object that decides about the peer. Goes out: whether the handshake is done, and what was agreed. Never touches a
socket, never decides what is trusted or chosen: the caller's `Peer` does. RFC 8446.
"""

from libc.stdint cimport uint8_t, uintptr_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from p2pcore import errors

from p2pcore._fast.crypto.openssl cimport (
    SSL_ERROR_WANT_READ,
    SSL_TLSEXT_ERR_ALERT_FATAL,
    SSL_TLSEXT_ERR_OK,
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    SSL_VERIFY_PEER,
    X509_V_OK,
    all_errors,
    bio_free,
    bio_get_mem_data,
    bio_of,
    bio_write,
    context_of,
    err_clear_error,
    i2d_x509_bio,
    new_memory_bio,
    sk_x509_num,
    ssl_ctx_set_alpn_select_cb,
    ssl_ctx_set_verify,
    ssl_do_handshake,
    ssl_get0_alpn_selected,
    ssl_get_error,
    ssl_get_peer_cert_chain,
    ssl_of,
    ssl_of_store,
    store_ctx_get_current_cert,
    store_ctx_get_error_depth,
    store_ctx_set_error,
)

# Who decides in the calls of `advance` that run now, at most one in each thread. The key is the SSL's address.
cdef dict _deciding = {}


def decide_by_peer(context not None):
    """Demands the peer's certificate. The object that `advance` is given decides about it and about ALPN."""
    cdef void *pointer = context_of(context)
    ssl_ctx_set_verify(pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    ssl_ctx_set_alpn_select_cb(pointer, _select, NULL)


def advance(connection not None, peer not None):
    """Does the part of the handshake that needs no more bytes.

    Args:
        peer: has `check(der, depth)`, which judges a certificate, `identity`, not None once it has accepted the
            peer's own, `choose(offered)`, which tells the place of the protocol taken, and `error`, which
            holds what they raised.

    Returns: whether the handshake is done.

    Raises:
        HandshakeError: it failed, with OpenSSL's reasons. The alert is in the output. An error that `peer` raised is
            raised as it is.
    """
    cdef void *ssl = ssl_of(connection._ssl)
    cdef object key = <uintptr_t> ssl
    cdef int n
    err_clear_error()
    _deciding[key] = peer
    try:
        n = ssl_do_handshake(ssl)
    finally:
        del _deciding[key]
    if n == 1:
        return True
    error, peer.error = peer.error, None
    if error is not None:
        err_clear_error()
        raise error
    if ssl_get_error(ssl, n) == SSL_ERROR_WANT_READ:
        return False
    raise errors.HandshakeError(f"the TLS handshake failed: {all_errors()}")


cdef int _verify(int is_ok, void *store) noexcept with gil:
    """OpenSSL's callback for each certificate of the peer, and for each fault in one."""
    peer = _deciding.get(<uintptr_t> ssl_of_store(store))
    if peer is None:
        return 0
    cdef int depth = store_ctx_get_error_depth(store)
    try:
        if depth > 0 or peer.identity is None:
            peer.check(_der_of(store_ctx_get_current_cert(store)), depth)
    except BaseException as error:
        peer.error = error
        return 0
    store_ctx_set_error(store, X509_V_OK)
    return 1


cdef int _select(void *ssl, const uint8_t **chosen, uint8_t *chosen_size, const uint8_t *offered,
                 unsigned int offered_size, void *argument) noexcept with gil:
    """OpenSSL's callback of a server for the client's list of protocols. OpenSSL has checked its form."""
    cdef const uint8_t *at = offered
    cdef const uint8_t *end = offered + offered_size
    peer = _deciding.get(<uintptr_t> ssl)
    if peer is None:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    try:
        names = []
        places = []
        while at < end and at[0] < end - at:
            names.append(PyBytes_FromStringAndSize(<const char *> at + 1, at[0]))
            places.append(at - offered)
            at += at[0] + 1
        at = offered + <Py_ssize_t> places[peer.choose(names)]
    except BaseException as error:
        peer.error = error
        return SSL_TLSEXT_ERR_ALERT_FATAL
    chosen[0] = at + 1
    chosen_size[0] = at[0]
    return SSL_TLSEXT_ERR_OK


cdef bytes _der_of(void *certificate):
    """The DER of a certificate, as it came."""
    cdef char *data
    cdef Py_ssize_t n
    cdef void *bio = new_memory_bio()
    try:
        if i2d_x509_bio(bio, certificate) != 1:
            raise MemoryError("no memory for a certificate")
        n = bio_get_mem_data(bio, &data)
        return PyBytes_FromStringAndSize(data, n)
    finally:
        bio_free(bio)


def give_input(connection not None, bytes data not None):
    """Gives bytes of the peer to a connection whose handshake is not done."""
    cdef int n = <int> len(data)
    if bio_write(bio_of(connection._into_ssl), PyBytes_AS_STRING(data), n) != n:
        raise MemoryError("no memory for a BIO")


def chain_len(connection not None):
    """How many certificates the peer sent. For a server, without the peer's own."""
    cdef void *chain = ssl_get_peer_cert_chain(ssl_of(connection._ssl))
    return sk_x509_num(chain) if chain != NULL else 0


def chosen_protocol(connection not None):
    """What was agreed by ALPN; b"" if nothing."""
    cdef const uint8_t *name = NULL
    cdef unsigned int n = 0
    ssl_get0_alpn_selected(ssl_of(connection._ssl), &name, &n)
    return PyBytes_FromStringAndSize(<const char *> name, n) if n else b""
