// TLS 1.3 (RFC 8446) between bytes in memory: a context for all streams of one kind, and a session for each stream. In C
// because libssl is mostly macros, callbacks and calls with any number of arguments. No function leaves an error behind
// in the thread's queue.
//
// A session's BIO reads from and writes to memory that is lent for one call. libssl's own memory BIOs keep what they have
// grown to, and copy once more.
#pragma once
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/socket.h>

typedef struct {
  SSL *ssl;
  // What has come and was not read yet; where a descriptor is set, more is received from there.
  const unsigned char *input;
  size_t input_count;
  int descriptor;
  // Bytes that may yet be received in this call: who sends records that hold nothing for the reader would keep libssl
  // reading for ever.
  size_t budget;
  // The socket has ended, or failed: an errno, or -1 for the end.
  int ended;
  // Where what is to go is put, behind `output_count` bytes.
  unsigned char *output;
  size_t output_count;
  size_t output_capacity;
} culvert_tls;

enum culvert_tls_result {
  CULVERT_TLS_DONE = 0,
  // It goes on when more has come, or gone.
  CULVERT_TLS_WAIT = 1,
  // The other end has closed as it should.
  CULVERT_TLS_END = 2,
  CULVERT_TLS_FAILED = 3,
  // The other end's certificate is not the one that was asked for.
  CULVERT_TLS_CERTIFICATE = 4,
};

// The first byte that has come, which stays where it is.
static inline ssize_t culvert_tls_first(int descriptor, unsigned char *byte) {
  return recv(descriptor, byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

static inline int culvert_tls_bio_read(BIO *bio, char *bytes, size_t count, size_t *done) {
  culvert_tls *tls = (culvert_tls *)BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  *done = 0;
  if (tls->input_count > 0) {
    *done = count < tls->input_count ? count : tls->input_count;
    memcpy(bytes, tls->input, *done);
    tls->input += *done;
    tls->input_count -= *done;
    return 1;
  }
  if (tls->descriptor >= 0 && tls->budget > 0) {
    ssize_t received = recv(tls->descriptor, bytes, count < tls->budget ? count : tls->budget, MSG_DONTWAIT);
    if (received > 0) {
      *done = (size_t)received;
      tls->budget -= *done;
      return 1;
    }
    if (received == 0 || (errno != EAGAIN && errno != EINTR)) {
      tls->ended = received == 0 ? -1 : errno;
      return 0;
    }
  }
  BIO_set_retry_read(bio);
  return 0;
}

static inline int culvert_tls_bio_write(BIO *bio, const char *bytes, size_t count, size_t *done) {
  culvert_tls *tls = (culvert_tls *)BIO_get_data(bio);
  size_t room = tls->output_capacity - tls->output_count;
  BIO_clear_retry_flags(bio);
  *done = count < room ? count : room;
  if (*done == 0) {
    BIO_set_retry_write(bio);
    return 0;
  }
  memcpy(tls->output + tls->output_count, bytes, *done);
  tls->output_count += *done;
  return 1;
}

static inline long culvert_tls_bio_control(BIO *bio, int command, long number, void *pointer) {
  (void)bio;
  (void)number;
  (void)pointer;
  return command == BIO_CTRL_FLUSH;
}

static inline int culvert_tls_bio_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

static inline BIO_METHOD *culvert_tls_method(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "lent memory");
  if (method != NULL) {
    BIO_meth_set_read_ex(method, culvert_tls_bio_read);
    BIO_meth_set_write_ex(method, culvert_tls_bio_write);
    BIO_meth_set_ctrl(method, culvert_tls_bio_control);
    BIO_meth_set_create(method, culvert_tls_bio_create);
  }
  ERR_clear_error();
  return method;
}

// HTTP/1.1, the one of browsers' protocols that is answered here; whoever names none, or others, is served without.
static inline int culvert_tls_select(SSL *ssl, const unsigned char **out, unsigned char *out_count,
                                     const unsigned char *offered, unsigned int count, void *argument) {
  (void)ssl;
  (void)argument;
  for (unsigned int at = 0; at + 1 < count && at + 1u + offered[at] <= count; at += 1u + offered[at])
    if (offered[at] == 8 && memcmp(offered + at + 1, "http/1.1", 8) == 0) {
      *out = offered + at + 1;
      *out_count = 8;
      return SSL_TLSEXT_ERR_OK;
    }
  return SSL_TLSEXT_ERR_NOACK;
}

static inline SSL_CTX *culvert_tls_context(int is_server) {
  SSL_CTX *context = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
  if (context == NULL) {
    ERR_clear_error();
    return NULL;
  }
  // Where TLS 1.3 was left out when libssl was built, or is switched off by its configuration.
  if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 ||
      (SSL_CTX_get_options(context) & SSL_OP_NO_TLSv1_3) != 0) {
    SSL_CTX_free(context);
    ERR_clear_error();
    return NULL;
  }
  // No session outlives its stream.
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  // An idle stream has no buffers.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  if (is_server) {
    SSL_CTX_set_alpn_select_cb(context, culvert_tls_select, NULL);
  } else {
    static const unsigned char offer[] = "\x02h2\x08http/1.1";
    SSL_CTX_set_alpn_protos(context, offer, sizeof offer - 1);
    SSL_CTX_set_default_verify_paths(context);
  }
  ERR_clear_error();
  return context;
}

static inline int culvert_tls_no_password(char *buffer, int size, int writing, void *argument) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)argument;
  return -1;
}

// Chain and key from PEM. 0: done; 1: no certificate can be read; 2: no key; 3: the key is another one's.
static inline int culvert_tls_use(SSL_CTX *context, const void *chain, size_t chain_count, const void *key_bytes,
                                  size_t key_count) {
  int problem = 1;
  if (chain_count > 1 << 20 || key_count > 1 << 20) return problem;
  BIO *memory = BIO_new_mem_buf(chain, (int)chain_count);
  X509 *certificate = memory != NULL ? PEM_read_bio_X509(memory, NULL, culvert_tls_no_password, NULL) : NULL;
  EVP_PKEY *key = NULL;
  if (certificate != NULL && SSL_CTX_use_certificate(context, certificate) == 1) {
    problem = 0;
    X509 *issuer;
    while ((issuer = PEM_read_bio_X509(memory, NULL, culvert_tls_no_password, NULL)) != NULL)
      if (SSL_CTX_add0_chain_cert(context, issuer) != 1) X509_free(issuer);
  }
  BIO_free(memory);
  if (problem == 0) {
    memory = BIO_new_mem_buf(key_bytes, (int)key_count);
    key = memory != NULL ? PEM_read_bio_PrivateKey(memory, NULL, culvert_tls_no_password, NULL) : NULL;
    BIO_free(memory);
    if (key == NULL)
      problem = 2;
    else if (X509_check_private_key(certificate, key) != 1 || SSL_CTX_use_PrivateKey(context, key) != 1)
      problem = 3;
  }
  EVP_PKEY_free(key);
  X509_free(certificate);
  ERR_clear_error();
  return problem;
}

// A certificate of its own signature, P-256, for a name; 1 when it is in use.
static inline int culvert_tls_use_own(SSL_CTX *context, const char *name, const unsigned char *number, size_t count,
                                      long seconds) {
  EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
  X509 *certificate = X509_new();
  BIGNUM *serial = BN_bin2bn(number, (int)count, NULL);
  GENERAL_NAMES *names = GENERAL_NAMES_new();
  GENERAL_NAME *general = GENERAL_NAME_new();
  ASN1_IA5STRING *text = ASN1_IA5STRING_new();
  int done = 0;
  if (key != NULL && certificate != NULL && serial != NULL && names != NULL && general != NULL && text != NULL &&
      X509_set_version(certificate, X509_VERSION_3) == 1 &&
      BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate)) != NULL &&
      X509_gmtime_adj(X509_getm_notBefore(certificate), -86400) != NULL &&
      X509_gmtime_adj(X509_getm_notAfter(certificate), seconds) != NULL &&
      X509_set_pubkey(certificate, key) == 1 && ASN1_STRING_set(text, name, -1) == 1) {
    X509_NAME *subject = X509_get_subject_name(certificate);
    GENERAL_NAME_set0_value(general, GEN_DNS, text);
    text = NULL;
    if (sk_GENERAL_NAME_push(names, general) > 0) general = NULL;
    done = general == NULL &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, subject) == 1 &&
           X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0) == 1 &&
           X509_sign(certificate, key, EVP_sha256()) > 0 && SSL_CTX_use_certificate(context, certificate) == 1 &&
           SSL_CTX_use_PrivateKey(context, key) == 1;
  }
  ASN1_IA5STRING_free(text);
  GENERAL_NAME_free(general);
  GENERAL_NAMES_free(names);
  BN_free(serial);
  X509_free(certificate);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return done;
}

// Certificates that are trusted, from PEM, in the place of the system's; how many.
static inline int culvert_tls_trust(SSL_CTX *context, const void *bytes, size_t count) {
  int added = 0;
  X509_STORE *store = X509_STORE_new();
  BIO *memory = count <= 1 << 20 ? BIO_new_mem_buf(bytes, (int)count) : NULL;
  X509 *certificate;
  while (store != NULL && memory != NULL &&
         (certificate = PEM_read_bio_X509(memory, NULL, culvert_tls_no_password, NULL)) != NULL) {
    added += X509_STORE_add_cert(store, certificate) == 1;
    X509_free(certificate);
  }
  BIO_free(memory);
  if (store != NULL) SSL_CTX_set_cert_store(context, store);
  ERR_clear_error();
  return added;
}

// `name` is what a client asks for, and what the certificate has to be for; NULL: nothing is asked or checked.
static inline culvert_tls *culvert_tls_new(SSL_CTX *context, BIO_METHOD *method, int is_server, const char *name) {
  culvert_tls *tls = (culvert_tls *)OPENSSL_zalloc(sizeof *tls);
  BIO *bio = BIO_new(method);
  SSL *ssl = SSL_new(context);
  if (tls == NULL || bio == NULL || ssl == NULL) goto failed;
  tls->ssl = ssl;
  tls->descriptor = -1;
  BIO_set_data(bio, tls);
  if (is_server) SSL_set_accept_state(ssl);
  if (!is_server) SSL_set_connect_state(ssl);
  if (name != NULL) {
    SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    if (SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1) goto failed;
  }
  SSL_set_bio(ssl, bio, bio);
  ERR_clear_error();
  return tls;
failed:
  SSL_free(ssl);
  BIO_free(bio);
  OPENSSL_free(tls);
  ERR_clear_error();
  return NULL;
}

static inline void culvert_tls_free(culvert_tls *tls) {
  SSL_free(tls->ssl);
  OPENSSL_free(tls);
}

static inline enum culvert_tls_result culvert_tls_result(culvert_tls *tls, int result) {
  int error = result > 0 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, result);
  ERR_clear_error();
  switch (error) {
    case SSL_ERROR_NONE: return CULVERT_TLS_DONE;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return CULVERT_TLS_WAIT;
    case SSL_ERROR_ZERO_RETURN: return CULVERT_TLS_END;
    default:
      return SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE && SSL_get_verify_result(tls->ssl) != X509_V_OK
                 ? CULVERT_TLS_CERTIFICATE
                 : CULVERT_TLS_FAILED;
  }
}

static inline enum culvert_tls_result culvert_tls_handshake(culvert_tls *tls) {
  return culvert_tls_result(tls, SSL_do_handshake(tls->ssl));
}

static inline enum culvert_tls_result culvert_tls_read(culvert_tls *tls, void *bytes, size_t count, size_t *done) {
  *done = 0;
  return culvert_tls_result(tls, SSL_read_ex(tls->ssl, bytes, count, done));
}

static inline enum culvert_tls_result culvert_tls_write(culvert_tls *tls, const void *bytes, size_t count) {
  size_t done = 0;
  return culvert_tls_result(tls, SSL_write_ex(tls->ssl, bytes, count, &done));
}

// Puts a farewell (RFC 8446 §6.1) behind what is to go.
static inline void culvert_tls_close(culvert_tls *tls) {
  if (SSL_is_init_finished(tls->ssl)) SSL_shutdown(tls->ssl);
  ERR_clear_error();
}
