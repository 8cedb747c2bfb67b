/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * s3.c - the adapter "s3": a bucket of S3, or of anything that speaks as S3 does, over libcurl.
 *
 * A value is an object under its key; its version is in the object's metadata, so that both change at once. A deleted
 * key has no object; its version is the metadata of an empty object under ".chaapar/tombstone/". Where there are both,
 * after a crash, the object counts. The identity and the shards' records are objects too.
 *
 * S3 has no transactions: a batch is a number of requests, and its record is written behind them. A crash in between
 * leaves a part of the batch, which was never reported durable; it is applied again, and what is there already is not
 * newer. So that no version is newer than its record says (SAFETY 4), the record's `newest` is raised before.
 *
 * "Durable" means that S3 has answered. A request that was given up may still be carried out later, which S3 has no
 * remedy for: docs/datastores.md, "Pitfalls".
 */
#include "base/text.h"
#include "datastore/batch.h"
#include "datastore/sha256.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define OURS ".chaapar/"
#define META_HEADER "x-amz-meta-chaapar"
/* Requests at a time that a configuration may ask for. */
#define PARALLEL_MAX 256u
/* Longest part of a name between two '/': file systems below S3 servers take 255 with what they add. */
#define SEGMENT_LEN_MAX 200u
/* An object's name: each byte of a key may become "%XX", with "%/" in between. */
#define NAME_LEN_MAX (3 * CHP_KEY_BYTES_MAX + 2 * 8 + 32)
#define PREFIX_LEN_MAX 200u
/* The longest name that S3 has, with what may be left of its prefix. */
#define LISTED_LEN_MAX 1024u
/* Names that a scan asks for at a time, and how often in one call. */
#define LIST_STEP "500"
#define LIST_STEPS_MAX 4u
/*
 * A request that the service sends away, since there are too many or since something passes, is sent again after a
 * while that doubles: a batch is thousands of them, and one in a thousand must not be the end of it.
 */
#define TRIES_MAX 5u
#define AGAIN_MS 50u
#define POLL_MS 20
/* Of an answer. A list is the longest. */
#define ANSWER_BYTES_MAX (8u << 20)

struct config {
	const char *endpoint, *bucket, *prefix, *region, *access_key, *secret_key, *ca_file;
	uint64_t parallel, timeout_ms;
};

struct store {
	struct config config; /* texts are the JSON's */
	struct chp_store_identity id;
	char identity[CHP_STORE_IDENTITY_BYTES];
	uint32_t identity_len;
	char sigv4[80];
};

enum object { VALUE, TOMBSTONE, RECORD, IDENTITY, LIST };

/* A request and its answer. */
struct request {
	const char *method;
	enum object what;
	uint32_t shard;     /* RECORD */
	const uint8_t *key; /* VALUE, TOMBSTONE */
	uint32_t key_len;
	const void *body; /* PUT */
	size_t body_len;
	char meta[CHP_STORE_META_TEXT_LEN + 1]; /* PUT: the version; "": none */
	const char *query;                      /* LIST: as it stands in the URL */
	/* The answer. */
	long status;
	bool has_meta;
	struct chp_store_meta found;
	char *data;
	uint32_t data_len, data_room;
	uint32_t tries;
};

/* A request on its way. */
struct transfer {
	CURL *easy;
	struct curl_slist *headers;
	struct request *request; /* NULL: none */
	uint64_t again_ms;       /* when it is sent again; 0: it is on its way */
	char error[CURL_ERROR_SIZE];
};

struct handle {
	struct store *store;
	CURLM *multi;
	struct transfer *transfer; /* store->config.parallel */
	struct request *request;   /* room for those of a call */
	uint32_t requests_room;
	struct chp_store_pick pick;
	struct plan *plan;
	uint32_t n_plans, plans_room;
};

/* What a write knows of an item. */
struct plan {
	struct chp_store_batch *batch;
	const struct chp_store_item *item;
	bool has_object, has_tombstone;
	bool has_version; /* of what is stored: */
	struct chp_store_meta stored;
	bool is_newer;
};

static const char *const keys[] = { "endpoint", "bucket", "prefix", "region", "access_key", "secret_key", "ca_file",
				    "parallel", "timeout_ms", NULL };

static bool
is_plain(const char *text, const char *more)
{
	for (; *text != '\0'; text++)
		if (!((*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
		      (*text >= '0' && *text <= '9') || strchr(more, *text) != NULL))
			return false;
	return true;
}

/* Whether it is http:// or https://, a host, maybe a port, and no more: what is behind would get into every name. */
static bool
is_endpoint(const char *text)
{
	const char *host = strstr(text, "://");

	if (strncmp(text, "http://", 7) != 0 && strncmp(text, "https://", 8) != 0)
		return false;
	return host[3] != '\0' && is_plain(host + 3, ".-_:[]");
}

/* Parts of a path that some take as they stand, and others as a way to another place. */
static bool
has_dots(const char *path)
{
	return strncmp(path, "./", 2) == 0 || strncmp(path, "../", 3) == 0 || strstr(path, "/./") != NULL ||
	       strstr(path, "/../") != NULL;
}

static int
read_config(const json_t *json, struct config *c, struct chp_store_error *e)
{
	if (chp_store_keys(json, keys, e) < 0 || chp_store_get_text(json, "endpoint", NULL, &c->endpoint, e) < 0 ||
	    chp_store_get_text(json, "bucket", NULL, &c->bucket, e) < 0 ||
	    chp_store_get_text(json, "prefix", "", &c->prefix, e) < 0 ||
	    chp_store_get_text(json, "region", "us-east-1", &c->region, e) < 0 ||
	    chp_store_get_text(json, "access_key", NULL, &c->access_key, e) < 0 ||
	    chp_store_get_text(json, "secret_key", NULL, &c->secret_key, e) < 0 ||
	    chp_store_get_text(json, "ca_file", "", &c->ca_file, e) < 0 ||
	    chp_store_get_uint(json, "parallel", 1, PARALLEL_MAX, 16, &c->parallel, e) < 0 ||
	    chp_store_get_uint(json, "timeout_ms", 100, 600000, 5000, &c->timeout_ms, e) < 0)
		return -1;
	if (!is_endpoint(c->endpoint))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN,
				      "endpoint: expected http:// or https://, a host, maybe a port, and nothing else");
	if (!is_plain(c->bucket, ".-_") || c->bucket[0] == '.')
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "bucket: expected letters, digits, '.', '-', '_'");
	if (!is_plain(c->region, "-"))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "region: expected letters, digits, '-'");
	if (strlen(c->prefix) > PREFIX_LEN_MAX || !is_plain(c->prefix, "/.-_"))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN,
				      "prefix: expected at most %u letters, digits, '/', '.', '-', '_'",
				      PREFIX_LEN_MAX);
	if (c->prefix[0] == '/' || strstr(c->prefix, "//") != NULL || has_dots(c->prefix))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN,
				      "prefix: expected no '/' at its beginning, no \"//\", \"./\" or \"../\"");
	return 0;
}

static int
check(const json_t *json, struct chp_store_error *e)
{
	struct config c;

	return read_config(json, &c, e);
}

static int
no_memory(struct chp_store_error *e)
{
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
}

/* ------------------------------------------------------------------ names */

static bool
is_dots(const uint8_t *key, uint32_t len)
{
	uint32_t n = 0;

	while (n < len && key[n] != '/')
		n++;
	return (n == 1 && key[0] == '.') || (n == 2 && key[0] == '.' && key[1] == '.');
}

/* Whether a byte of a key may stand in a name as it is; `at` in the key. */
static bool
stands(const uint8_t *key, uint32_t len, uint32_t at)
{
	uint8_t c = key[at];

	if (c <= ' ' || c >= 0x7f || c == '%')
		return false;
	if (c == '/') /* not where servers would take it as no name, or as another */
		return at > 0 && at + 1 < len && key[at - 1] != '/';
	if (c == '.' && at == 0 && len >= sizeof(OURS) - 2 && memcmp(key, OURS, sizeof(OURS) - 2) == 0)
		return false;
	if (c == '.') {
		while (at > 0 && key[at - 1] != '/')
			at--;
		return !is_dots(key + at, len - at);
	}
	return true;
}

/*
 * The name of a key's object: the key, but for bytes that are "%XX"; and "%/" in parts that are too long for the file
 * systems below many servers. Returns its length.
 */
static uint32_t
encode_key(const uint8_t *key, uint32_t len, char to[NAME_LEN_MAX])
{
	static const char digits[] = "0123456789ABCDEF";
	uint32_t n = 0, segment = 0;

	for (uint32_t i = 0; i < len; i++) {
		bool as_is = stands(key, len, i);

		if (segment + 3 > SEGMENT_LEN_MAX && !(as_is && key[i] == '/')) {
			to[n++] = '%';
			to[n++] = '/';
			segment = 0;
		}
		if (as_is) {
			to[n++] = (char)key[i];
			segment = key[i] == '/' ? 0 : segment + 1;
			continue;
		}
		to[n++] = '%';
		to[n++] = digits[key[i] >> 4];
		to[n++] = digits[key[i] & 15];
		segment += 3;
	}
	to[n] = '\0';
	return n;
}

static int
hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The key of a name; 0 for what encode_key does not make. */
static uint32_t
decode_name(const char *name, size_t len, uint8_t key[CHP_KEY_BYTES_MAX])
{
	char again[NAME_LEN_MAX];
	uint32_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (name[i] == '%' && i + 1 < len && name[i + 1] == '/') {
			i++;
			continue;
		}
		if (n == CHP_KEY_BYTES_MAX)
			return 0;
		if (name[i] != '%') {
			key[n++] = (uint8_t)name[i];
			continue;
		}
		if (i + 2 >= len || hex_of(name[i + 1]) < 0 || hex_of(name[i + 2]) < 0)
			return 0;
		key[n++] = (uint8_t)(hex_of(name[i + 1]) << 4 | hex_of(name[i + 2]));
		i += 2;
	}
	return n > 0 && encode_key(key, n, again) == len && memcmp(again, name, len) == 0 ? n : 0;
}

/* The name of an object, behind the prefix. */
static void
object_name(enum object what, uint32_t shard, const uint8_t *key, uint32_t key_len, char to[NAME_LEN_MAX])
{
	struct chp_text t = chp_text_of(to, NAME_LEN_MAX);

	switch (what) {
	case VALUE: encode_key(key, key_len, to); break;
	case TOMBSTONE:
		chp_text_add(&t, OURS "tombstone/");
		encode_key(key, key_len, t.at);
		break;
	case RECORD: chp_text_add(&t, OURS "record/%" PRIu32, shard); break;
	case IDENTITY: chp_text_add(&t, OURS "identity"); break;
	case LIST: break;
	}
}

/* Bytes in a URL: all but those that need no '%' in a path ('/' among them) or in a query. */
static void
add_escaped(struct chp_text *t, const char *text, bool in_path)
{
	for (; *text != '\0'; text++) {
		char one[2] = { *text, '\0' };

		if (is_plain(one, in_path ? "-._~/" : "-._~"))
			chp_text_add(t, "%s", one);
		else
			chp_text_add(t, "%%%02X", (unsigned int)(uint8_t)*text);
	}
}

/* ------------------------------------------------------------------ requests */

static uint64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static size_t
take_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct request *r = arg;

	(void)size; /* always 1 */
	if (r->data_len + n > ANSWER_BYTES_MAX ||
	    !chp_store_grow((void **)&r->data, &r->data_room, r->data_len + (uint32_t)n + 1, 1))
		return 0; /* an error to curl */
	memcpy(r->data + r->data_len, bytes, n);
	r->data_len += (uint32_t)n;
	r->data[r->data_len] = '\0';
	return n;
}

static size_t
take_header(char *bytes, size_t size, size_t n, void *arg)
{
	const size_t name_len = sizeof(META_HEADER) - 1;
	struct request *r = arg;
	size_t at = name_len + 1, len = n;

	(void)size;
	if (n <= at || strncasecmp(bytes, META_HEADER ":", at) != 0)
		return n;
	while (at < len && bytes[at] == ' ')
		at++;
	while (len > at && (bytes[len - 1] == '\r' || bytes[len - 1] == '\n' || bytes[len - 1] == ' '))
		len--;
	r->has_meta = chp_store_meta_parse(bytes + at, len - at, &r->found);
	return n;
}

/* The URL of a request; malloc'd. */
static char *
url_of(const struct store *s, const struct request *r)
{
	const struct config *c = &s->config;
	size_t size = strlen(c->endpoint) + strlen(c->bucket) + strlen(c->prefix) + 3 * (size_t)NAME_LEN_MAX + 64 +
		      (r->query != NULL ? strlen(r->query) : 0);
	char name[NAME_LEN_MAX], *url = malloc(size);
	struct chp_text t;

	if (url == NULL)
		return NULL;
	t = chp_text_of(url, size);
	chp_text_add(&t, "%s/%s", c->endpoint, c->bucket);
	if (r->what == LIST) {
		chp_text_add(&t, "?%s", r->query);
		return url;
	}
	object_name(r->what, r->shard, r->key, r->key_len, name);
	chp_text_add(&t, "/");
	add_escaped(&t, c->prefix, true);
	add_escaped(&t, name, true);
	return url;
}

static bool
add_header(struct transfer *x, const char *name, const char *value)
{
	char line[160];
	struct chp_text t = chp_text_of(line, sizeof(line));
	struct curl_slist *longer;

	chp_text_add(&t, "%s:%s%s", name, value[0] != '\0' ? " " : "", value);
	longer = curl_slist_append(x->headers, line);
	if (longer != NULL)
		x->headers = longer;
	return longer != NULL;
}

static bool
add_headers(struct transfer *x, const struct request *r)
{
	char sha256[CHP_SHA256_TEXT_LEN + 1];

	chp_sha256_text(r->body_len > 0 ? r->body : "", r->body_len, sha256);
	if (!add_header(x, "x-amz-content-sha256", sha256) || !add_header(x, "Expect", ""))
		return false;
	if (strcmp(r->method, "PUT") == 0 && !add_header(x, "Content-Type", "application/octet-stream"))
		return false;
	return r->meta[0] == '\0' || add_header(x, META_HEADER, r->meta);
}

static void
set_options(struct transfer *x, const struct store *s, const struct request *r)
{
	const struct config *c = &s->config;

	curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(x->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(x->easy, CURLOPT_AWS_SIGV4, s->sigv4);
	curl_easy_setopt(x->easy, CURLOPT_USERNAME, c->access_key);
	curl_easy_setopt(x->easy, CURLOPT_PASSWORD, c->secret_key);
	curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, (long)c->timeout_ms);
	curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)c->timeout_ms);
	curl_easy_setopt(x->easy, CURLOPT_ERRORBUFFER, x->error);
	curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x->request);
	curl_easy_setopt(x->easy, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(x->easy, CURLOPT_HEADERDATA, x->request);
	curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers);
	curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x);
	curl_easy_setopt(x->easy, CURLOPT_TCP_NODELAY, 1L);
	if (c->ca_file[0] != '\0')
		curl_easy_setopt(x->easy, CURLOPT_CAINFO, c->ca_file);
	if (strcmp(r->method, "HEAD") == 0)
		curl_easy_setopt(x->easy, CURLOPT_NOBODY, 1L);
	else if (strcmp(r->method, "GET") != 0)
		curl_easy_setopt(x->easy, CURLOPT_CUSTOMREQUEST, r->method);
	if (strcmp(r->method, "PUT") == 0) {
		curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE, (long)r->body_len);
		curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, r->body_len > 0 ? (const char *)r->body : "");
	}
}

static bool
start_transfer(struct handle *h, struct transfer *x, struct request *r)
{
	char *url = url_of(h->store, r);
	bool ok;

	r->data_len = 0;
	r->status = 0;
	r->has_meta = false;
	x->request = r;
	x->again_ms = 0;
	x->headers = NULL;
	x->error[0] = '\0';
	ok = url != NULL && add_headers(x, r);
	if (ok) {
		curl_easy_reset(x->easy);
		set_options(x, h->store, r);
		ok = curl_easy_setopt(x->easy, CURLOPT_URL, url) == CURLE_OK &&
		     curl_multi_add_handle(h->multi, x->easy) == CURLM_OK;
	}
	free(url);
	return ok;
}

static void
end_transfer(struct handle *h, struct transfer *x)
{
	curl_multi_remove_handle(h->multi, x->easy);
	curl_slist_free_all(x->headers);
	x->headers = NULL;
	x->request = NULL;
	x->again_ms = 0;
}

/* The word in <Code> of an error's answer; "" if there is none. */
static void
error_code(const struct request *r, char to[48])
{
	const char *at = r->data_len > 0 ? strstr(r->data, "<Code>") : NULL;
	struct chp_text t = chp_text_of(to, 48);

	if (at != NULL)
		chp_text_add(&t, "%.*s", (int)strcspn(at + 6, "<"), at + 6);
}

/* Whether the same request may have another answer before long. */
static bool
is_passing(const struct request *r)
{
	return r->status >= 500 || r->status == 429 || r->status == 408;
}

/*
 * Whether an answer is one that its asker can use. 404 is the absence of an object where S3 says so: not of the bucket,
 * and not of whatever should have led to S3. An answer to HEAD can say nothing.
 */
static int
judge(const struct request *r, struct chp_store_error *e)
{
	char code[48];

	if (r->status >= 200 && r->status < 300)
		return 0;
	error_code(r, code);
	if (r->status == 404 && r->what != LIST &&
	    (strcmp(r->method, "HEAD") == 0 || (strcmp(r->method, "PUT") != 0 && strcmp(code, "NoSuchKey") == 0)))
		return 0;
	if (is_passing(r))
		return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "s3 says %ld %s to a %s", r->status, code, r->method);
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3 says %ld %s to a %s%s", r->status, code, r->method,
			      r->status == 403 ? ": look at access_key, secret_key, region and the bucket's policy"
					       : "");
}

/* What has ended. Returns how many, or -1 with the first error. */
static int
collect(struct handle *h, struct chp_store_error *e)
{
	CURLMsg *m;
	int left, n = 0, rc = 0;

	while ((m = curl_multi_info_read(h->multi, &left)) != NULL) {
		struct transfer *x = NULL;
		CURLcode result = m->data.result;
		struct request *r;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
		r = x->request;
		curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &r->status);
		n++;
		end_transfer(h, x);
		if (result == CURLE_OK && is_passing(r) && ++r->tries < TRIES_MAX) {
			x->request = r;
			x->again_ms = now_ms() + (AGAIN_MS << r->tries);
		} else if (rc == 0 && result != CURLE_OK) {
			rc = chp_store_fail(e, CHP_STORE_ERROR_SLOW, "s3 at %.40s: %.60s", h->store->config.endpoint,
					    x->error[0] != '\0' ? x->error : curl_easy_strerror(result));
		} else if (rc == 0) {
			rc = judge(r, e);
		}
	}
	return rc < 0 ? -1 : n;
}

/* Begin requests where there is room, and again those whose time has come. */
static int
start_some(struct handle *h, struct request *r, uint32_t n, uint32_t *begun, struct chp_store_error *e)
{
	uint64_t now = now_ms();

	for (uint32_t i = 0; i < h->store->config.parallel; i++) {
		struct transfer *x = &h->transfer[i];
		bool is_again = x->request != NULL && x->again_ms != 0 && now >= x->again_ms;

		if (!is_again && (x->request != NULL || *begun == n))
			continue;
		if (!start_transfer(h, x, is_again ? x->request : &r[(*begun)++])) {
			end_transfer(h, x);
			return no_memory(e);
		}
	}
	return 0;
}

/* How many have not ended. After an error nobody waits for those that were to be sent again. */
static uint32_t
count_open(struct handle *h, bool is_over)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < h->store->config.parallel; i++) {
		if (is_over && h->transfer[i].again_ms != 0)
			h->transfer[i].request = NULL;
		n += h->transfer[i].request != NULL;
	}
	return n;
}

/*
 * Send requests, some at a time, and take their answers. After an error no more are begun, and those on their way are
 * waited for, which their time-outs bound: what is given up may still be carried out, and then behind what comes next.
 */
static int
perform(struct handle *h, struct request *r, uint32_t n, struct chp_store_error *e)
{
	struct chp_store_error later;
	int rc = 0, ended, running;
	uint32_t begun = 0;

	for (;;) {
		if (rc == 0)
			rc = start_some(h, r, n, &begun, e);
		if (count_open(h, rc < 0) == 0)
			return rc;
		curl_multi_perform(h->multi, &running);
		ended = collect(h, rc == 0 ? e : &later);
		if (ended < 0)
			rc = -1;
		else if (ended == 0)
			curl_multi_poll(h->multi, NULL, 0, POLL_MS, NULL);
	}
}

/* Room for n requests, all empty: those of the call before are gone. */
static int
begin_requests(struct handle *h, uint32_t n, struct chp_store_error *e)
{
	uint32_t had = h->requests_room;

	if (!chp_store_grow((void **)&h->request, &h->requests_room, n, sizeof(*h->request)))
		return no_memory(e);
	memset(h->request + had, 0, (h->requests_room - had) * sizeof(*h->request));
	for (uint32_t i = 0; i < n; i++) {
		char *data = h->request[i].data;
		uint32_t room = h->request[i].data_room;

		memset(&h->request[i], 0, sizeof(h->request[i]));
		h->request[i].data = data;
		h->request[i].data_room = room;
	}
	return 0;
}

static struct request *
set_request(struct request *r, const char *method, enum object what)
{
	r->method = method;
	r->what = what;
	return r;
}

static struct request *
set_key(struct request *r, const char *method, enum object what, const uint8_t *key, uint32_t key_len)
{
	r->key = key;
	r->key_len = key_len;
	return set_request(r, method, what);
}

/* ------------------------------------------------------------------ handles */

static void
detach(void *handle)
{
	struct handle *h = handle;

	for (uint32_t i = 0; h->transfer != NULL && i < h->store->config.parallel; i++)
		if (h->transfer[i].easy != NULL)
			curl_easy_cleanup(h->transfer[i].easy);
	if (h->multi != NULL)
		curl_multi_cleanup(h->multi);
	for (uint32_t i = 0; i < h->requests_room; i++)
		free(h->request[i].data);
	free(h->transfer);
	free(h->request);
	free(h->plan);
	chp_store_pick_free(&h->pick);
	free(h);
}

static void
start_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void *
attach(void *store, struct chp_store_error *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct store *s = store;
	struct handle *h = calloc(1, sizeof(*h));
	bool ok;

	pthread_once(&once, start_curl);
	if (h == NULL) {
		no_memory(e);
		return NULL;
	}
	h->store = s;
	h->multi = curl_multi_init();
	h->transfer = calloc(s->config.parallel, sizeof(*h->transfer));
	ok = h->multi != NULL && h->transfer != NULL;
	for (uint32_t i = 0; ok && i < s->config.parallel; i++) {
		h->transfer[i].easy = curl_easy_init();
		ok = h->transfer[i].easy != NULL;
	}
	if (ok)
		curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)s->config.parallel);
	if (!ok) {
		detach(h);
		no_memory(e);
		return NULL;
	}
	return h;
}

/* ------------------------------------------------------------------ open */

/* The query of a list: what is behind a name. The arguments are in the order of their names, as signatures want it. */
static char *
list_query(const struct store *s, const char *after, const char *max)
{
	size_t size = 256 + 3 * (strlen(s->config.prefix) * 2 + strlen(after));
	char *query = malloc(size);
	struct chp_text t;

	if (query == NULL)
		return NULL;
	t = chp_text_of(query, size);
	chp_text_add(&t, "list-type=2&max-keys=%s&prefix=", max);
	add_escaped(&t, s->config.prefix, false);
	if (after[0] != '\0') {
		chp_text_add(&t, "&start-after=");
		add_escaped(&t, s->config.prefix, false);
		add_escaped(&t, after, false);
	}
	return query;
}

static int
list(struct handle *h, const char *after, const char *max, struct chp_store_error *e)
{
	char *query = list_query(h->store, after, max);
	int rc = query != NULL ? begin_requests(h, 1, e) : no_memory(e);

	if (rc == 0) {
		set_request(&h->request[0], "GET", LIST)->query = query;
		rc = perform(h, h->request, 1, e);
	}
	free(query);
	if (rc == 0 && (h->request[0].data_len == 0 || strstr(h->request[0].data, "<ListBucketResult") == NULL))
		rc = chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3: an answer to a list that is none");
	return rc;
}

/* Whose it is; with nothing under the prefix it becomes ours. */
static int
claim(struct handle *h, struct chp_store_error *e)
{
	struct store *s = h->store;
	struct request *r;

	for (uint32_t try = 0; try < 2; try++) {
		if (begin_requests(h, 1, e) < 0 || perform(h, set_request(h->request, "GET", IDENTITY), 1, e) < 0)
			return -1;
		r = h->request;
		if (r->status != 404)
			return chp_store_identity_check(&s->id, r->data, r->data_len, e);
		if (list(h, "", "1", e) < 0)
			return -1;
		if (strstr(h->request[0].data, "<Key>") != NULL)
			return chp_store_refuse(e, CHP_HOST_BAD_CLUSTER,
						"bucket %.40s has objects of another program under \"%.40s\"",
						s->config.bucket, s->config.prefix);
		if (begin_requests(h, 1, e) < 0)
			return -1;
		r = set_request(h->request, "PUT", IDENTITY);
		r->body = s->identity;
		r->body_len = s->identity_len;
		if (perform(h, r, 1, e) < 0)
			return -1;
	}
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3: what was put is not there");
}

static void *
open_store(const json_t *json, const struct chp_store_identity *id, struct chp_store_error *e)
{
	struct store *s = calloc(1, sizeof(*s));
	struct chp_text t;
	struct handle *h;
	int rc;

	if (s == NULL) {
		no_memory(e);
		return NULL;
	}
	s->id = *id;
	s->identity_len = chp_store_identity_text(id, s->identity);
	h = NULL;
	if (read_config(json, &s->config, e) == 0) {
		t = chp_text_of(s->sigv4, sizeof(s->sigv4));
		chp_text_add(&t, "aws:amz:%s:s3", s->config.region);
		h = attach(s, e);
	}
	rc = h != NULL ? claim(h, e) : -1;
	if (h != NULL)
		detach(h);
	if (rc < 0) {
		free(s);
		return NULL;
	}
	return s;
}

static void
describe(void *store, uint32_t *flags, char name[CHP_HOST_TEXT_BYTES])
{
	struct store *s = store;
	struct chp_text t = chp_text_of(name, CHP_HOST_TEXT_BYTES);

	*flags = CHP_STORE_SCANS;
	chp_text_add(&t, "s3, durable when it answers, %.50s/%.40s", s->config.endpoint, s->config.bucket);
}

static void
close_store(void *store)
{
	free(store);
}

/* ------------------------------------------------------------------ records */

/* A record from an answer; zeros where there is none. */
static int
record_of(const struct request *r, struct chp_store_record *record, struct chp_store_error *e)
{
	memset(record, 0, sizeof(*record));
	if (r->status == 404 || chp_store_record_read(r->data_len > 0 ? r->data : "", r->data_len, record))
		return 0;
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3: the record of shard %" PRIu32 " is not one of ours",
			      r->shard);
}

static int
load_record(void *handle, uint32_t shard, struct chp_store_record *record, struct chp_store_error *e)
{
	struct handle *h = handle;

	if (begin_requests(h, 1, e) < 0)
		return -1;
	set_request(h->request, "GET", RECORD)->shard = shard;
	return perform(h, h->request, 1, e) < 0 ? -1 : record_of(h->request, record, e);
}

/* The bytes of records on their way. */
struct record_bytes {
	uint8_t at[CHP_STORE_BATCHES_MAX][CHP_STORE_RECORD_BYTES];
};

static void
put_record(struct request *r, uint32_t shard, const struct chp_store_record *record,
	   uint8_t bytes[CHP_STORE_RECORD_BYTES])
{
	chp_store_record_write(record, bytes);
	set_request(r, "PUT", RECORD);
	r->shard = shard;
	r->body = bytes;
	r->body_len = CHP_STORE_RECORD_BYTES;
}

/* ------------------------------------------------------------------ write */

/* Step 1: the records are as they were left. Raises `newest` where the batch does, before anything else. */
static int
begin_batches(struct handle *h, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	struct chp_store_record stored[CHP_STORE_BATCHES_MAX];
	struct record_bytes bytes;
	uint32_t raised = 0;

	if (begin_requests(h, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		set_request(&h->request[i], "GET", RECORD)->shard = batch[i].shard;
	if (perform(h, h->request, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		if (record_of(&h->request[i], &stored[i], e) < 0 || chp_store_batch_begin(&batch[i], &stored[i], e) < 0)
			return -1;
	if (begin_requests(h, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++) {
		if (batch[i].after->newest == stored[i].newest || batch[i].n_items == 0)
			continue;
		stored[i].newest = batch[i].after->newest;
		put_record(&h->request[raised], batch[i].shard, &stored[i], bytes.at[raised]);
		raised++;
	}
	return perform(h, h->request, raised, e);
}

static int
make_plans(struct handle *h, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	h->n_plans = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (chp_store_pick(&h->pick, &batch[i], e) < 0)
			return -1;
		if (!chp_store_grow((void **)&h->plan, &h->plans_room, h->n_plans + h->pick.n, sizeof(*h->plan)))
			return no_memory(e);
		for (uint32_t k = 0; k < h->pick.n; k++)
			h->plan[h->n_plans++] = (struct plan){ .batch = &batch[i],
							       .item = chp_store_picked(&h->pick, &batch[i], k) };
	}
	return 0;
}

/* Step 2: which items are newer: than their objects or, where there is none, than their tombstones. */
static int
look_up(struct handle *h, struct chp_store_error *e)
{
	uint32_t n = 0;

	if (begin_requests(h, h->n_plans, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->n_plans; i++)
		set_key(&h->request[i], "HEAD", VALUE, h->plan[i].item->key, h->plan[i].item->key_len);
	if (perform(h, h->request, h->n_plans, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->n_plans; i++) {
		h->plan[i].has_object = h->request[i].status != 404;
		h->plan[i].has_version = h->plan[i].has_object && h->request[i].has_meta;
		h->plan[i].stored = h->request[i].found;
	}
	if (begin_requests(h, h->n_plans, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->n_plans; i++)
		if (!h->plan[i].has_object)
			set_key(&h->request[n++], "HEAD", TOMBSTONE, h->plan[i].item->key, h->plan[i].item->key_len);
	if (perform(h, h->request, n, e) < 0)
		return -1;
	n = 0;
	for (uint32_t i = 0; i < h->n_plans; i++) {
		struct plan *p = &h->plan[i];

		if (!p->has_object) {
			p->has_tombstone = h->request[n].status != 404;
			p->has_version = p->has_tombstone && h->request[n].has_meta;
			p->stored = h->request[n++].found;
		}
		p->is_newer = chp_store_batch_apply(p->batch, p->item, p->has_version ? &p->stored : NULL);
	}
	return 0;
}

/* Step 3: objects and tombstones. */
static int
put_items(struct handle *h, struct chp_store_error *e)
{
	uint32_t n = 0;

	if (begin_requests(h, h->n_plans, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->n_plans; i++) {
		const struct chp_store_item *item = h->plan[i].item;
		bool tombstone = (item->flags & CHP_HOST_TOMBSTONE) != 0;
		struct request *r = &h->request[n];

		if (!h->plan[i].is_newer)
			continue;
		set_key(r, "PUT", tombstone ? TOMBSTONE : VALUE, item->key, item->key_len);
		r->body = item->value;
		r->body_len = tombstone ? 0 : item->value_len;
		chp_store_meta_text(item, r->meta);
		n++;
	}
	return perform(h, h->request, n, e);
}

/* Step 4: the objects of tombstones go, and the tombstones of objects. */
static int
delete_others(struct handle *h, struct chp_store_error *e)
{
	uint32_t n = 0;

	if (begin_requests(h, h->n_plans, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->n_plans; i++) {
		const struct plan *p = &h->plan[i];
		bool tombstone = (p->item->flags & CHP_HOST_TOMBSTONE) != 0;

		if (p->is_newer && (tombstone ? p->has_object : p->has_tombstone))
			set_key(&h->request[n++], "DELETE", tombstone ? VALUE : TOMBSTONE, p->item->key,
				p->item->key_len);
	}
	return perform(h, h->request, n, e);
}

/* Step 5: with their records the batches are durable. */
static int
end_batches(struct handle *h, const struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	struct record_bytes bytes;

	if (begin_requests(h, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		put_record(&h->request[i], batch[i].shard, batch[i].after, bytes.at[i]);
	return perform(h, h->request, n, e);
}

static int
write_batches(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	struct handle *h = handle;

	if (begin_batches(h, batch, n, e) < 0 || make_plans(h, batch, n, e) < 0 || look_up(h, e) < 0)
		return -1;
	if (put_items(h, e) < 0 || delete_others(h, e) < 0)
		return -1;
	return end_batches(h, batch, n, e);
}

/* ------------------------------------------------------------------ read */

/* An object as an answer. */
static int
object_found(const struct store *s, const struct request *r, struct chp_store_read *read, struct chp_store_error *e)
{
	if (!r->has_meta || (r->found.flags & CHP_HOST_TOMBSTONE) != 0 || r->data_len > s->id.value_bytes_max)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3: another program has changed a value");
	read->found = CHP_STORE_FOUND;
	read->version = r->found.version;
	read->life = r->found.life;
	read->flags = r->found.flags;
	read->value_len = r->data_len;
	if (r->data_len > 0)
		memcpy(read->value, r->data, r->data_len);
	return 0;
}

static int
tombstone_found(const struct request *r, struct chp_store_read *read, struct chp_store_error *e)
{
	read->value_len = 0;
	read->found = r->status == 404 ? CHP_STORE_ABSENT : CHP_STORE_TOMBSTONE;
	if (r->status == 404)
		return 0;
	if (!r->has_meta) {
		read->found = CHP_STORE_FAILED;
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3: a tombstone is not one of ours");
	}
	read->version = r->found.version;
	read->life = r->found.life;
	read->flags = r->found.flags;
	return 0;
}

static int
read_keys(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e)
{
	struct chp_store_read *missing[CHP_STORE_READS_MAX];
	struct handle *h = handle;
	uint32_t n_missing = 0;
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		read[i].found = CHP_STORE_FAILED;
	if (begin_requests(h, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		set_key(&h->request[i], "GET", VALUE, read[i].key, read[i].key_len);
	if (perform(h, h->request, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		if (h->request[i].status == 404)
			missing[n_missing++] = &read[i];
		else if (object_found(h->store, &h->request[i], &read[i], e) < 0)
			rc = -1;
	if (begin_requests(h, n_missing, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n_missing; i++)
		set_key(&h->request[i], "HEAD", TOMBSTONE, missing[i]->key, missing[i]->key_len);
	if (perform(h, h->request, n_missing, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n_missing; i++)
		if (tombstone_found(&h->request[i], missing[i], e) < 0)
			rc = -1;
	return rc;
}

/* ------------------------------------------------------------------ scan */

/* An object of a list that is a key's. */
struct listed {
	enum object what; /* VALUE or TOMBSTONE; LIST: it is neither */
	uint32_t key_len;
	uint8_t key[CHP_KEY_BYTES_MAX];
};

/* What XML has for some characters, in place. Returns the new length. */
static size_t
unescape_xml(char *text, size_t len)
{
	static const struct {
		const char *from;
		char to;
	} word[] = { { "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' }, { "&apos;", '\'' } };
	size_t n = 0;

	for (size_t i = 0; i < len; n++) {
		size_t taken = 1;

		text[n] = text[i];
		if (text[i] == '&' && text[i + 1] == '#') {
			const char *digits = text + i + 2;
			bool hex = *digits == 'x';

			text[n] = (char)strtoul(digits + hex, NULL, hex ? 16 : 10);
			taken = strcspn(text + i, ";") + 1;
		}
		for (uint32_t w = 0; text[i] == '&' && taken == 1 && w < sizeof(word) / sizeof(word[0]); w++)
			if (strncmp(text + i, word[w].from, strlen(word[w].from)) == 0) {
				text[n] = word[w].to;
				taken = strlen(word[w].from);
			}
		i += taken;
	}
	return n;
}

/* Where a list goes on. */
struct place {
	char after[LISTED_LEN_MAX + 1]; /* the last name, without the prefix */
	bool has_moved;                 /* with the last list */
	bool is_ours;                   /* the scan's cursor can say so */
};

/* What a name in a list, as it is, is. */
static void
understand(const struct store *s, const char *name, size_t len, struct listed *l)
{
	static const char tombstone[] = OURS "tombstone/";
	size_t prefix = strlen(s->config.prefix);

	l->what = LIST;
	if (len < prefix)
		return;
	name += prefix;
	len -= prefix;
	if (len >= sizeof(tombstone) - 1 && memcmp(name, tombstone, sizeof(tombstone) - 1) == 0) {
		l->what = TOMBSTONE;
		name += sizeof(tombstone) - 1;
		len -= sizeof(tombstone) - 1;
	} else if (len < sizeof(OURS) - 1 || memcmp(name, OURS, sizeof(OURS) - 1) != 0) {
		l->what = VALUE;
	}
	l->key_len = l->what != LIST ? decode_name(name, len, l->key) : 0;
	if (l->key_len == 0)
		l->what = LIST; /* ours, or another program's */
}

/* The next name of a list's answer, behind *at, as it is. Returns false when there is none. */
static bool
next_name(char **at, char **name, size_t *len)
{
	char *begin = *at != NULL ? strstr(*at, "<Key>") : NULL, *end = begin != NULL ? strstr(begin, "</Key>") : NULL;

	if (end == NULL)
		return false;
	*name = begin + strlen("<Key>");
	*len = unescape_xml(*name, (size_t)(end - *name));
	*at = end;
	return true;
}

static void
move_cursor(struct chp_store_cursor *c, const struct listed *l)
{
	c->bytes[0] = l->what == TOMBSTONE ? 't' : 'v';
	memcpy(c->bytes + 1, l->key, l->key_len);
	c->len = 1 + l->key_len;
}

/* Fetch some objects of a list and add them. Returns 1 to go on, 0 when there is no room, -1 with an error. */
static int
add_fetched(struct handle *h, const struct listed *l, uint32_t n, struct chp_store_scan *scan,
	    struct chp_store_error *e)
{
	if (begin_requests(h, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		set_key(&h->request[i], l[i].what == VALUE ? "GET" : "HEAD", l[i].what, l[i].key, l[i].key_len);
	if (perform(h, h->request, n, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++) {
		const struct request *r = &h->request[i];
		struct chp_store_item item = { .key = l[i].key, .key_len = (uint8_t)l[i].key_len,
					       .version = r->found.version, .life = r->found.life,
					       .flags = r->found.flags, .value = (const uint8_t *)r->data,
					       .value_len = l[i].what == VALUE ? r->data_len : 0 };

		/* Gone meanwhile, or another program's. */
		if (r->status != 404 && r->has_meta && item.value_len <= h->store->id.value_bytes_max &&
		    !chp_store_scan_add(scan, &item))
			return 0;
		move_cursor(&scan->cursor, &l[i]);
	}
	return 1;
}

/* How many items may have room yet: what is fetched and has none was fetched in vain. */
static uint32_t
room_for(const struct chp_store_scan *scan)
{
	uint32_t bytes = scan->bytes_max > scan->bytes ? scan->bytes_max - scan->bytes : 0;
	uint32_t each = scan->n > 0 ? scan->bytes / scan->n : chp_host_item_bytes(16, 64);

	return scan->n_max - scan->n < bytes / each ? scan->n_max - scan->n : bytes / each + 1;
}

/* A list goes on behind the last name that it had, whosever it is. */
static void
move_place(const struct store *s, struct place *p, const char *name, size_t len)
{
	size_t prefix = strlen(s->config.prefix);

	if (len >= prefix && len - prefix <= LISTED_LEN_MAX) {
		memcpy(p->after, name + prefix, len - prefix);
		p->after[len - prefix] = '\0';
		p->has_moved = true;
	}
}

/* The part of a list that is in an answer. */
static int
add_listed(struct handle *h, uint32_t shard, char *text, struct chp_store_scan *scan, struct place *place,
	   struct chp_store_error *e)
{
	const uint32_t most = (uint32_t)h->store->config.parallel;
	struct listed *l = malloc(most * sizeof(*l)), last = { .what = LIST };
	char *at = text, *name;
	uint32_t n = 0;
	size_t len;
	int rc = l != NULL ? 1 : no_memory(e);

	place->has_moved = false;
	while (rc > 0 && next_name(&at, &name, &len)) {
		understand(h->store, name, len, &l[n]);
		move_place(h->store, place, name, len);
		if (l[n].what == LIST)
			continue;
		last = l[n];
		if (chp_store_shard(&h->store->id, l[n].key, l[n].key_len) != shard)
			continue;
		if (++n == most || n >= room_for(scan)) {
			rc = add_fetched(h, l, n, scan, e);
			n = 0;
		}
	}
	if (rc > 0 && n > 0)
		rc = add_fetched(h, l, n, scan, e);
	place->is_ours = last.what != LIST;
	if (rc > 0 && place->is_ours)
		move_cursor(&scan->cursor, &last);
	free(l);
	return rc;
}

static int
scan_items(void *handle, uint32_t shard, struct chp_store_scan *scan, struct chp_store_error *e)
{
	struct handle *h = handle;
	const struct chp_store_cursor *c = &scan->cursor;
	struct place place = { .after = "" };
	int rc = 1;

	_Static_assert(NAME_LEN_MAX <= sizeof(place.after), "all our names fit");
	if (c->len > 1)
		object_name(c->bytes[0] == 't' ? TOMBSTONE : VALUE, 0, c->bytes + 1, c->len - 1, place.after);
	/* What is another program's the cursor cannot name: it must be passed in one call. */
	for (uint32_t steps = 0; rc > 0 && steps < LIST_STEPS_MAX && !scan->end; steps += place.is_ours) {
		bool truncated;
		char *text;

		if (list(h, place.after, LIST_STEP, e) < 0)
			return -1;
		text = h->request[0].data;
		h->request[0].data = NULL;
		h->request[0].data_room = 0;
		truncated = strstr(text, "<IsTruncated>true") != NULL;
		rc = add_listed(h, shard, text, scan, &place, e);
		free(text);
		scan->end = rc > 0 && !truncated;
		if (rc > 0 && truncated && !place.has_moved)
			rc = chp_store_fail(e, CHP_STORE_ERROR_DOWN, "s3: a list that goes on without a name");
	}
	return rc < 0 ? -1 : 0;
}

const struct chp_adapter chp_adapter_s3 = {
	.name = "s3",
	.text = "a bucket of S3 or of what speaks as it does; durable when it answers",
	.has_timeouts = true,
	.check = check,
	.open = open_store,
	.describe = describe,
	.close = close_store,
	.attach = attach,
	.detach = detach,
	.load_record = load_record,
	.write = write_batches,
	.read = read_keys,
	.scan = scan_items,
};
