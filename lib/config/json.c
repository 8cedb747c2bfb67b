/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/json.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one message shows of a file's name, a key, a value: 256 bytes must hold them and a text. */
#define SHOW_FILE_BYTES 96u
#define SHOW_KEY_BYTES 48u
#define SHOW_VALUE_BYTES 40u
/* Ancestors that the path of a duplicate key shows; ours need three. */
#define SHOW_DEPTH 6u

/* ---- text of bounded length ---- */

struct chp_line
chp_line_init(char *buffer, size_t size)
{
	CHP_ASSERT_OP(size, >=, 4);
	buffer[0] = '\0';
	return (struct chp_line){ .at = buffer, .size = size };
}

void
chp_line_vadd(struct chp_line *t, const char *format, va_list args)
{
	size_t room = t->size - t->len;
	int n;

	if (t->cut)
		return;
	n = vsnprintf(t->at + t->len, room, format, args);
	if (n < 0)
		n = 0;
	if ((size_t)n >= room) {
		t->cut = true;
		n = (int)room - 1;
		memcpy(t->at + t->size - 4, "...", 4);
	}
	for (size_t i = t->len; i < t->len + (size_t)n; i++) {
		unsigned char c = (unsigned char)t->at[i];

		if (c < 0x20 || c == 0x7f)
			t->at[i] = '?';
	}
	t->len += (size_t)n;
}

void
chp_line_add(struct chp_line *t, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	chp_line_vadd(t, format, args);
	va_end(args);
}

/* Bytes of the file: at most max of them, what is not printable ASCII as '?'. */
static void
add_foreign(struct chp_line *t, const char *bytes, size_t len, size_t max)
{
	size_t n = len <= max ? len : max - 3;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)bytes[i];

		chp_line_add(t, "%c", c < 0x20 || c >= 0x7f ? '?' : c);
	}
	if (n < len)
		chp_line_add(t, "...");
}

/* The end of a long path says more than its beginning. */
static void
add_file(struct chp_line *t, const char *file)
{
	size_t len = strlen(file);
	const char *from = file;

	if (len > SHOW_FILE_BYTES) {
		from = file + len - (SHOW_FILE_BYTES - 3);
		while ((*from & 0xc0) == 0x80) /* not inside a UTF-8 character */
			from++;
		chp_line_add(t, "...");
	}
	chp_line_add(t, "%s", from);
}

/* ---- errors ---- */

/* A text to write one more error into; false: there are too many, it is only counted. */
static bool
error_begin(struct chp_config_errors *errors, const char *file, uint32_t line, struct chp_line *t)
{
	if (errors->n >= CHP_CONFIG_ERRORS_MAX) {
		errors->n++;
		return false;
	}
	*t = chp_line_init(errors->text[errors->n++], CHP_CONFIG_ERROR_BYTES);
	add_file(t, file);
	if (line > 0)
		chp_line_add(t, ":%u", line);
	chp_line_add(t, ": ");
	return true;
}

__attribute__((format(printf, 4, 5))) static void
error_in_file(struct chp_config_errors *errors, const char *file, uint32_t line, const char *format,
	      ...)
{
	struct chp_line t;
	va_list args;

	if (!error_begin(errors, file, line, &t))
		return;
	va_start(args, format);
	chp_line_vadd(&t, format, args);
	va_end(args);
}

/* ---- keys as they stand in the text ---- */

/* Gives the bytes of a key one by one, escapes resolved, as jansson stores them. */
struct key_reader {
	const char *at, *end;
	bool plain;   /* no escapes: already resolved */
	uint8_t n, i; /* bytes of an escape still to give */
	unsigned char pending[4];
};

static uint32_t
hex4(const char *s)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++) {
		unsigned char c = (unsigned char)s[i];
		uint32_t digit = 0;

		if (c >= '0' && c <= '9')
			digit = c - (uint32_t)'0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (c | 0x20u) - 'a' + 10;
		v = v << 4 | digit;
	}
	return v;
}

static void
pend_utf8(struct key_reader *r, uint32_t c)
{
	uint8_t n = 0;

	if (c < 0x80) {
		r->pending[n++] = (unsigned char)c;
	} else if (c < 0x800) {
		r->pending[n++] = (unsigned char)(0xc0 | c >> 6);
	} else if (c < 0x10000) {
		r->pending[n++] = (unsigned char)(0xe0 | c >> 12);
		r->pending[n++] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
	} else {
		r->pending[n++] = (unsigned char)(0xf0 | (c >> 18 & 7));
		r->pending[n++] = (unsigned char)(0x80 | (c >> 12 & 0x3f));
		r->pending[n++] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
	}
	if (c >= 0x80)
		r->pending[n++] = (unsigned char)(0x80 | (c & 0x3f));
	r->n = n;
	r->i = 0;
}

/* r->at stands behind a backslash. */
static void
pend_escape(struct key_reader *r)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *simple;
	uint32_t c;

	if (r->at == r->end)
		return;
	c = (unsigned char)*r->at++;
	if (c == 'u' && r->end - r->at >= 4) {
		c = hex4(r->at);
		r->at += 4;
		if (c >= 0xd800 && c < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\') {
			c = 0x10000 + ((c & 0x3ff) << 10 | (hex4(r->at + 2) & 0x3ff));
			r->at += 6;
		}
	} else {
		simple = c != 0 ? strchr(from, (int)c) : NULL;
		if (simple)
			c = (unsigned char)to[simple - from];
	}
	pend_utf8(r, c);
}

/* The next byte, -1 at the end. */
static int
key_next(struct key_reader *r)
{
	if (r->i < r->n)
		return r->pending[r->i++];
	if (r->at == r->end)
		return -1;
	if (*r->at != '\\' || r->plain)
		return (unsigned char)*r->at++;
	r->at++;
	pend_escape(r);
	return r->i < r->n ? r->pending[r->i++] : -1;
}

static int
key_compare(struct key_reader *a, struct key_reader *b)
{
	int x, y;

	do {
		x = key_next(a);
		y = key_next(b);
	} while (x == y && x != -1);
	return x - y;
}

static struct key_reader
key_reader_of(const char *text, const struct chp_json_node *node)
{
	return (struct key_reader){ .at = text + node->key_at,
				    .end = text + node->key_at + node->key_len };
}

/* ---- the index of positions ---- */

/* State of the one pass over the text. */
struct scan {
	const char *text;
	uint32_t len, at, line;
	uint32_t container; /* the object or list that is open; CHP_JSON_NONE outside */
	bool has_key;       /* the key of the next value was read */
	uint32_t key_at, key_len, key_line;
};

static bool
add_node(struct chp_json_index *index, struct scan *s, uint32_t at, uint32_t len)
{
	struct chp_json_node *node;
	uint32_t id = index->n;

	if (id == index->capacity) {
		uint32_t capacity = index->capacity ? index->capacity * 2 : 64;
		void *grown = realloc(index->node, capacity * sizeof(*index->node));

		if (!grown)
			return false;
		index->node = grown;
		index->capacity = capacity;
	}
	node = &index->node[index->n++];
	*node = (struct chp_json_node){ .parent = s->container,
					.next = CHP_JSON_NONE,
					.child = CHP_JSON_NONE,
					.last_child = CHP_JSON_NONE,
					.key_at = CHP_JSON_NONE,
					.value_at = at,
					.value_len = len,
					.line = s->line };
	if (s->has_key) {
		node->key_at = s->key_at;
		node->key_len = s->key_len;
		node->line = s->key_line;
		s->has_key = false;
	}
	if (s->container != CHP_JSON_NONE) {
		struct chp_json_node *parent = &index->node[s->container];

		if (parent->child == CHP_JSON_NONE)
			parent->child = id;
		else
			index->node[parent->last_child].next = id;
		parent->last_child = id;
	}
	return true;
}

/* From the opening quote to behind the closing one. The bytes between the two are [from, to). */
static void
scan_string(struct scan *s, uint32_t *from, uint32_t *to)
{
	*from = ++s->at;
	while (s->at < s->len && s->text[s->at] != '"') {
		if (s->text[s->at] == '\n') /* jansson refuses it, but keep counting */
			s->line++;
		s->at += s->text[s->at] == '\\' && s->at + 1 < s->len ? 2 : 1;
	}
	*to = s->at;
	if (s->at < s->len)
		s->at++;
}

static bool
scan_value_string(struct chp_json_index *index, struct scan *s)
{
	uint32_t line = s->line, from, to;
	bool in_object =
		s->container != CHP_JSON_NONE && s->text[index->node[s->container].value_at] == '{';

	scan_string(s, &from, &to);
	if (in_object && !s->has_key) {
		s->has_key = true;
		s->key_at = from;
		s->key_len = to - from;
		s->key_line = line;
		return true;
	}
	return add_node(index, s, from - 1, s->at - (from - 1));
}

/* A number, true, false or null. */
static bool
scan_word(struct chp_json_index *index, struct scan *s)
{
	uint32_t from = s->at;

	while (s->at < s->len && s->text[s->at] && !strchr(" \t\r\n,:[]{}\"", s->text[s->at]))
		s->at++;
	if (s->at == from)
		s->at++; /* a byte that JSON does not have */
	return add_node(index, s, from, s->at - from);
}

static bool
scan_token(struct chp_json_index *index, struct scan *s)
{
	struct chp_json_node *open;

	switch (s->text[s->at]) {
	case '\n':
		s->line++;
		s->at++;
		return true;
	case ' ':
	case '\t':
	case '\r':
	case ',':
	case ':':
		s->at++;
		return true;
	case '{':
	case '[':
		if (!add_node(index, s, s->at, s->len - s->at))
			return false;
		s->container = index->n - 1;
		s->at++;
		return true;
	case '}':
	case ']':
		s->at++;
		if (s->container != CHP_JSON_NONE) {
			open = &index->node[s->container];
			open->value_len = s->at - open->value_at;
			s->container = open->parent;
			s->has_key = false;
		}
		return true;
	case '"':
		return scan_value_string(index, s);
	default:
		return scan_word(index, s);
	}
}

bool
chp_json_index_init(struct chp_json_index *index, const char *text, size_t len)
{
	struct scan s = { .text = text, .len = (uint32_t)len, .line = 1 };

	CHP_ASSERT_OP(len, <=, CHP_JSON_BYTES_MAX);
	s.container = CHP_JSON_NONE;
	*index = (struct chp_json_index){ 0 };
	while (s.at < s.len) {
		if (!scan_token(index, &s))
			return false;
	}
	return true;
}

void
chp_json_index_fini(struct chp_json_index *index)
{
	free(index->node);
	*index = (struct chp_json_index){ 0 };
}

static uint32_t
find_key(const struct chp_json_index *index, const char *text, uint32_t node, const char *key,
	 size_t len)
{
	uint32_t child;

	if (node >= index->n)
		return CHP_JSON_NONE;
	for (child = index->node[node].child; child != CHP_JSON_NONE;
	     child = index->node[child].next) {
		struct key_reader want = { .at = key, .end = key + len, .plain = true };
		struct key_reader have;

		if (index->node[child].key_at == CHP_JSON_NONE)
			continue;
		have = key_reader_of(text, &index->node[child]);
		if (key_compare(&have, &want) == 0)
			return child;
	}
	return CHP_JSON_NONE;
}

uint32_t
chp_json_index_key(const struct chp_json_index *index, const char *text, uint32_t node,
		   const char *key)
{
	return find_key(index, text, node, key, strlen(key));
}

uint32_t
chp_json_index_item(const struct chp_json_index *index, uint32_t node, uint32_t item)
{
	uint32_t child = CHP_JSON_NONE;

	if (node >= index->n)
		return CHP_JSON_NONE;
	for (child = index->node[node].child; child != CHP_JSON_NONE;
	     child = index->node[child].next) {
		if (index->node[child].key_at != CHP_JSON_NONE)
			return CHP_JSON_NONE;
		if (item-- == 0)
			return child;
	}
	return CHP_JSON_NONE;
}

uint32_t
chp_json_index_line(const struct chp_json_index *index, const char *text, const char *path)
{
	uint32_t node = 0;

	while (*path && node != CHP_JSON_NONE) {
		size_t n;

		if (*path == '[') {
			char *end;
			unsigned long item = strtoul(path + 1, &end, 10);

			if (*end != ']' || end == path + 1 || item >= CHP_JSON_BYTES_MAX)
				return 0;
			node = chp_json_index_item(index, node, (uint32_t)item);
			path = end + 1;
		} else {
			n = strcspn(path, ".[");
			node = find_key(index, text, node, path, n);
			path += n;
		}
		if (*path == '.')
			path++;
	}
	return node < index->n ? index->node[node].line : 0;
}

/* ---- duplicate keys ---- */

struct duplicate {
	uint32_t node, first;
};

struct duplicate_order {
	const struct chp_json_node *node;
	const char *text;
};

/* By object, then key, then position. */
static int
compare_by_key(const void *a, const void *b, void *order_arg)
{
	const struct duplicate_order *order = order_arg;
	uint32_t ia = ((const struct duplicate *)a)->node, ib = ((const struct duplicate *)b)->node;
	const struct chp_json_node *na = &order->node[ia], *nb = &order->node[ib];
	struct key_reader ra, rb;
	int c;

	if (na->parent != nb->parent)
		return na->parent < nb->parent ? -1 : 1;
	ra = key_reader_of(order->text, na);
	rb = key_reader_of(order->text, nb);
	c = key_compare(&ra, &rb);
	if (c != 0)
		return c;
	return (ia > ib) - (ia < ib);
}

static int
compare_by_node(const void *a, const void *b)
{
	uint32_t ia = ((const struct duplicate *)a)->node, ib = ((const struct duplicate *)b)->node;

	return (ia > ib) - (ia < ib);
}

/* The path of a key, as "members[1].address". */
static void
add_path(struct chp_line *t, const struct chp_json_index *index, const char *text, uint32_t node)
{
	uint32_t chain[SHOW_DEPTH], n = 0;

	for (; node != 0 && node != CHP_JSON_NONE; node = index->node[node].parent) {
		if (n == SHOW_DEPTH) {
			chp_line_add(t, "...");
			break;
		}
		chain[n++] = node;
	}
	while (n-- > 0) {
		const struct chp_json_node *at = &index->node[chain[n]];
		uint32_t item = 0;

		if (at->key_at != CHP_JSON_NONE) {
			chp_line_add(t, "%s", t->len > 0 && at->parent != 0 ? "." : "");
			add_foreign(t, text + at->key_at, at->key_len, SHOW_KEY_BYTES);
			continue;
		}
		for (uint32_t i = index->node[at->parent].child; i != chain[n];
		     i = index->node[i].next)
			item++;
		chp_line_add(t, "[%u]", item);
	}
}

static void
report_duplicates(struct chp_json_doc *doc)
{
	const struct chp_json_index *index = &doc->index;
	struct duplicate_order order = { index->node, doc->text };
	struct duplicate *d = calloc(index->n, sizeof(*d));
	uint32_t n = 0, found = 0;

	if (!d) {
		error_in_file(doc->errors, doc->file, 0, "not enough memory to read it");
		return;
	}
	for (uint32_t i = 0; i < index->n; i++) {
		if (index->node[i].key_at != CHP_JSON_NONE)
			d[n++].node = i;
	}
	qsort_r(d, n, sizeof(*d), compare_by_key, &order);
	for (uint32_t i = 1, first = 0; i < n; i++) {
		struct key_reader a = key_reader_of(doc->text, &index->node[d[first].node]);
		struct key_reader b = key_reader_of(doc->text, &index->node[d[i].node]);

		if (index->node[d[first].node].parent != index->node[d[i].node].parent ||
		    key_compare(&a, &b) != 0)
			first = i;
		else
			d[i].first = d[first].node + 1; /* 0: not a duplicate */
	}
	for (uint32_t i = 0; i < n; i++) {
		if (d[i].first != 0)
			d[found++] = d[i];
	}
	qsort(d, found, sizeof(*d), compare_by_node);
	for (uint32_t i = 0; i < found; i++) {
		char buffer[CHP_JSON_PATH_BYTES];
		struct chp_line path = chp_line_init(buffer, sizeof(buffer));

		if (doc->errors->n < CHP_CONFIG_ERRORS_MAX)
			add_path(&path, index, doc->text, d[i].node);
		error_in_file(doc->errors, doc->file, index->node[d[i].node].line,
			      "%s: key given twice; expected it once: it also stands on line %u",
			      buffer, index->node[d[i].first - 1].line);
	}
	free(d);
}

/* ---- documents and places ---- */

static void
report_syntax(const struct chp_json_doc *doc, const json_error_t *e)
{
	struct chp_line t;

	if (json_error_code(e) == json_error_out_of_memory) {
		error_in_file(doc->errors, doc->file, 0, "not enough memory to read it");
		return;
	}
	if (!error_begin(doc->errors, doc->file, e->line > 0 ? (uint32_t)e->line : 1, &t))
		return;
	chp_line_add(&t, "not JSON: ");
	add_foreign(&t, e->text, strnlen(e->text, sizeof(e->text) - 1), sizeof(e->text));
}

/* jansson stops at the first duplicate key. Read on without that rule to name all of them. */
static void
open_duplicates(struct chp_json_doc *doc, size_t len)
{
	json_error_t e;

	doc->root = json_loadb(doc->text, len, 0, &e);
	if (!doc->root)
		report_syntax(doc, &e);
	else if (!chp_json_index_init(&doc->index, doc->text, len))
		error_in_file(doc->errors, doc->file, 0, "not enough memory to read it");
	else
		report_duplicates(doc);
}

bool
chp_json_open(struct chp_json_doc *doc, const char *text, size_t len, const char *file,
	      struct chp_config_errors *errors)
{
	struct chp_json_place root;
	json_error_t e;

	*doc = (struct chp_json_doc){ .file = file, .text = len > 0 ? text : "", .errors = errors };
	doc->first_error = errors->n;
	if (len > CHP_JSON_BYTES_MAX) {
		error_in_file(errors, file, 0, "%zu bytes: expected at most %u", len,
			      CHP_JSON_BYTES_MAX);
		return false;
	}
	doc->root = json_loadb(doc->text, len, JSON_REJECT_DUPLICATES, &e);
	if (!doc->root && json_error_code(&e) == json_error_duplicate_key) {
		open_duplicates(doc, len);
		chp_json_close(doc);
		return false;
	}
	if (!doc->root) {
		report_syntax(doc, &e);
		return false;
	}
	if (!chp_json_index_init(&doc->index, doc->text, len)) {
		error_in_file(errors, file, 0, "not enough memory to read it");
		chp_json_close(doc);
		return false;
	}
	root = chp_json_root(doc);
	if (!json_is_object(doc->root)) {
		chp_json_error(&root, "expected an object, { \"key\": value, ... }");
		chp_json_close(doc);
		return false;
	}
	return true;
}

/* They were found kind by kind; a reader goes through the file from top to bottom. */
static void
sort_errors(struct chp_json_doc *doc)
{
	struct chp_config_errors *e = doc->errors;
	uint32_t n = chp_min_u32(e->n, CHP_CONFIG_ERRORS_MAX);

	for (uint32_t i = doc->first_error + 1; i < n; i++) {
		char text[CHP_CONFIG_ERROR_BYTES];
		uint32_t line = doc->line[i], j = i;

		memcpy(text, e->text[i], sizeof(text));
		for (; j > doc->first_error && doc->line[j - 1] > line; j--) {
			doc->line[j] = doc->line[j - 1];
			memcpy(e->text[j], e->text[j - 1], sizeof(text));
		}
		doc->line[j] = line;
		memcpy(e->text[j], text, sizeof(text));
	}
}

void
chp_json_close(struct chp_json_doc *doc)
{
	sort_errors(doc);
	json_decref(doc->root);
	doc->root = NULL;
	chp_json_index_fini(&doc->index);
}

struct chp_json_place
chp_json_root(struct chp_json_doc *doc)
{
	return (struct chp_json_place){ .doc = doc, .value = doc->root, .node = 0 };
}

struct chp_json_place
chp_json_key(const struct chp_json_place *object, const char *key)
{
	struct chp_json_place at = { .doc = object->doc, .node = object->node };
	struct chp_line path = chp_line_init(at.path, sizeof(at.path));
	uint32_t node;

	chp_line_add(&path, "%s%s", object->path, object->path[0] ? "." : "");
	add_foreign(&path, key, strlen(key), SHOW_KEY_BYTES);
	at.value = json_object_get(object->value, key);
	if (at.value) {
		node = chp_json_index_key(&at.doc->index, at.doc->text, object->node, key);
		CHP_ASSERT(node != CHP_JSON_NONE); /* jansson and the index read the same text */
		at.node = node;
	}
	return at;
}

struct chp_json_place
chp_json_item(const struct chp_json_place *list, uint32_t item)
{
	struct chp_json_place at = { .doc = list->doc, .node = list->node };
	struct chp_line path = chp_line_init(at.path, sizeof(at.path));
	uint32_t node;

	chp_line_add(&path, "%s[%u]", list->path, item);
	at.value = json_array_get(list->value, item);
	if (at.value) {
		node = chp_json_index_item(&at.doc->index, list->node, item);
		CHP_ASSERT(node != CHP_JSON_NONE);
		at.node = node;
	}
	return at;
}

static void
add_value(struct chp_line *t, const struct chp_json_place *place)
{
	const struct chp_json_node *node = &place->doc->index.node[place->node];

	if (!place->value)
		chp_line_add(t, "missing");
	else if (json_is_object(place->value))
		chp_line_add(t, "an object");
	else if (json_is_array(place->value))
		chp_line_add(t, "a list of %zu", json_array_size(place->value));
	else
		add_foreign(t, place->doc->text + node->value_at, node->value_len,
			    SHOW_VALUE_BYTES);
}

/* A place's message is begun with the value or, for what is wrong with the key itself, without. */
static bool
place_error_begin(const struct chp_json_place *place, bool value, struct chp_line *t)
{
	struct chp_json_doc *doc = place->doc;
	uint32_t line = doc->index.node[place->node].line;

	if (doc->errors->n < CHP_CONFIG_ERRORS_MAX)
		doc->line[doc->errors->n] = line;
	if (!error_begin(doc->errors, doc->file, line, t))
		return false;
	if (place->path[0])
		chp_line_add(t, "%s: ", place->path);
	if (value) {
		add_value(t, place);
		chp_line_add(t, ": ");
	}
	return true;
}

void
chp_json_error(const struct chp_json_place *place, const char *format, ...)
{
	struct chp_line t;
	va_list args;

	if (!place_error_begin(place, true, &t))
		return;
	va_start(args, format);
	chp_line_vadd(&t, format, args);
	va_end(args);
}

/* ---- unknown keys ---- */

/* Edits (insert, remove, replace a character) from a to b; both shorter than 64, else "far". */
static uint32_t
edit_distance(const char *a, const char *b)
{
	uint32_t row[64], n = (uint32_t)strnlen(a, 64), m = (uint32_t)strnlen(b, 64);

	if (n >= 64 || m >= 64)
		return UINT32_MAX;
	for (uint32_t j = 0; j <= m; j++)
		row[j] = j;
	for (uint32_t i = 1; i <= n; i++) {
		uint32_t diagonal = row[0];

		row[0] = i;
		for (uint32_t j = 1; j <= m; j++) {
			uint32_t replace = diagonal + (a[i - 1] != b[j - 1]);
			uint32_t edit = chp_min_u32(row[j], row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = chp_min_u32(replace, edit);
		}
	}
	return row[m];
}

/* The known key that was probably meant: a few letters wrong, or its unit forgotten ("rto_min"). */
static const char *
closest_key(const struct chp_field *fields, const char *key)
{
	size_t len = strlen(key);
	uint32_t limit = 1 + (uint32_t)(len < 8 ? len : 8) / 4, best = UINT32_MAX;
	const char *closest = NULL;

	for (; fields->type != CHP_FIELD_END; fields++) {
		uint32_t d = edit_distance(key, fields->key);

		if (len >= 3 && strncmp(key, fields->key, len) == 0)
			d = chp_min_u32(d, limit);
		if (d <= limit && d < best) {
			best = d;
			closest = fields->key;
		}
	}
	return closest;
}

static void
report_unknown(const struct chp_json_place *object, const struct chp_field *fields, const char *key)
{
	struct chp_json_place place;
	const char *closest;
	struct chp_line t;

	/* The look-up below is linear; a file of unknown keys must not take for ever. */
	if (object->doc->errors->n >= CHP_CONFIG_ERRORS_MAX) {
		object->doc->errors->n++;
		return;
	}
	place = chp_json_key(object, key);
	closest = closest_key(fields, key);
	if (!place_error_begin(&place, false, &t))
		return;
	if (closest) {
		chp_line_add(&t, "unknown key; did you mean \"%s\"?", closest);
		return;
	}
	chp_line_add(&t, "unknown key; expected one of");
	for (uint32_t i = 0; fields[i].type != CHP_FIELD_END; i++)
		chp_line_add(&t, "%s %s", i > 0 ? "," : "", fields[i].key);
}

/* ---- objects described by tables ---- */

static bool
is_field(const struct chp_field *fields, const char *key)
{
	for (; fields->type != CHP_FIELD_END; fields++) {
		if (strcmp(fields->key, key) == 0)
			return true;
	}
	return false;
}

/* `"a", "b" or "c"` */
static void
add_choices(struct chp_line *t, const char *const *names)
{
	for (uint32_t i = 0; names[i]; i++)
		chp_line_add(t, "%s\"%s\"", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
}

static void
add_expected(struct chp_line *t, const struct chp_field *f)
{
	switch (f->type) {
	case CHP_FIELD_UINT:
		chp_line_add(t, "a whole number from %llu to %llu", (unsigned long long)f->min,
			     (unsigned long long)f->max);
		break;
	case CHP_FIELD_POW2:
		chp_line_add(t, "a power of two from %llu to %llu", (unsigned long long)f->min,
			     (unsigned long long)f->max);
		break;
	case CHP_FIELD_BOOL:
		chp_line_add(t, "true or false");
		break;
	case CHP_FIELD_CHOICE:
		add_choices(t, f->choices);
		break;
	case CHP_FIELD_NAME:
		chp_line_add(t, "1 to %u characters of A-Z a-z 0-9 _ . -", CHP_NAME_BYTES_MAX);
		break;
	case CHP_FIELD_PORT:
		chp_line_add(t, "1 to %u characters of A-Z a-z 0-9 _ . : -", CHP_NAME_BYTES_MAX);
		break;
	case CHP_FIELD_ADDRESS:
		chp_line_add(t, "a unicast IPv4 address as \"10.99.0.10\"%s",
			     f->def == CHP_FIELD_REQUIRED ? "" : " or \"none\"");
		break;
	case CHP_FIELD_CUSTOM:
	case CHP_FIELD_IGNORED:
	case CHP_FIELD_END:
		break;
	}
}

static void
store_number(const struct chp_field *f, void *to, uint64_t v)
{
	uint32_t v32 = (uint32_t)v;
	bool v1 = v != 0;

	if (f->bytes == sizeof(v))
		memcpy((char *)to + f->offset, &v, sizeof(v));
	else if (f->bytes == sizeof(v32))
		memcpy((char *)to + f->offset, &v32, sizeof(v32));
	else
		memcpy((char *)to + f->offset, &v1, sizeof(v1));
}

uint64_t
chp_field_number(const struct chp_field *f, const void *from)
{
	uint64_t v;
	uint32_t v32;
	bool v1;

	if (f->bytes == sizeof(v)) {
		memcpy(&v, (const char *)from + f->offset, sizeof(v));
		return v;
	}
	if (f->bytes == sizeof(v32)) {
		memcpy(&v32, (const char *)from + f->offset, sizeof(v32));
		return v32;
	}
	memcpy(&v1, (const char *)from + f->offset, sizeof(v1));
	return v1;
}

static bool
read_number(json_t *value, const struct chp_field *f, void *to)
{
	json_int_t v = json_integer_value(value);

	if (!json_is_integer(value) || v < 0 || (uint64_t)v < f->min || (uint64_t)v > f->max)
		return false;
	if (f->type == CHP_FIELD_POW2 && !chp_is_pow2((uint64_t)v))
		return false;
	store_number(f, to, (uint64_t)v * f->unit);
	return true;
}

static bool
read_choice(json_t *value, const struct chp_field *f, void *to)
{
	const char *s = json_string_value(value);

	for (uint32_t i = 0; s && f->choices[i]; i++) {
		if (strcmp(s, f->choices[i]) == 0) {
			store_number(f, to, i);
			return true;
		}
	}
	return false;
}

static bool
read_name(json_t *value, const struct chp_field *f, void *to)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	const char *s = json_string_value(value);
	size_t len = s ? strlen(s) : 0;

	CHP_ASSERT_OP(f->bytes, ==, CHP_NAME_BYTES_MAX + 1);
	if (len == 0 || len > CHP_NAME_BYTES_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!strchr(allowed, s[i]) && !(s[i] == ':' && f->type == CHP_FIELD_PORT))
			return false;
	}
	memcpy((char *)to + f->offset, s, len + 1);
	return true;
}

/* Not 0.0.0.0/8 ("this network"), loopback, multicast, reserved or broadcast. */
static bool
read_address(json_t *value, const struct chp_field *f, void *to)
{
	const char *s = json_string_value(value);
	struct in_addr in;
	uint32_t address;

	if (s && f->def != CHP_FIELD_REQUIRED && strcmp(s, "none") == 0) {
		store_number(f, to, 0);
		return true;
	}
	if (!s || inet_pton(AF_INET, s, &in) != 1)
		return false;
	address = ntohl(in.s_addr);
	if (address >> 24 == 0 || address >> 24 == 127 || address >> 24 >= 224)
		return false;
	store_number(f, to, address);
	return true;
}

void
chp_address_text(uint32_t address, char to[16])
{
	(void)snprintf(to, 16, "%u.%u.%u.%u", address >> 24, address >> 16 & 0xff,
		       address >> 8 & 0xff, address & 0xff);
}

static bool
read_value(json_t *value, const struct chp_field *f, void *to)
{
	switch (f->type) {
	case CHP_FIELD_UINT:
	case CHP_FIELD_POW2:
		return read_number(value, f, to);
	case CHP_FIELD_BOOL:
		store_number(f, to, json_is_true(value));
		return json_is_boolean(value);
	case CHP_FIELD_CHOICE:
		return read_choice(value, f, to);
	case CHP_FIELD_NAME:
	case CHP_FIELD_PORT:
		return read_name(value, f, to);
	case CHP_FIELD_ADDRESS:
		return read_address(value, f, to);
	case CHP_FIELD_CUSTOM:
	case CHP_FIELD_IGNORED:
	case CHP_FIELD_END:
		break;
	}
	return true;
}

static void
set_default(const struct chp_field *f, void *to)
{
	char *at = (char *)to + f->offset;
	size_t len;

	if (f->type == CHP_FIELD_NAME || f->type == CHP_FIELD_PORT) {
		len = f->text ? strlen(f->text) : 0;
		CHP_ASSERT_OP(len, <, f->bytes);
		memset(at, 0, f->bytes);
		memcpy(at, f->text ? f->text : "", len);
	} else if (f->type != CHP_FIELD_CUSTOM && f->type != CHP_FIELD_IGNORED) {
		store_number(f, to,
			     f->def == CHP_FIELD_REQUIRED ? 0 : f->def * (f->unit ? f->unit : 1));
	}
}

static bool
is_later(const struct chp_field *f, json_t *value)
{
	const char *s = json_string_value(value);

	for (uint32_t i = 0; s && f->later && f->later[i]; i++) {
		if (strcmp(s, f->later[i]) == 0)
			return true;
	}
	return false;
}

static void
report_value(const struct chp_json_place *place, const struct chp_field *f)
{
	struct chp_line t;

	if (!place_error_begin(place, true, &t))
		return;
	if (is_later(f, place->value))
		chp_line_add(&t, "not available yet; ");
	chp_line_add(&t, "expected ");
	if (!place->value)
		chp_line_add(&t, "%s%s", f->what, f->type == CHP_FIELD_CUSTOM ? "" : ", ");
	add_expected(&t, f);
}

uint64_t
chp_json_read(const struct chp_json_place *object, const struct chp_field *fields, void *to)
{
	uint64_t bad = 0;
	const char *key;
	json_t *value;

	if (object->value && !json_is_object(object->value)) {
		chp_json_error(object, "expected an object, { \"%s\": ... }", fields[0].key);
		bad = UINT64_MAX;
	}
	json_object_foreach (object->value, key, value) {
		if (!is_field(fields, key))
			report_unknown(object, fields, key);
	}
	for (uint32_t i = 0; fields[i].type != CHP_FIELD_END; i++) {
		const struct chp_field *f = &fields[i];
		struct chp_json_place place = chp_json_key(object, f->key);
		bool required = f->def == CHP_FIELD_REQUIRED && bad != UINT64_MAX;

		CHP_ASSERT_OP(i, <, 63);
		set_default(f, to);
		if (place.value ? !read_value(place.value, f, to) : required) {
			report_value(&place, f);
			set_default(f, to);
			bad |= chp_bit(i);
		}
	}
	return bad;
}

bool
chp_fields_ok(const struct chp_field *fields, uint64_t bad, const char *const *keys)
{
	for (; *keys; keys++) {
		uint32_t i = 0;

		while (fields[i].type != CHP_FIELD_END && strcmp(fields[i].key, *keys) != 0)
			i++;
		CHP_ASSERT(fields[i].type != CHP_FIELD_END);
		if (bad & chp_bit(i))
			return false;
	}
	return true;
}

/* ---- files ---- */

/* Fill bytes, CHP_JSON_BYTES_MAX + 1 of them, from a file. False with an error added. */
static bool
read_file(FILE *f, const char *file, char *bytes, size_t *len, struct chp_config_errors *errors)
{
	size_t n = fread(bytes, 1, CHP_JSON_BYTES_MAX + 1, f);

	if (ferror(f)) {
		error_in_file(errors, file, 0, "can't read it: %s", strerror(errno));
		return false;
	}
	if (n > CHP_JSON_BYTES_MAX) {
		error_in_file(errors, file, 0, "more than %u bytes: expected a configuration file",
			      CHP_JSON_BYTES_MAX);
		return false;
	}
	bytes[n] = '\0';
	*len = n;
	return true;
}

char *
chp_config_read_file(const char *file, size_t *len, struct chp_config_errors *errors)
{
	char *bytes = malloc(CHP_JSON_BYTES_MAX + 1);
	FILE *f = bytes ? fopen(file, "re") : NULL;

	if (!f) {
		error_in_file(errors, file, 0, "can't open it: %s", strerror(errno));
		free(bytes);
		return NULL;
	}
	if (!read_file(f, file, bytes, len, errors)) {
		free(bytes);
		bytes = NULL;
	}
	(void)fclose(f);
	return bytes;
}
