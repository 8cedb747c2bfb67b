/* SPDX-License-Identifier: BSD-3-Clause */
/* What all adapters need: errors, what is kept beside the user's data, the configuration. */
#include "datastore/datastore.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

/* ------------------------------------------------------------------ errors */

static int
fail(struct chp_store_error *e, enum chp_store_error_kind kind, enum chp_host_refusal refusal, const char *format,
     va_list args)
{
	*e = (struct chp_store_error){ .kind = kind, .refusal = refusal };
	(void)vsnprintf(e->text, sizeof(e->text), format, args);
	for (char *c = e->text; *c != '\0'; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	return -1;
}

int
chp_store_fail(struct chp_store_error *e, enum chp_store_error_kind kind, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)fail(e, kind, CHP_HOST_NO_STORE, format, args);
	va_end(args);
	return -1;
}

int
chp_store_refuse(struct chp_store_error *e, enum chp_host_refusal refusal, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)fail(e, CHP_STORE_ERROR_REFUSED, refusal, format, args);
	va_end(args);
	return -1;
}

/* ------------------------------------------------------------------ bytes beside the user's data */

struct meta_bytes {
	uint64_t version;
	uint64_t life;
	uint8_t format;
	uint8_t flags;
	uint16_t reserved; /* 0 */
	uint32_t crc32c;   /* of the bytes before */
} CHP_PACKED;

struct record_bytes {
	uint64_t life, batch, newest, epoch, items, tombstones;
	uint32_t format;
	uint32_t crc32c; /* of the bytes before */
} CHP_PACKED;

_Static_assert(sizeof(struct meta_bytes) == CHP_STORE_META_BYTES, "store format");
_Static_assert(sizeof(struct record_bytes) == CHP_STORE_RECORD_BYTES, "store format");

void
chp_store_meta_write(const struct chp_store_meta *m, uint8_t to[CHP_STORE_META_BYTES])
{
	struct meta_bytes b = {
		.version = m->version, .life = m->life, .format = CHP_STORE_FORMAT, .flags = m->flags
	};

	b.crc32c = chp_crc32c(&b, offsetof(struct meta_bytes, crc32c), 0);
	memcpy(to, &b, sizeof(b));
}

bool
chp_store_meta_read(const void *bytes, size_t len, struct chp_store_meta *m)
{
	struct meta_bytes b;

	if (len != sizeof(b))
		return false;
	memcpy(&b, bytes, sizeof(b));
	if (b.format != CHP_STORE_FORMAT || b.crc32c != chp_crc32c(&b, offsetof(struct meta_bytes, crc32c), 0))
		return false;
	*m = (struct chp_store_meta){ .version = b.version, .life = b.life, .flags = b.flags };
	return true;
}

void
chp_store_record_write(const struct chp_store_record *r, uint8_t to[CHP_STORE_RECORD_BYTES])
{
	struct record_bytes b = { .life = r->life,
				  .batch = r->batch,
				  .newest = r->newest,
				  .epoch = r->epoch,
				  .items = r->items,
				  .tombstones = r->tombstones,
				  .format = CHP_STORE_FORMAT };

	b.crc32c = chp_crc32c(&b, offsetof(struct record_bytes, crc32c), 0);
	memcpy(to, &b, sizeof(b));
}

bool
chp_store_record_read(const void *bytes, size_t len, struct chp_store_record *r)
{
	struct record_bytes b;

	if (len != sizeof(b))
		return false;
	memcpy(&b, bytes, sizeof(b));
	if (b.format != CHP_STORE_FORMAT || b.crc32c != chp_crc32c(&b, offsetof(struct record_bytes, crc32c), 0))
		return false;
	*r = (struct chp_store_record){ .life = b.life,
					.batch = b.batch,
					.newest = b.newest,
					.epoch = b.epoch,
					.items = b.items,
					.tombstones = b.tombstones };
	return true;
}

/* ------------------------------------------------------------------ identity */

uint32_t
chp_store_identity_text(const struct chp_store_identity *id, char to[CHP_STORE_IDENTITY_BYTES])
{
	int n = snprintf(to, CHP_STORE_IDENTITY_BYTES,
			 "chaapar store format=%u cluster=%s node=%u shards=%u seed=%" PRIu64, CHP_STORE_FORMAT,
			 id->cluster, id->node, id->shards, id->hash_seed);

	return (uint32_t)n; /* the longest is far shorter */
}

int
chp_store_identity_check(const struct chp_store_identity *id, const void *found, size_t len,
			 struct chp_store_error *e)
{
	char text[CHP_STORE_IDENTITY_BYTES], cluster[CHP_NAME_BYTES_MAX + 1];
	unsigned int format, node, shards;
	uint64_t seed;

	if (len < sizeof(text)) {
		memcpy(text, found, len);
		text[len] = '\0';
	}
	if (len >= sizeof(text) || sscanf(text, "chaapar store format=%u", &format) != 1)
		return chp_store_refuse(e, CHP_HOST_BAD_CLUSTER, "the store's identity is not one of ours");
	if (format != CHP_STORE_FORMAT)
		return chp_store_refuse(e, CHP_HOST_BAD_VERSION, "the store has format %u, this program writes %u",
					format, CHP_STORE_FORMAT);
	if (sscanf(text, "chaapar store format=%*u cluster=%63s node=%u shards=%u seed=%" SCNu64, cluster, &node,
		   &shards, &seed) != 4)
		return chp_store_refuse(e, CHP_HOST_BAD_CLUSTER, "the store's identity is damaged");
	if (strcmp(cluster, id->cluster) != 0)
		return chp_store_refuse(e, CHP_HOST_BAD_CLUSTER, "the store is cluster \"%.32s\"'s, ours is \"%.32s\"",
					cluster, id->cluster);
	if (node != id->node)
		return chp_store_refuse(e, CHP_HOST_BAD_NODE, "the store is node %u's, we are node %u", node,
					id->node);
	if (shards != id->shards)
		return chp_store_refuse(e, CHP_HOST_BAD_SHARD, "the store has %u shards, the cluster %u", shards,
					id->shards);
	if (seed != id->hash_seed)
		return chp_store_refuse(e, CHP_HOST_BAD_CLUSTER,
					"the store has hash seed %" PRIu64 ", the cluster %" PRIu64, seed,
					id->hash_seed);
	return 0;
}

/* ------------------------------------------------------------------ configuration */

static int
bad_key(struct chp_store_error *e, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int
bad_key(struct chp_store_error *e, const char *key, const char *format, ...)
{
	char what[CHP_HOST_TEXT_BYTES];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "%.24s: %.90s", key, what);
}

int
chp_store_keys(const json_t *config, const char *const *keys, struct chp_store_error *e)
{
	/* jansson's iterators take what they do not change without const. */
	json_t *object = (json_t *)(uintptr_t)config;

	for (void *i = json_object_iter(object); i != NULL; i = json_object_iter_next(object, i)) {
		const char *key = json_object_iter_key(i);
		uint32_t k = 0;

		if (strcmp(key, "type") == 0)
			continue;
		while (keys[k] != NULL && strcmp(keys[k], key) != 0)
			k++;
		if (keys[k] == NULL)
			return bad_key(e, key, "unknown key of this type of store");
	}
	return 0;
}

int
chp_store_get_text(const json_t *config, const char *key, const char *def, const char **to,
		   struct chp_store_error *e)
{
	const json_t *v = json_object_get(config, key);

	*to = def;
	if (v == NULL)
		return def != NULL ? 0 : bad_key(e, key, "expected a text");
	if (!json_is_string(v) || json_string_length(v) == 0)
		return bad_key(e, key, "expected a text that is not empty");
	*to = json_string_value(v);
	return 0;
}

int
chp_store_get_uint(const json_t *config, const char *key, uint64_t min, uint64_t max, uint64_t def, uint64_t *to,
		   struct chp_store_error *e)
{
	const json_t *v = json_object_get(config, key);
	json_int_t n;

	*to = def;
	if (v == NULL)
		return 0;
	n = json_is_integer(v) ? json_integer_value(v) : -1;
	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return bad_key(e, key, "expected a number from %" PRIu64 " to %" PRIu64, min, max);
	*to = (uint64_t)n;
	return 0;
}

int
chp_store_get_bool(const json_t *config, const char *key, bool def, bool *to, struct chp_store_error *e)
{
	const json_t *v = json_object_get(config, key);

	*to = def;
	if (v == NULL)
		return 0;
	if (!json_is_boolean(v))
		return bad_key(e, key, "expected true or false");
	*to = json_is_true(v);
	return 0;
}

int
chp_store_get_socket(const json_t *config, const char *key, const char **to, struct chp_store_error *e)
{
	const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (chp_store_get_text(config, key, "", to, e) != 0)
		return -1;
	return strlen(*to) <= max ? 0 : bad_key(e, key, "expected a path of at most %zu characters", max);
}
