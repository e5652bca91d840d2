/* Records as Noise and TLS 1.3 have them, and the curve operations of a handshake.
 *
 * Comes in: plaintext, records. Goes out: the same sealed or opened, on the spot. The libraries are those of p2pcore:
 * libsodium of PyNaCl for short records and for X25519 and Ed25519, OpenSSL of `cryptography` for long records and P-256,
 * each where it is the faster one. Never derives a key: the keys are constants, and each direction counts its nonces. */
#include "crypto.h"

#include <dlfcn.h>
#include <string.h>

#define TAG_BYTES 16
#define SHORT_BYTES 400 /* up to here libsodium is the faster one (p2pcore's own measurement) */
#define NOISE_LENGTH_BYTES 2
#define TLS_HEADER_BYTES 5

typedef int (*seal_f)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *,
                      unsigned long long, const uint8_t *, const uint8_t *, const uint8_t *);
typedef int (*open_f)(uint8_t *, unsigned long long *, uint8_t *, const uint8_t *, unsigned long long, const uint8_t *,
                      unsigned long long, const uint8_t *, const uint8_t *);

/* In the order of OPENSSL in run.py. */
static struct {
    void *(*cipher_new)(void);
    void (*cipher_free)(void *);
    int (*cipher_init)(void *, const void *, void *, const uint8_t *, const uint8_t *, int);
    int (*cipher_ctrl)(void *, int, int, void *);
    int (*encrypt)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*encrypt_final)(void *, uint8_t *, int *);
    int (*decrypt)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*decrypt_final)(void *, uint8_t *, int *);
    const void *(*aes_128_gcm)(void);
    const void *(*chacha20_poly1305)(void);
    void *(*make_key)(void *, const char *, const char *, ...);
    void *(*key_new)(void *, void *);
    void (*key_free)(void *);
    int (*sign_init)(void *);
    int (*sign)(void *, uint8_t *, size_t *, const uint8_t *, size_t);
    int (*verify_init)(void *);
    int (*verify)(void *, const uint8_t *, size_t, const uint8_t *, size_t);
} openssl;
#define GET_TAG 0x10
#define SET_TAG 0x11

static seal_f sodium_seal;
static open_f sodium_open;
static int (*multiply)(uint8_t *, const uint8_t *, const uint8_t *);
static int (*multiply_base)(uint8_t *, const uint8_t *);
static int (*verify)(const uint8_t *, const uint8_t *, unsigned long long, const uint8_t *);

static const uint8_t key[32] = {1, 2, 3};
static uint8_t secret[32] = {4, 5, 6}, public[32];
static uint8_t identity[32], proof[64];
static const uint8_t proved[56] = "noise-libp2p-static-key:";
static void *p256;
static uint8_t signature[80];
static size_t signature_bytes = sizeof signature;

static void *found(void *library, const char *name) {
    void *at = dlsym(library, name);
    if (!at) fail(name);
    return at;
}

static void sign_p256(uint8_t *out, size_t *n) {
    void *context = openssl.key_new(p256, NULL);
    if (openssl.sign_init(context) != 1 || openssl.sign(context, out, n, key, sizeof key) != 1) fail("P-256");
    openssl.key_free(context);
}

static void verify_p256(void) {
    void *context = openssl.key_new(p256, NULL);
    if (openssl.verify_init(context) != 1 ||
        openssl.verify(context, signature, signature_bytes, key, sizeof key) != 1)
        fail("a signature of P-256");
    openssl.key_free(context);
}

void load_libraries(const char *sodium, void *const *functions) {
    memcpy(&openssl, functions, sizeof openssl);
    void *library = dlopen(sodium, RTLD_NOW);
    if (!library) fail(dlerror());
    if (((int (*)(void))found(library, "sodium_init"))() < 0) fail("sodium_init");
    sodium_seal = (seal_f)found(library, "crypto_aead_chacha20poly1305_ietf_encrypt");
    sodium_open = (open_f)found(library, "crypto_aead_chacha20poly1305_ietf_decrypt");
    *(void **)&multiply = found(library, "crypto_scalarmult_curve25519");
    *(void **)&multiply_base = found(library, "crypto_scalarmult_curve25519_base");
    *(void **)&verify = found(library, "crypto_sign_ed25519_verify_detached");
    uint8_t whole[64];
    ((int (*)(uint8_t *, uint8_t *))found(library, "crypto_sign_ed25519_keypair"))(identity, whole);
    int (*sign)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *);
    *(void **)&sign = found(library, "crypto_sign_ed25519_detached");
    sign(proof, NULL, proved, sizeof proved, whole);
    multiply_base(public, secret);
    p256 = openssl.make_key(NULL, NULL, "EC", "P-256");
    sign_p256(signature, &signature_bytes);
}

/* -- records ---------------------------------------------------------------------------------- */

struct channel channel_new(struct kind kind, int is_sealing) {
    return (struct channel){NULL, 0, kind.is_tls, is_sealing};
}

void channel_free(struct channel *channel) {
    if (channel->context) openssl.cipher_free(channel->context);
}

size_t most_plain(int is_tls) { return is_tls ? 16384 : 65519; }

static size_t header_bytes(int is_tls) { return is_tls ? TLS_HEADER_BYTES : NOISE_LENGTH_BYTES; }

size_t whole_record(int is_tls, const uint8_t *data, size_t n) {
    size_t header = header_bytes(is_tls);
    if (n < header) return 0;
    size_t size = header + ((size_t)data[header - 2] << 8 | data[header - 1]);
    return n < size ? 0 : size;
}

static const uint8_t *next_nonce(struct channel *channel, uint8_t nonce[12]) {
    memset(nonce, 0, 12);
    memcpy(nonce + 4, &channel->nonce, 8);
    channel->nonce++;
    return nonce;
}

static void with_next_nonce(struct channel *channel) {
    uint8_t nonce[12];
    next_nonce(channel, nonce);
    const void *cipher = NULL;
    if (!channel->context) {
        channel->context = openssl.cipher_new();
        cipher = channel->is_tls ? openssl.aes_128_gcm() : openssl.chacha20_poly1305();
    }
    if (openssl.cipher_init(channel->context, cipher, NULL, cipher ? key : NULL, nonce, channel->is_sealing) != 1)
        fail("OpenSSL's cipher");
}

static void put_length(uint8_t *out, int is_tls, size_t n) {
    if (is_tls) memcpy(out, "\x17\x03\x03", 3);
    out += header_bytes(is_tls) - 2;
    out[0] = (uint8_t)(n >> 8);
    out[1] = (uint8_t)n;
}

size_t seal_record(struct channel *channel, uint8_t *out, const uint8_t *header, const uint8_t *data, size_t n) {
    size_t length = header_bytes(channel->is_tls), ahead = header ? FRAME_HEADER_BYTES : 0, total = ahead + n;
    put_length(out, channel->is_tls, total + TAG_BYTES);
    uint8_t *at = out + length;
    if (!channel->is_tls && !header && n <= SHORT_BYTES) {
        uint8_t nonce[12];
        unsigned long long sealed;
        sodium_seal(at, &sealed, data, n, NULL, 0, NULL, next_nonce(channel, nonce), key);
        return length + sealed;
    }
    int k;
    with_next_nonce(channel);
    if (header) openssl.encrypt(channel->context, at, &k, header, FRAME_HEADER_BYTES);
    openssl.encrypt(channel->context, at + ahead, &k, data, (int)n);
    openssl.encrypt_final(channel->context, at + total, &k);
    openssl.cipher_ctrl(channel->context, GET_TAG, TAG_BYTES, at + total);
    return length + total + TAG_BYTES;
}

uint8_t *open_record(struct channel *channel, uint8_t *record, size_t size, size_t *n) {
    size_t length = header_bytes(channel->is_tls);
    uint8_t *at = record + length;
    *n = size - length - TAG_BYTES;
    if (!channel->is_tls && *n <= SHORT_BYTES) {
        uint8_t nonce[12];
        if (sodium_open(at, NULL, NULL, at, size - length, NULL, 0, next_nonce(channel, nonce), key) != 0)
            fail("a record is forged");
        return at;
    }
    int k;
    with_next_nonce(channel);
    openssl.cipher_ctrl(channel->context, SET_TAG, TAG_BYTES, at + *n);
    openssl.decrypt(channel->context, at, &k, at, (int)*n);
    if (openssl.decrypt_final(channel->context, at + *n, &k) != 1) fail("a record is forged");
    return at;
}

/* -- handshakes ------------------------------------------------------------------------------- */

static void make_key_and_multiply(int times) {
    uint8_t out[32];
    multiply_base(out, secret);
    for (; times > 0; times--)
        if (multiply(out, secret, public) != 0) fail("X25519");
}

static void verify_identity(void) {
    if (verify(proof, proved, sizeof proved, identity) != 0) fail("a proof of identity");
}

/* TLS 1.3 with certificates on both sides: a signature of ours, that of the other side, and if it is new, the one in its
 * certificate by itself and the one by its identity. */
static void certificates(int is_fresh, int signs, int verifies) {
    uint8_t made[sizeof signature];
    size_t n = sizeof made;
    if (signs) sign_p256(made, &n);
    if (!verifies) return;
    verify_p256();
    if (is_fresh) {
        verify_p256();
        verify_identity();
    }
}

void curves_of_listener(struct kind kind, int is_last) {
    if (kind.is_tls) {
        if (!is_last) make_key_and_multiply(1);
        certificates(kind.is_fresh, !is_last, is_last);
    } else if (!is_last) {
        make_key_and_multiply(2); /* ee, es */
    } else {
        uint8_t out[32];
        if (multiply(out, secret, public) != 0) fail("X25519"); /* se */
        if (kind.is_fresh) verify_identity();
    }
}

/* The dialer's, all at once: when the answer is there. It has seen the listener before. */
void curves_of_dialer(struct kind kind) {
    make_key_and_multiply(kind.is_tls ? 1 : 3);
    if (kind.is_tls) certificates(0, 1, 1);
}
