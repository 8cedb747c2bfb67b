/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The reader is our own and not a general JSON library's: that one cannot hold integers above 2^63,
 * which incr reaches, and took 2.2 us a line, 22 s for a history of five million operations. Lines
 * are flat objects, so a scanner is small; the unit test compares it with a JSON library.
 */
#include "history/history.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (256u * 1024u)
#define READ_BYTES (256u * 1024u)
#define FORMAT_BYTES 4096u
#define FIELD_NAME_BYTES 16u /* the longest name, "value64", is shorter */

static const char *const kind_names[CHP_HISTORY_N_KINDS] = {
	"get", "put", "delete", "cas", "add", "replace", "append", "prepend", "incr", "decr",
};
static const char *const outcome_names[] = { "open", "ok", "fail", "unknown" };
static const char *const status_names[] = {
	"none", "not_found", "exists", "compare_failed", "not_number", "other",
};

#define N_OUTCOMES (sizeof(outcome_names) / sizeof(outcome_names[0]))
#define N_STATUSES (sizeof(status_names) / sizeof(status_names[0]))

const char *
chp_history_kind_name(uint32_t kind)
{
	return kind < CHP_HISTORY_N_KINDS ? kind_names[kind] : "?";
}

const char *
chp_history_outcome_name(uint32_t outcome)
{
	return outcome < N_OUTCOMES ? outcome_names[outcome] : "?";
}

const char *
chp_history_status_name(uint32_t status)
{
	return status < N_STATUSES ? status_names[status] : "?";
}

static uint64_t
mix64(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	return x;
}

uint64_t
chp_history_hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = mix64(UINT64_C(0x9e3779b97f4a7c15) + len);
	uint64_t word;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		h = mix64(h ^ word) + UINT64_C(0x9e3779b97f4a7c15);
	}
	word = 0;
	if (len > 0)
		memcpy(&word, p, len);
	return mix64(h ^ word);
}

/* Length of the UTF-8 character that starts at p, 0 if it is malformed, overlong or a surrogate. */
static size_t
utf8_char(const uint8_t *p, size_t len)
{
	uint8_t a = p[0];
	size_t n = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;

	if (n < 2)
		return n;
	if (n > len)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] > 0x9f) ||
	    (a == 0xf0 && p[1] < 0x90) || (a == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

bool
chp_history_is_utf8(const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len > 0) {
		size_t n = utf8_char(p, len);

		if (n == 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Bytes are appended to chunks and never move, so operations can point at them. */
struct chp_history_chunk {
	struct chp_history_chunk *next;
	size_t cap;
	size_t used;
	uint8_t bytes[];
};

static void
chunks_free(struct chp_history_chunk *c)
{
	while (c != NULL) {
		struct chp_history_chunk *next = c->next;

		free(c);
		c = next;
	}
}

/* A chunk with room for len bytes at the head of the list, or NULL. */
static struct chp_history_chunk *
chunk_for(struct chp_history *h, size_t len)
{
	struct chp_history_chunk *c = h->chunk;
	size_t cap = len > CHUNK_BYTES ? len : CHUNK_BYTES;

	if (c != NULL && c->cap - c->used >= len)
		return c;
	c = h->spare;
	if (c != NULL && c->cap >= len) {
		h->spare = c->next;
	} else {
		c = malloc(sizeof(*c) + cap);
		if (c == NULL)
			return NULL;
		c->cap = cap;
	}
	c->used = 0;
	c->next = h->chunk;
	h->chunk = c;
	return c;
}

/* A copy that lives as long as the history; not NULL when len is 0. NULL: no memory. */
static const uint8_t *
copy_bytes(struct chp_history *h, const void *data, size_t len)
{
	struct chp_history_chunk *c = chunk_for(h, len);
	uint8_t *p;

	if (c == NULL)
		return NULL;
	p = c->bytes + c->used;
	if (len > 0)
		memcpy(p, data, len);
	c->used += len;
	return p;
}

/* Grow *array of items of `size` bytes so that it holds more than n. */
static int
grow(void *array, uint32_t n, uint32_t *cap, size_t size)
{
	void **a = array;
	uint32_t want = n < 64 ? 128 : n + n / 2;
	void *p;

	if (n < *cap)
		return 0;
	p = realloc(*a, want * size);
	if (p == NULL)
		return -ENOMEM;
	*a = p;
	*cap = want;
	return 0;
}

void
chp_history_init(struct chp_history *h)
{
	memset(h, 0, sizeof(*h));
}

void
chp_history_fini(struct chp_history *h)
{
	if (h == NULL)
		return;
	free(h->op);
	free(h->key);
	free(h->slot);
	chunks_free(h->chunk);
	chunks_free(h->spare);
	memset(h, 0, sizeof(*h));
}

void
chp_history_reset(struct chp_history *h)
{
	while (h->chunk != NULL) {
		struct chp_history_chunk *c = h->chunk;

		h->chunk = c->next;
		c->next = h->spare;
		h->spare = c;
	}
	if (h->slots_cap > 0)
		memset(h->slot, 0, h->slots_cap * sizeof(*h->slot));
	h->n_ops = 0;
	h->n_keys = 0;
}

/* --- recording -------------------------------------------------------------------------------- */

static int
key_slots_grow(struct chp_history *h)
{
	uint32_t cap = h->slots_cap == 0 ? 64 : h->slots_cap * 2;
	uint32_t *slot;

	if (h->n_keys < h->slots_cap / 2)
		return 0;
	slot = calloc(cap, sizeof(*slot));
	if (slot == NULL)
		return -ENOMEM;
	for (uint32_t k = 0; k < h->n_keys; k++) {
		uint32_t i = (uint32_t)h->key[k].hash & (cap - 1);

		while (slot[i] != 0)
			i = (i + 1) & (cap - 1);
		slot[i] = k + 1;
	}
	free(h->slot);
	h->slot = slot;
	h->slots_cap = cap;
	return 0;
}

/*
 * Index of a key, made if new. Room for a new one is taken first, so that failure changes nothing.
 */
static int64_t
key_intern(struct chp_history *h, const void *bytes, uint32_t len)
{
	uint64_t hash = chp_history_hash(bytes, len);
	const uint8_t *copy;
	uint32_t i;

	if (key_slots_grow(h) != 0 || grow(&h->key, h->n_keys, &h->keys_cap, sizeof(*h->key)) != 0)
		return -ENOMEM;
	for (i = (uint32_t)hash & (h->slots_cap - 1); h->slot[i] != 0;
	     i = (i + 1) & (h->slots_cap - 1)) {
		const struct chp_history_key *k = &h->key[h->slot[i] - 1];

		if (k->hash == hash && k->len == len && memcmp(k->bytes, bytes, len) == 0)
			return h->slot[i] - 1;
	}
	copy = copy_bytes(h, bytes, len);
	if (copy == NULL)
		return -ENOMEM;
	h->key[h->n_keys] = (struct chp_history_key){
		.bytes = copy,
		.hash = hash,
		.len = len,
		.first = CHP_HISTORY_NONE,
		.last = CHP_HISTORY_NONE,
	};
	h->slot[i] = ++h->n_keys;
	return h->n_keys - 1;
}

static bool
kind_has_value(uint32_t kind)
{
	return kind == CHP_HISTORY_PUT || (kind >= CHP_HISTORY_CAS && kind <= CHP_HISTORY_PREPEND);
}

static bool
kind_has_delta(uint32_t kind)
{
	return kind == CHP_HISTORY_INCR || kind == CHP_HISTORY_DECR;
}

int64_t
chp_history_invoke(struct chp_history *h, const struct chp_history_call *c)
{
	const uint8_t *value = NULL;
	struct chp_history_op *op;
	struct chp_history_key *k;
	int64_t key;

	if ((uint32_t)c->kind >= CHP_HISTORY_N_KINDS ||
	    kind_has_value(c->kind) != (c->value != NULL) || (c->key == NULL && c->key_len != 0))
		return -EINVAL;
	if (h->n_ops >= CHP_HISTORY_OPS_MAX)
		return -EOVERFLOW;
	if (grow(&h->op, h->n_ops, &h->ops_cap, sizeof(*h->op)) != 0)
		return -ENOMEM;
	if (c->value != NULL && (value = copy_bytes(h, c->value, c->value_len)) == NULL)
		return -ENOMEM;
	key = key_intern(h, c->key == NULL ? "" : c->key, c->key_len);
	if (key < 0)
		return key;
	op = &h->op[h->n_ops];
	*op = (struct chp_history_op){
		.invoke_ns = c->t_ns,
		.complete_ns = CHP_HISTORY_NEVER,
		.client = c->client,
		.req = c->req,
		.arg = c->arg,
		.value = value,
		.value_len = value == NULL ? 0 : c->value_len,
		.key = (uint32_t)key,
		.next = CHP_HISTORY_NONE,
		.node = c->node,
		.kind = (uint8_t)c->kind,
		.outcome = CHP_HISTORY_OPEN,
	};
	k = &h->key[key];
	if (k->last == CHP_HISTORY_NONE)
		k->first = h->n_ops;
	else
		h->op[k->last].next = h->n_ops;
	k->last = h->n_ops;
	k->n_ops++;
	return h->n_ops++;
}

int
chp_history_complete(struct chp_history *h, uint32_t idx, const struct chp_history_result *r)
{
	const uint8_t *value = NULL;
	struct chp_history_op *op;
	bool ok = r->outcome == CHP_HISTORY_OK;

	if (idx >= h->n_ops || (uint32_t)r->outcome >= N_OUTCOMES ||
	    (uint32_t)r->status >= N_STATUSES)
		return -EINVAL;
	op = &h->op[idx];
	if (r->outcome == CHP_HISTORY_OPEN || r->t_ns < op->invoke_ns)
		return -EINVAL;
	if (r->value != NULL && (!ok || op->kind != CHP_HISTORY_GET))
		return -EINVAL;
	if (op->outcome != CHP_HISTORY_OPEN)
		return -EALREADY;
	if (r->value != NULL && (value = copy_bytes(h, r->value, r->value_len)) == NULL)
		return -ENOMEM;
	op->complete_ns = r->t_ns;
	op->outcome = (uint8_t)r->outcome;
	op->status = r->outcome == CHP_HISTORY_FAIL ? (uint8_t)r->status : CHP_HISTORY_STATUS_NONE;
	op->version = r->version;
	op->has_number = r->has_number && ok && kind_has_delta(op->kind);
	op->number = op->has_number ? r->number : 0;
	if (r->node != CHP_HISTORY_NONE)
		op->node = r->node;
	if (value != NULL) {
		op->value = value;
		op->value_len = r->value_len;
	}
	return 0;
}

/* --- reader: scanner -------------------------------------------------------------------------- */

struct text {
	const char *p; /* NULL: none */
	uint32_t len;
};

struct reader {
	struct chp_history *h;
	struct chp_history_error *err; /* may be NULL */
	uint64_t line;
	const char *p; /* the rest of the line */
	const char *end;
	char *scratch; /* decoded strings of this line, see scratch_room */
	size_t scratch_cap;
	size_t scratch_used;
	size_t line_len;
	uint32_t *slot; /* open-addressed index (client, req): 0 free, else operation + 1 */
	uint32_t slots_cap;
	const char *field; /* name of the field being read, for messages */
};

__attribute__((format(printf, 3, 4))) static int
fail(struct reader *r, int code, const char *format, ...)
{
	va_list ap;
	int n;

	if (r->err == NULL)
		return code;
	r->err->line = r->line;
	n = snprintf(r->err->text, sizeof(r->err->text), "line %" PRIu64 ": ", r->line);
	if (r->field != NULL)
		n += snprintf(r->err->text + n, sizeof(r->err->text) - (size_t)n,
			      "field \"%s\": ", r->field);
	va_start(ap, format);
	vsnprintf(r->err->text + n, sizeof(r->err->text) - (size_t)n, format, ap);
	va_end(ap);
	return code;
}

static void
skip_space(struct reader *r)
{
	while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\r'))
		r->p++;
}

static bool
take(struct reader *r, char c)
{
	if (r->p == r->end || *r->p != c)
		return false;
	r->p++;
	return true;
}

/*
 * Room for decoded bytes of this line, all taken at once, so that earlier strings do not move.
 * Twice the line is enough: a string with escapes is shorter than its source, and base64 within it
 * shorter again.
 */
static char *
scratch_room(struct reader *r)
{
	size_t want = r->line_len * 2;

	if (r->scratch_cap < want) {
		assert(r->scratch_used == 0);
		free(r->scratch);
		r->scratch_cap = 0;
		r->scratch = malloc(want);
		if (r->scratch == NULL)
			return NULL;
		r->scratch_cap = want;
	}
	return r->scratch + r->scratch_used;
}

/* Four hex digits at p, or -1. */
static int32_t
hex4(const char *p, const char *end)
{
	int32_t v = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int32_t d = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;

		if (d < 0)
			return -1;
		v = v * 16 + d;
	}
	return v;
}

static char *
utf8_put(char *out, uint32_t c)
{
	if (c < 0x80) {
		*out++ = (char)c;
	} else if (c < 0x800) {
		*out++ = (char)(0xc0 | c >> 6);
		*out++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*out++ = (char)(0xe0 | c >> 12);
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	} else {
		*out++ = (char)(0xf0 | c >> 18);
		*out++ = (char)(0x80 | (c >> 12 & 0x3f));
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	}
	return out;
}

/* The escape behind a backslash: decoded to *out, r->p moved behind it. */
static int
scan_escape(struct reader *r, char **out)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	int32_t c;
	int32_t low;

	if (r->p == r->end)
		return fail(r, -EINVAL, "expected an escape, the line ends");
	if (*r->p != 'u') {
		at = *r->p == '\0' ? NULL : strchr(from, *r->p);
		if (at == NULL)
			return fail(r, -EINVAL,
				    "expected one of \" \\ / b f n r t u after a backslash");
		*(*out)++ = to[at - from];
		r->p++;
		return 0;
	}
	c = hex4(r->p + 1, r->end);
	if (c < 0)
		return fail(r, -EINVAL, "expected four hex digits after \\u");
	r->p += 5;
	if (c >= 0xd800 && c < 0xe000) {
		low = r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u'
			      ? hex4(r->p + 2, r->end)
			      : -1;
		if (c >= 0xdc00 || low < 0xdc00 || low > 0xdfff)
			return fail(r, -EINVAL, "expected a pair of surrogates");
		c = 0x10000 + (c - 0xd800) * 0x400 + (low - 0xdc00);
		r->p += 6;
	}
	*out = utf8_put(*out, (uint32_t)c);
	return 0;
}

/* The rest of a string from its first escape on; what stands before it begins at `from`. */
static int
scan_string_escaped(struct reader *r, const char *from, struct text *t)
{
	char *start = scratch_room(r);
	char *out = start;
	int rc;

	if (start == NULL)
		return fail(r, -ENOMEM, "no memory");
	memcpy(out, from, (size_t)(r->p - from));
	out += r->p - from;
	while (r->p < r->end && *r->p != '"') {
		uint8_t c = (uint8_t)*r->p;
		size_t n;

		if (c == '\\') {
			r->p++;
			rc = scan_escape(r, &out);
			if (rc != 0)
				return rc;
			continue;
		}
		n = c < 0x20 ? 0 : utf8_char((const uint8_t *)r->p, (size_t)(r->end - r->p));
		if (n == 0)
			return fail(r, -EINVAL, "expected UTF-8 without control characters");
		memcpy(out, r->p, n);
		out += n;
		r->p += n;
	}
	if (!take(r, '"'))
		return fail(r, -EINVAL, "expected \" at the end of a string, the line ends");
	t->p = start;
	t->len = (uint32_t)(out - start);
	r->scratch_used += t->len;
	return 0;
}

/* A string. It points into the line, or into the scratch buffer if it has escapes. */
static int
scan_string(struct reader *r, struct text *t)
{
	const char *from;

	if (!take(r, '"'))
		return fail(r, -EINVAL, "expected a string");
	from = r->p;
	while (r->p < r->end && *r->p != '"') {
		uint8_t c = (uint8_t)*r->p;
		size_t n = 1;

		if (c == '\\')
			return scan_string_escaped(r, from, t);
		if (c < 0x20 || c >= 0x80) {
			n = c < 0x20 ? 0
				     : utf8_char((const uint8_t *)r->p, (size_t)(r->end - r->p));
			if (n == 0)
				return fail(r, -EINVAL,
					    "expected UTF-8 without control characters");
		}
		r->p += n;
	}
	t->p = from;
	t->len = (uint32_t)(r->p - from);
	if (!take(r, '"'))
		return fail(r, -EINVAL, "expected \" at the end of a string, the line ends");
	return 0;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* An unsigned integer, plain or as a string of digits. */
static int
scan_u64(struct reader *r, uint64_t *out)
{
	bool quoted = take(r, '"');
	const char *from = r->p;
	uint64_t v = 0;

	for (; r->p < r->end && is_digit(*r->p); r->p++) {
		uint64_t d = (uint64_t)(*r->p - '0');

		if (v > (UINT64_MAX - d) / 10)
			return fail(r, -EINVAL, "expected an unsigned integer below 2^64");
		v = v * 10 + d;
	}
	if (r->p == from || (r->p - from > 1 && *from == '0') || (quoted && !take(r, '"')) ||
	    (!quoted && r->p < r->end && (*r->p == '.' || *r->p == 'e' || *r->p == 'E')))
		return fail(r, -EINVAL, "expected an unsigned integer below 2^64");
	*out = v;
	return 0;
}

static bool
take_digits(struct reader *r)
{
	const char *from = r->p;

	while (r->p < r->end && is_digit(*r->p))
		r->p++;
	return r->p > from;
}

/* Any JSON number, for fields that are skipped. */
static bool
skip_number(struct reader *r)
{
	take(r, '-');
	if (!take(r, '0') && !take_digits(r))
		return false;
	if (take(r, '.') && !take_digits(r))
		return false;
	if (take(r, 'e') || take(r, 'E')) {
		if (!take(r, '-'))
			take(r, '+');
		return take_digits(r);
	}
	return true;
}

static bool
take_word(struct reader *r, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
		return false;
	r->p += n;
	return true;
}

/* The value of a field that we do not know. Nested ones are refused, which keeps this loop-free. */
static int
skip_value(struct reader *r)
{
	struct text t;

	if (r->p < r->end && *r->p == '"')
		return scan_string(r, &t);
	if (take_word(r, "true") || take_word(r, "false") || take_word(r, "null") || skip_number(r))
		return 0;
	return fail(r, -EINVAL, "expected a string, a number, true, false or null");
}

static int32_t
base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (is_digit(c))
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/*
 * A string of base64, decoded. Padding is required and unused bits are zero, so that each value has
 * one text.
 */
static int
scan_base64(struct reader *r, struct text *t)
{
	struct text in;
	uint32_t pad = 0;
	uint32_t bits = 0;
	char *out;
	int rc = scan_string(r, &in);

	if (rc != 0)
		return rc;
	if (in.len % 4 != 0)
		return fail(r, -EINVAL, "expected base64 with padding");
	while (pad < 2 && pad < in.len && in.p[in.len - 1 - pad] == '=')
		pad++;
	out = scratch_room(r);
	if (out == NULL)
		return fail(r, -ENOMEM, "no memory");
	t->p = out;
	for (uint32_t i = 0; i < in.len; i++) {
		int32_t d = i < in.len - pad ? base64_digit(in.p[i]) : 0;

		if (d < 0)
			return fail(r, -EINVAL, "expected base64 with padding");
		bits = bits << 6 | (uint32_t)d;
		if (i % 4 == 3) {
			*out++ = (char)(bits >> 16);
			*out++ = (char)(bits >> 8);
			*out++ = (char)bits;
		}
	}
	for (uint32_t i = 0; i < pad; i++) {
		if (*--out != 0)
			return fail(r, -EINVAL, "expected base64 whose unused bits are zero");
	}
	t->len = (uint32_t)(out - t->p);
	r->scratch_used += t->len;
	return 0;
}

/* --- reader: events --------------------------------------------------------------------------- */

enum field {
	FIELD_T = 0,
	FIELD_CLIENT,
	FIELD_REQ,
	FIELD_TYPE,
	FIELD_OP,
	FIELD_KEY,
	FIELD_KEY64,
	FIELD_VALUE,
	FIELD_VALUE64,
	FIELD_EXPECT,
	FIELD_VERSION,
	FIELD_NODE,
	FIELD_STATUS,
	FIELD_DELTA,
	FIELD_NUMBER,
	N_FIELDS,
};

static const char *const field_names[N_FIELDS] = {
	"t",       "client", "req",     "type", "op",     "key",   "key64",  "value",
	"value64", "expect", "version", "node", "status", "delta", "number",
};

struct event {
	uint32_t present; /* mask of fields */
	enum chp_history_kind kind;
	enum chp_history_outcome type; /* OPEN stands for invoke */
	enum chp_history_status status;
	uint64_t number[N_FIELDS]; /* by field */
	struct text key;
	struct text value; /* p is NULL for null */
};

static bool
has(const struct event *e, enum field f)
{
	return (e->present & 1u << f) != 0;
}

static bool
text_is(const struct text *t, const char *word)
{
	size_t n = strlen(word);

	return t->len == n && memcmp(t->p, word, n) == 0;
}

static int
scan_type(struct reader *r, struct event *e)
{
	struct text t;
	int rc = scan_string(r, &t);

	if (rc != 0)
		return rc;
	e->type = CHP_HISTORY_OPEN;
	if (text_is(&t, "invoke"))
		return 0;
	for (uint32_t i = CHP_HISTORY_OK; i < N_OUTCOMES; i++) {
		if (text_is(&t, outcome_names[i])) {
			e->type = (enum chp_history_outcome)i;
			return 0;
		}
	}
	return fail(r, -EINVAL, "expected invoke, ok, fail or unknown");
}

static int
scan_kind(struct reader *r, struct event *e)
{
	struct text t;
	int rc = scan_string(r, &t);

	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < CHP_HISTORY_N_KINDS; i++) {
		if (text_is(&t, kind_names[i])) {
			e->kind = (enum chp_history_kind)i;
			return 0;
		}
	}
	return fail(r, -EINVAL,
		    "expected get, put, delete, cas, add, replace, append, prepend, incr or decr");
}

static int
scan_status(struct reader *r, struct event *e)
{
	struct text t;
	int rc = scan_string(r, &t);

	if (rc != 0)
		return rc;
	e->status = CHP_HISTORY_STATUS_OTHER;
	for (uint32_t i = CHP_HISTORY_NOT_FOUND; i < CHP_HISTORY_STATUS_OTHER; i++) {
		if (text_is(&t, status_names[i]))
			e->status = (enum chp_history_status)i;
	}
	return 0;
}

static int
scan_field(struct reader *r, struct event *e, enum field f)
{
	switch (f) {
	case FIELD_TYPE:
		return scan_type(r, e);
	case FIELD_OP:
		return scan_kind(r, e);
	case FIELD_STATUS:
		return scan_status(r, e);
	case FIELD_KEY:
		return scan_string(r, &e->key);
	case FIELD_KEY64:
		return scan_base64(r, &e->key);
	case FIELD_VALUE:
		if (take_word(r, "null"))
			return 0;
		return scan_string(r, &e->value);
	case FIELD_VALUE64:
		return scan_base64(r, &e->value);
	case FIELD_T:
	case FIELD_CLIENT:
	case FIELD_REQ:
	case FIELD_EXPECT:
	case FIELD_VERSION:
	case FIELD_NODE:
	case FIELD_DELTA:
	case FIELD_NUMBER:
	case N_FIELDS:
		break;
	}
	return scan_u64(r, &e->number[f]);
}

/* Name, colon and value of one member of the object. */
static int
scan_member(struct reader *r, struct event *e)
{
	char shown[FIELD_NAME_BYTES + 1];
	struct text name;
	uint32_t f = 0;
	uint32_t n;
	int rc;

	r->field = NULL;
	skip_space(r);
	rc = scan_string(r, &name);
	if (rc != 0)
		return rc;
	while (f < N_FIELDS && !text_is(&name, field_names[f]))
		f++;
	for (n = 0; n < name.len && n < FIELD_NAME_BYTES; n++)
		shown[n] = name.p[n] >= ' ' && name.p[n] <= '~' ? name.p[n] : '?';
	shown[n] = '\0';
	r->field = shown;
	skip_space(r);
	if (!take(r, ':'))
		rc = fail(r, -EINVAL, "expected :");
	skip_space(r);
	if (rc == 0 && f == N_FIELDS)
		rc = skip_value(r);
	else if (rc == 0 && has(e, (enum field)f))
		rc = fail(r, -EINVAL, "expected once");
	else if (rc == 0)
		rc = scan_field(r, e, (enum field)f);
	r->field = NULL;
	if (f < N_FIELDS)
		e->present |= 1u << f;
	return rc;
}

static int
scan_object(struct reader *r, struct event *e)
{
	int rc;

	if (!take(r, '{'))
		return fail(r, -EINVAL, "expected { at the start of an event");
	skip_space(r);
	if (!take(r, '}')) {
		do {
			rc = scan_member(r, e);
			if (rc != 0)
				return rc;
			skip_space(r);
		} while (take(r, ','));
		if (!take(r, '}'))
			return fail(r, -EINVAL, "expected , or }");
	}
	skip_space(r);
	if (r->p != r->end)
		return fail(r, -EINVAL, "expected nothing after the event");
	return 0;
}

/* Where operation (client, req) is or would go in the index. */
static uint32_t
open_slot(const struct reader *r, uint64_t client, uint64_t req)
{
	uint32_t mask = r->slots_cap - 1;
	uint32_t i = (uint32_t)mix64(mix64(client) + req) & mask;

	while (r->slot[i] != 0) {
		const struct chp_history_op *op = &r->h->op[r->slot[i] - 1];

		if (op->client == client && op->req == req)
			break;
		i = (i + 1) & mask;
	}
	return i;
}

static int
open_slots_grow(struct reader *r)
{
	uint32_t cap = r->slots_cap == 0 ? 1024 : r->slots_cap * 2;
	uint32_t *slot;

	if (r->h->n_ops < r->slots_cap / 2)
		return 0;
	if (cap == 0)
		return fail(r, -EOVERFLOW, "expected fewer operations");
	slot = calloc(cap, sizeof(*slot));
	if (slot == NULL)
		return fail(r, -ENOMEM, "no memory");
	free(r->slot);
	r->slot = slot;
	r->slots_cap = cap;
	for (uint32_t i = 0; i < r->h->n_ops; i++)
		r->slot[open_slot(r, r->h->op[i].client, r->h->op[i].req)] = i + 1;
	return 0;
}

static int
need(struct reader *r, bool present, const char *what)
{
	return present ? 0 : fail(r, -EINVAL, "expected %s", what);
}

/* What every event needs, whatever it is. */
static int
check_event(struct reader *r, const struct event *e)
{
	static const enum field wanted[] = { FIELD_T, FIELD_CLIENT, FIELD_REQ, FIELD_TYPE };

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		if (!has(e, wanted[i]))
			return fail(r, -EINVAL, "expected field \"%s\"", field_names[wanted[i]]);
	}
	if (has(e, FIELD_KEY) && has(e, FIELD_KEY64))
		return fail(r, -EINVAL, "expected only one of key and key64");
	if (has(e, FIELD_VALUE) && has(e, FIELD_VALUE64))
		return fail(r, -EINVAL, "expected only one of value and value64");
	if (has(e, FIELD_NODE) && e->number[FIELD_NODE] >= CHP_HISTORY_NONE)
		return fail(r, -EINVAL, "field \"node\": expected a number below 2^32 - 1");
	return 0;
}

static int
on_invoke(struct reader *r, const struct event *e)
{
	struct chp_history_call c = {
		.t_ns = e->number[FIELD_T],
		.client = e->number[FIELD_CLIENT],
		.req = e->number[FIELD_REQ],
		.kind = e->kind,
		.node = has(e, FIELD_NODE) ? (uint32_t)e->number[FIELD_NODE] : CHP_HISTORY_NONE,
		.key = e->key.p,
		.key_len = e->key.len,
		.value = e->value.p,
		.value_len = e->value.len,
		.arg = e->number[e->kind == CHP_HISTORY_CAS ? FIELD_EXPECT : FIELD_DELTA],
	};
	bool value = has(e, FIELD_VALUE) || has(e, FIELD_VALUE64);
	uint32_t slot;
	int64_t idx;
	int rc;

	if ((rc = need(r, has(e, FIELD_OP), "field \"op\"")) != 0 ||
	    (rc = need(r, e->key.p != NULL, "field \"key\" or \"key64\"")) != 0 ||
	    (rc = need(r, !kind_has_value(e->kind) || e->value.p != NULL,
		       "field \"value\" or \"value64\" in the invocation of a write")) != 0 ||
	    (rc = need(r, kind_has_value(e->kind) || !value,
		       "no value in the invocation of get, delete, incr and decr")) != 0 ||
	    (rc = need(r, (e->kind == CHP_HISTORY_CAS) == has(e, FIELD_EXPECT),
		       "field \"expect\" in the invocation of cas, and only there")) != 0 ||
	    (rc = need(r, kind_has_delta(e->kind) == has(e, FIELD_DELTA),
		       "field \"delta\" in the invocation of incr and decr, and only there")) !=
		    0 ||
	    (rc = open_slots_grow(r)) != 0)
		return rc;
	slot = open_slot(r, c.client, c.req);
	if (r->slot[slot] != 0)
		return fail(r, -EINVAL,
			    "expected a new request, client %" PRIu64 " has invoked %" PRIu64,
			    c.client, c.req);
	idx = chp_history_invoke(r->h, &c);
	if (idx < 0)
		return fail(r, (int)idx, "%s",
			    idx == -ENOMEM ? "no memory" : "expected fewer operations");
	r->slot[slot] = (uint32_t)idx + 1;
	return 0;
}

/* A completion may repeat what its invocation said; then it has to be the same. */
static int
check_repeats(struct reader *r, const struct event *e, const struct chp_history_op *op)
{
	const struct chp_history_key *key = &r->h->key[op->key];

	if (has(e, FIELD_OP) && e->kind != op->kind)
		return fail(r, -EINVAL, "field \"op\": expected %s as in the invocation",
			    kind_names[op->kind]);
	if (e->key.p != NULL &&
	    (e->key.len != key->len || memcmp(e->key.p, key->bytes, key->len) != 0))
		return fail(r, -EINVAL, "field \"key\": expected the key of the invocation");
	if (e->type == CHP_HISTORY_OK && op->kind == CHP_HISTORY_GET)
		return need(
			r, has(e, FIELD_VALUE) || has(e, FIELD_VALUE64),
			"field \"value\" or \"value64\" in an ok get, null if it found nothing");
	if (e->value.p != NULL && (op->value == NULL || e->value.len != op->value_len ||
				   memcmp(e->value.p, op->value, op->value_len) != 0))
		return fail(r, -EINVAL,
			    "field \"value\": expected that of the invocation, or none");
	return 0;
}

static int
on_completion(struct reader *r, const struct event *e)
{
	struct chp_history_result res = {
		.t_ns = e->number[FIELD_T],
		.outcome = e->type,
		.status = e->status,
		.node = has(e, FIELD_NODE) ? (uint32_t)e->number[FIELD_NODE] : CHP_HISTORY_NONE,
		.version = e->number[FIELD_VERSION],
		.number = e->number[FIELD_NUMBER],
		.has_number = has(e, FIELD_NUMBER),
	};
	const struct chp_history_op *op;
	uint32_t idx;
	int rc;

	if ((rc = open_slots_grow(r)) != 0)
		return rc;
	idx = r->slot[open_slot(r, e->number[FIELD_CLIENT], e->number[FIELD_REQ])];
	if (idx == 0)
		return fail(r, -EINVAL,
			    "expected an invocation before, client %" PRIu64
			    " has not invoked %" PRIu64,
			    e->number[FIELD_CLIENT], e->number[FIELD_REQ]);
	op = &r->h->op[--idx];
	if (op->outcome != CHP_HISTORY_OPEN)
		return fail(r, -EINVAL,
			    "expected one completion, request %" PRIu64 " of client %" PRIu64
			    " has one",
			    op->req, op->client);
	if (res.t_ns < op->invoke_ns)
		return fail(r, -EINVAL,
			    "field \"t\": expected at least %" PRIu64 ", the invocation's",
			    op->invoke_ns);
	rc = check_repeats(r, e, op);
	if (rc != 0)
		return rc;
	if (op->kind == CHP_HISTORY_GET && e->type == CHP_HISTORY_OK) {
		res.value = e->value.p;
		res.value_len = e->value.len;
	}
	rc = chp_history_complete(r->h, idx, &res);
	return rc == 0 ? 0 : fail(r, rc, "no memory");
}

/* One line without its line feed. Blank ones say nothing. */
static int
on_line(struct reader *r, const char *line, size_t len)
{
	struct event e = { .present = 0 };
	int rc;

	r->line++;
	r->field = NULL;
	r->p = line;
	r->end = line + len;
	r->line_len = len;
	r->scratch_used = 0;
	if (len > CHP_HISTORY_LINE_BYTES_MAX)
		return fail(r, -EINVAL, "expected at most %u bytes", CHP_HISTORY_LINE_BYTES_MAX);
	skip_space(r);
	if (r->p == r->end)
		return 0;
	if ((rc = scan_object(r, &e)) != 0 || (rc = check_event(r, &e)) != 0)
		return rc;
	return e.type == CHP_HISTORY_OPEN ? on_invoke(r, &e) : on_completion(r, &e);
}

static void
reader_init(struct reader *r, struct chp_history *h, struct chp_history_error *err)
{
	memset(r, 0, sizeof(*r));
	r->h = h;
	r->err = err;
	if (err != NULL)
		memset(err, 0, sizeof(*err));
	chp_history_reset(h);
}

static void
reader_fini(struct reader *r)
{
	free(r->scratch);
	free(r->slot);
}

int
chp_history_parse(struct chp_history *h, const char *text, size_t len,
		  struct chp_history_error *err)
{
	struct reader r;
	int rc = 0;

	reader_init(&r, h, err);
	while (rc == 0 && len > 0) {
		const char *feed = memchr(text, '\n', len);
		size_t n = feed == NULL ? len : (size_t)(feed - text);

		rc = on_line(&r, text, n);
		if (feed != NULL)
			n++;
		text += n;
		len -= n;
	}
	reader_fini(&r);
	return rc;
}

/* Make room to read on behind the `used` bytes of an unfinished line. */
static int
read_room(struct reader *r, char **buf, size_t *cap, size_t used)
{
	char *p;

	if (*cap - used >= READ_BYTES)
		return 0;
	if (used > CHP_HISTORY_LINE_BYTES_MAX) {
		r->line++;
		return fail(r, -EINVAL, "expected at most %u bytes", CHP_HISTORY_LINE_BYTES_MAX);
	}
	p = realloc(*buf, *cap * 2 + READ_BYTES);
	if (p == NULL)
		return fail(r, -ENOMEM, "no memory");
	*buf = p;
	*cap = *cap * 2 + READ_BYTES;
	return 0;
}

int
chp_history_read(struct chp_history *h, FILE *f, struct chp_history_error *err)
{
	struct reader r;
	char *buf = NULL;
	char *feed;
	size_t cap = 0;
	size_t used = 0;
	size_t from;
	size_t n;
	int rc;

	reader_init(&r, h, err);
	while ((rc = read_room(&r, &buf, &cap, used)) == 0) {
		n = fread(buf + used, 1, READ_BYTES, f);
		if (n == 0)
			break;
		from = 0;
		n += used;
		while (rc == 0 && (feed = memchr(buf + used, '\n', n - used)) != NULL) {
			used = (size_t)(feed - buf) + 1;
			rc = on_line(&r, buf + from, used - 1 - from);
			from = used;
		}
		used = n - from;
		memmove(buf, buf + from, used);
		if (rc != 0)
			break;
	}
	if (rc == 0 && used > 0)
		rc = on_line(&r, buf, used);
	if (rc == 0 && ferror(f))
		rc = fail(&r, -EIO, "expected more, reading failed");
	free(buf);
	reader_fini(&r);
	return rc;
}

/* --- writer ----------------------------------------------------------------------------------- */

/* Text that may not fit: len counts all of it, as snprintf does. */
struct out {
	char *buf;
	size_t cap;
	size_t len;
};

static void
out_bytes(struct out *o, const void *p, size_t n)
{
	if (o->len < o->cap)
		memcpy(o->buf + o->len, p, n < o->cap - o->len ? n : o->cap - o->len);
	o->len += n;
}

static void
out_str(struct out *o, const char *s)
{
	out_bytes(o, s, strlen(s));
}

static void
out_u64(struct out *o, const char *name, uint64_t v)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%" PRIu64, v);

	out_str(o, name);
	out_bytes(o, text, (size_t)n);
}

static void
out_escaped(struct out *o, const uint8_t *p, size_t len)
{
	char text[8];
	size_t from = 0;

	for (size_t i = 0; i < len; i++) {
		if (p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')
			continue;
		out_bytes(o, p + from, i - from);
		from = i + 1;
		if (p[i] < 0x20)
			snprintf(text, sizeof(text), "\\u%04x", (unsigned int)p[i]);
		else
			snprintf(text, sizeof(text), "\\%c", p[i]);
		out_str(o, text);
	}
	out_bytes(o, p + from, len - from);
}

static void
out_base64(struct out *o, const uint8_t *p, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t bits = (uint32_t)p[i] << 16;
		char text[4];

		if (n > 1)
			bits |= (uint32_t)p[i + 1] << 8;
		if (n > 2)
			bits |= p[i + 2];
		for (size_t k = 0; k < 4; k++)
			text[k] = k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
		out_bytes(o, text, 4);
	}
}

/* ,"name":"..." or ,"name64":"..." */
static void
out_field(struct out *o, const char *name, const void *p, size_t len)
{
	bool plain = chp_history_is_utf8(p, len);

	out_str(o, ",\"");
	out_str(o, name);
	out_str(o, plain ? "\":\"" : "64\":\"");
	if (plain)
		out_escaped(o, p, len);
	else
		out_base64(o, p, len);
	out_str(o, "\"");
}

/* What all events begin with. */
static void
out_head(struct out *o, const struct chp_history_call *c, uint64_t t_ns, const char *type)
{
	assert((uint32_t)c->kind < CHP_HISTORY_N_KINDS);
	out_u64(o, "{\"t\":", t_ns);
	out_u64(o, ",\"client\":", c->client);
	out_u64(o, ",\"req\":", c->req);
	out_str(o, ",\"type\":\"");
	out_str(o, type);
	out_str(o, "\",\"op\":\"");
	out_str(o, kind_names[c->kind]);
	out_str(o, "\"");
	out_field(o, "key", c->key_len == 0 ? "" : c->key, c->key_len);
}

static size_t
out_tail(struct out *o, uint32_t node)
{
	if (node != CHP_HISTORY_NONE)
		out_u64(o, ",\"node\":", node);
	out_str(o, "}\n");
	if (o->cap > 0)
		o->buf[o->len < o->cap ? o->len : o->cap - 1] = '\0';
	return o->len;
}

size_t
chp_history_format_call(const struct chp_history_call *c, char *buf, size_t cap)
{
	struct out o = { .buf = buf, .cap = cap };

	out_head(&o, c, c->t_ns, "invoke");
	if (kind_has_value(c->kind))
		out_field(&o, "value", c->value, c->value_len);
	if (c->kind == CHP_HISTORY_CAS)
		out_u64(&o, ",\"expect\":", c->arg);
	if (kind_has_delta(c->kind))
		out_u64(&o, ",\"delta\":", c->arg);
	return out_tail(&o, c->node);
}

size_t
chp_history_format_result(const struct chp_history_call *c, const struct chp_history_result *r,
			  char *buf, size_t cap)
{
	struct out o = { .buf = buf, .cap = cap };

	assert(r->outcome > CHP_HISTORY_OPEN && (uint32_t)r->outcome < N_OUTCOMES);
	out_head(&o, c, r->t_ns, outcome_names[r->outcome]);
	if (r->outcome == CHP_HISTORY_OK && c->kind == CHP_HISTORY_GET) {
		if (r->value == NULL)
			out_str(&o, ",\"value\":null");
		else
			out_field(&o, "value", r->value, r->value_len);
	}
	if (r->outcome == CHP_HISTORY_FAIL && r->status != CHP_HISTORY_STATUS_NONE) {
		out_str(&o, ",\"status\":\"");
		out_str(&o, chp_history_status_name(r->status));
		out_str(&o, "\"");
	}
	if (r->version != CHP_HISTORY_NO_VERSION)
		out_u64(&o, ",\"version\":", r->version);
	if (r->has_number)
		out_u64(&o, ",\"number\":", r->number);
	return out_tail(&o, r->node != CHP_HISTORY_NONE ? r->node : c->node);
}

/*
 * One line, whose text a first try has put into `text` as far as it fits; r is NULL for an
 * invocation.
 */
static int
write_line(FILE *f, const struct chp_history_call *c, const struct chp_history_result *r)
{
	char text[FORMAT_BYTES];
	char *buf = text;
	size_t cap = sizeof(text);
	size_t len;
	int rc = 0;

	for (;;) {
		len = r == NULL ? chp_history_format_call(c, buf, cap)
				: chp_history_format_result(c, r, buf, cap);
		if (len < cap)
			break;
		assert(buf == text);
		cap = len + 1;
		buf = malloc(cap);
		if (buf == NULL)
			return -ENOMEM;
	}
	if (fwrite(buf, 1, len, f) != len)
		rc = -EIO;
	if (buf != text)
		free(buf);
	return rc;
}

int
chp_history_write_call(FILE *f, const struct chp_history_call *c)
{
	return write_line(f, c, NULL);
}

int
chp_history_write_result(FILE *f, const struct chp_history_call *c,
			 const struct chp_history_result *r)
{
	return write_line(f, c, r);
}

/* An event of the history, to be sorted by time. */
struct moment {
	uint64_t t_ns;
	uint32_t idx;
	uint32_t completion; /* 0: invocation; 1: completion, which comes after at one moment */
};

static int
by_moment(const void *a, const void *b)
{
	const struct moment *x = a;
	const struct moment *y = b;

	if (x->t_ns != y->t_ns)
		return x->t_ns < y->t_ns ? -1 : 1;
	if (x->completion != y->completion)
		return x->completion < y->completion ? -1 : 1;
	return x->idx < y->idx ? -1 : x->idx > y->idx;
}

static int
write_moment(const struct chp_history *h, const struct moment *m, FILE *f)
{
	const struct chp_history_op *op = &h->op[m->idx];
	const struct chp_history_key *key = &h->key[op->key];
	bool own_value = kind_has_value(op->kind);
	struct chp_history_call c = {
		.t_ns = op->invoke_ns,
		.client = op->client,
		.req = op->req,
		.kind = (enum chp_history_kind)op->kind,
		.node = op->node,
		.key = key->bytes,
		.key_len = key->len,
		.value = own_value ? op->value : NULL,
		.value_len = own_value ? op->value_len : 0,
		.arg = op->arg,
	};
	struct chp_history_result r = {
		.t_ns = op->complete_ns,
		.outcome = (enum chp_history_outcome)op->outcome,
		.status = (enum chp_history_status)op->status,
		.node = op->node,
		.value = own_value ? NULL : op->value,
		.value_len = own_value ? 0 : op->value_len,
		.version = op->version,
		.number = op->number,
		.has_number = op->has_number,
	};

	return m->completion ? write_line(f, &c, &r) : write_line(f, &c, NULL);
}

int
chp_history_write(const struct chp_history *h, FILE *f)
{
	struct moment *m;
	size_t n = 0;
	int rc = 0;

	if (h->n_ops == 0)
		return 0;
	m = malloc((size_t)h->n_ops * 2 * sizeof(*m));
	if (m == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < h->n_ops; i++) {
		m[n++] = (struct moment){ .t_ns = h->op[i].invoke_ns, .idx = i };
		if (h->op[i].outcome != CHP_HISTORY_OPEN)
			m[n++] = (struct moment){ .t_ns = h->op[i].complete_ns,
						  .idx = i,
						  .completion = 1 };
	}
	qsort(m, n, sizeof(*m), by_moment);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = write_moment(h, &m[i], f);
	free(m);
	return rc;
}
