/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sha256.h - SHA-256 (FIPS 180-4), which requests to S3 carry of their body.
 */
#ifndef CHP_DATASTORE_SHA256_H
#define CHP_DATASTORE_SHA256_H

#include <stddef.h>

/* As hexadecimal digits. */
#define CHP_SHA256_TEXT_LEN 64u

/** The digest of len bytes, as text that ends with 0. */
void chp_sha256_text(const void *data, size_t len, char to[CHP_SHA256_TEXT_LEN + 1]);

#endif /* CHP_DATASTORE_SHA256_H */
